"""What stored runs say: one by itself, several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qkf_deploy.keywords import checked
from qkf_deploy.runs.content import RunFile

if TYPE_CHECKING:
    from qkf_deploy.hw_models.profiles import Profile
    from qkf_deploy.statistics.comparison import RunComparison
    from qkf_deploy.statistics.summary import Evaluation


@checked
def load_runs(path: str | Path) -> dict[str, RunFile]:
    """Every run of a file, by name: the points of a sweep; a file of one run is called by its path.

    Args:
        path: of the file.

    Raises:
        InputError: missing, truncated, not a run file, damaged, or a run in which nothing has run yet.
    """
    from qkf_deploy.runs.file import read_runs

    return read_runs(path)


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
def compare_runs(runs: Mapping[str, RunFile], profile: Profile | str | Path = "paper-eq23") -> RunComparison:
    """Runs side by side: accuracy, operations, energy and memory, and their differences from the first.

    Runs of the same data set are compared sample by sample: which answers changed and in which direction, McNemar's
    test, and energy and operations of the same images.

    Args:
        runs: two or more by name, partial or complete.
        profile: a name, the path of a TOML file, or a loaded profile.

    Raises:
        UsageError, ProfileError: fewer than two runs, an unknown profile, or a file that breaks the schema.
    """
    from qkf_deploy.hw_models.pricing import price
    from qkf_deploy.statistics.comparison import Measured
    from qkf_deploy.statistics.comparison import compare_runs as _compare

    return _compare([Measured(name, run, price(run.ledger, profile)) for name, run in runs.items()])
