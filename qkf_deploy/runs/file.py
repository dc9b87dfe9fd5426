"""Runs read from and written to files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.runs import content, database, store
from qkf_deploy.runs.check import check_content
from qkf_deploy.runs.content import About, RunFile
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
    head = content.head(graph, about.data, run.ledger.images, about.place)
    store.write(path, [head], [content.rows(run, about)], [content.shown(graph, run, about).tables()], [run.notices])


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
        number = chosen(held, which)
        try:
            found = list(held.rows(number))
            run = content.content(held.runs[number], found, held.gates(number), held.notices(number))
            check_content(run)
        except InputError as error:
            raise InputError(error.message, where=str(held.path), hint=error.hint or database.AGAIN) from error
    return run


class Runs(Mapping[str, RunFile]):
    """All runs of some files by name, each read when it is asked for.

    A run that is alone in its file is called by the file's path; the others have names of their own, with the path
    before them where there are several files. Those without a result are left out where others of their file have some.

    Attributes:
        left_out: names of the runs that are left out.

    Raises:
        UsageError: a file that is given twice.
        InputError: as of :func:`read_run`, for the file when this is made, for a run when it is read.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._places: dict[str, tuple[str | Path, int]] = {}
        self.left_out: tuple[str, ...] = ()
        for path in paths:
            with Store.open(path) as held:
                names = [head.name or str(number) for number, head in enumerate(held.runs)]
                filled = [held.has_result(number) for number in range(len(names))]
            for number, name in enumerate(names):
                called = str(path) if len(names) == 1 else name if len(paths) == 1 else f"{path} {name}"
                if called in self._places:
                    raise UsageError("is given twice", where=called)
                if any(filled) and not filled[number]:
                    self.left_out += (called,)
                    continue
                self._places[called] = (path, number)

    def __getitem__(self, name: str) -> RunFile:
        return read_run(*self._places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def how_far(path: str | Path) -> tuple[int, int]:
    """(samples with a row, samples in all) of all runs of a file. Raises InputError as :func:`read_run`."""
    with Store.open(path) as held:
        samples = sum(head.samples for head in held.runs)
        return samples - sum(len(held.missing(number)) for number in range(len(held.runs))), samples


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
