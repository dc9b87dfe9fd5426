"""What stored runs say: one by itself, several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qkf_deploy.errors import UsageError
from qkf_deploy.keywords import checked
from qkf_deploy.pipeline.costs import load_profile
from qkf_deploy.runs.content import RunFile

if TYPE_CHECKING:
    from qkf_deploy.hw_models.profiles import Profile
    from qkf_deploy.runs.file import Runs
    from qkf_deploy.statistics.comparison import Measured, RunComparison
    from qkf_deploy.statistics.summary import Evaluation
    from qkf_deploy.statistics.sweep import Sweep


@checked
def load_runs(paths: str | Path | Sequence[str | Path]) -> Runs:
    """Every run of one or more files by name, read when it is asked for: the points of a sweep, or runs to compare.

    Args:
        paths: of the files. A run that is alone in its file is called by the file's path.

    Returns:
        A mapping; its ``left_out`` names the runs of a file that have no result yet while others of it have.

    Raises:
        UsageError: a file that is given twice.
        InputError: missing, truncated, not a run file, damaged; when a run is read, nothing of it has run yet.
    """
    from qkf_deploy.runs.file import Runs

    return Runs([paths] if isinstance(paths, str | Path) else paths)


@checked
def summarize(run: RunFile, profiles: Sequence[Profile | str | Path] = ("paper-eq23",)) -> Evaluation:
    """Accuracy with Wilson's interval, by class and confusion; rates, operations and energy with their spread.

    Args:
        run: of :func:`load_run` or :func:`measure`, partial or complete.
        profiles: price profiles; the first one's energies are told by layer.

    Raises:
        UsageError, ProfileError: no or an unknown profile, or a file that breaks the schema.
    """
    from qkf_deploy.hw_models.pricing import price
    from qkf_deploy.statistics.summary import summarize as _summarize

    return _summarize(run, [price(run.ledger, profile) for profile in profiles])


@checked
def compare_runs(
    runs: Mapping[str, RunFile],
    profile: Profile | str | Path | Sequence[Profile | str | Path] = "paper-eq23",
) -> RunComparison:
    """Runs side by side: accuracy, operations, energy and memory, and their differences from the first.

    Runs of the same data set are compared sample by sample: which answers changed and in which direction, McNemar's
    test, and energy and operations of the same images.

    Args:
        runs: two or more by name, partial or complete; one where there are several profiles.
        profile: a name, the path of a TOML file, or a loaded profile; or several, whose energies stand side by side.

    Raises:
        UsageError, ProfileError: fewer than two runs and profiles, no profile, an unknown one, or a file that breaks
            the schema.
    """
    from qkf_deploy.statistics.comparison import compare_runs as _compare

    return _compare(_measured(runs, profile), _left_out(runs))


@checked
def summarize_sweep(runs: Mapping[str, RunFile], profile: Profile | str | Path = "paper-eq23") -> Sweep:
    """The points of a sweep side by side: accuracy with its interval, operations, energy and memory by T and bits.

    Args:
        runs: of :func:`load_runs`, at least one.
        profile: a name, the path of a TOML file, or a loaded profile.

    Raises:
        UsageError, ProfileError: no runs, an unknown profile, or a file that breaks the schema.
    """
    from qkf_deploy.statistics.sweep import sweep

    return sweep(_measured(runs, profile), _left_out(runs))


def _left_out(runs: Mapping[str, RunFile]) -> tuple[str, ...]:
    from qkf_deploy.runs.file import Runs

    return runs.left_out if isinstance(runs, Runs) else ()


def _measured(
    runs: Mapping[str, RunFile], profile: Profile | str | Path | Sequence[Profile | str | Path]
) -> Iterator[Measured]:
    from qkf_deploy.hw_models.pricing import price
    from qkf_deploy.statistics.comparison import Measured

    several = profile if isinstance(profile, Sequence) and not isinstance(profile, str) else [profile]
    chosen = [load_profile(p) if isinstance(p, str | Path) else p for p in several]
    if not chosen:
        raise UsageError("no profile", hint="name one, such as paper-eq23")
    for name, run in runs.items():
        report, *others = (price(run.ledger, p) for p in chosen)
        yield Measured(name, run, report, tuple(others))


@checked
def write_sweep_report(
    runs: Mapping[str, RunFile], path: str | Path, profile: Profile | str | Path = "paper-eq23"
) -> None:
    """Write one self-contained HTML page about a sweep, atomically: the curve of accuracy over energy, and its table.

    Args:
        runs: of :func:`load_runs`, at least one.
        path: of the page.
        profile: a name, the path of a TOML file, or a loaded profile.

    Raises:
        UsageError, ProfileError: no runs, an unknown profile, or a file that breaks the schema.
        InputError: the place cannot be written.
        MissingComponent: jinja2 is not installed.
    """
    from qkf_deploy.report.sweep_page import write_sweep_page

    write_sweep_page(path, summarize_sweep(runs, profile))
