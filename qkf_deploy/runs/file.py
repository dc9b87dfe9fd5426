"""Runs read from and written to files."""

from __future__ import annotations

from pathlib import Path

from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.runs import content, database, store
from qkf_deploy.runs.check import check_content
from qkf_deploy.runs.content import About, RunFile
from qkf_deploy.runs.gates import gate_pictures
from qkf_deploy.runs.store import Store
from qkf_deploy.simulators.run import Run


def write_run(path: str | Path, graph: Graph, run: Run, about: About = About()) -> None:  # noqa: B008 - frozen
    """Write a run, atomically.

    Args:
        path: of the file.
        graph: the network that ran.
        run: its result; gate pictures appear where the gates of :func:`gate_nodes` were recorded.
        about: what is known of the images.

    Raises:
        InputError: the place cannot be written.
    """
    head = content.head(graph, about.data, run.ledger.images, {})
    store.write(path, [head], [content.rows(run, about)], [gate_pictures(graph, run)], [run.notices])


def read_run(path: str | Path, which: int | str | None = None) -> RunFile:
    """Read a run.

    Args:
        path: of the file.
        which: number or name of a run, where the file holds several.

    Raises:
        UsageError: several runs and none chosen, or no such run.
        InputError: missing, truncated, not a run file, damaged, beyond the memory limit, or nothing has run yet.
    """
    with Store.open(path) as held:
        return _read(held, chosen(held, which))


def read_runs(path: str | Path) -> dict[str, RunFile]:
    """Every run of a file, by name; the only one of a file is called by the file's path.

    Raises:
        InputError: as of :func:`read_run`.
    """
    with Store.open(path) as held:
        if len(held.runs) == 1:
            return {str(path): _read(held, 0)}
        return {head.name or str(number): _read(held, number) for number, head in enumerate(held.runs)}


def _read(held: Store, number: int) -> RunFile:
    try:
        found = list(held.rows(number))
        run = content.content(held.runs[number], found, held.gates(number), held.notices(number))
        check_content(run)
    except InputError as error:
        raise InputError(error.message, where=str(held.path), hint=error.hint or database.AGAIN) from error
    return run


def chosen(held: Store, which: int | str | None) -> int:
    """The number of a run that is named, or the only one. Raises UsageError."""
    names = [head.name for head in held.runs]
    if which is None and len(names) == 1:
        return 0
    if which in names:
        return names.index(str(which))
    number = int(which) if which is not None and str(which).isdecimal() else -1
    if 0 <= number < len(names):
        return number
    listed = "; ".join(f"{i}: {name}" if name else str(i) for i, name in enumerate(names))
    raise UsageError(
        f"holds no run {which!r}" if which is not None else f"holds {len(names)} runs",
        where=str(held.path),
        hint=f"choose one with --point: {listed}",
    )
