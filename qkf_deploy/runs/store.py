"""Stored runs: one SQLite file for what `simulate` and `evaluate` write, sample by sample.

A row that :meth:`Store.add` has taken is on the disk, whatever ends the program after that. The order in which rows
arrive changes nothing of what is read.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qkf_deploy import limits
from qkf_deploy.errors import InputError, damage
from qkf_deploy.ledger import COUNT_CLASSES, Ledger
from qkf_deploy.runs import database
from qkf_deploy.runs.locking import locked, unlock
from qkf_deploy.runs.packing import same
from qkf_deploy.writing import new_file

#: Memory that JSON takes at most per byte of text, as in ``[[],[],[]``.
_PER_BYTE = 24
#: Memory of a number in a list.
_PER_SAMPLE = 64
#: Best classes that are kept of a sample.
TOP = 5
_COLUMNS = "position, name, label, prediction, top, error, counts"


@dataclass(frozen=True)
class Head:
    """What a run is of: everything that is not of one sample.

    Attributes:
        network: digest of the network (:func:`qkf_deploy.ir.digest.digest`).
        data: digest of the data set; empty where it is not known.
        config: how it runs and where things are, as plain data.
        samples: N, of the whole data set.
        ledger: counts of no image: what is static about every layer.
        graph: summary of the network: ``time_steps``, ``arithmetic``, ``nodes`` ...
        widths: one dictionary per node with proven widths, see :func:`qkf_deploy.runs.widths.width_rows`.
        class_names: of the logits.
        provenance: source hashes, versions, command.
        notices: of the network.
    """

    network: str
    data: str
    config: Mapping[str, Any]
    samples: int
    ledger: Ledger
    graph: Mapping[str, Any]
    widths: tuple[Mapping[str, Any], ...]
    class_names: tuple[str, ...]
    provenance: Mapping[str, str]
    notices: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the run is called in a file that holds several."""
        return str(self.config.get("name", ""))


@dataclass(frozen=True)
class Row:
    """What became of one sample.

    Attributes:
        index: position in the data set.
        name: of its file, or what it is called.
        label, prediction: classes; ``None`` where there is none.
        top: the best classes, best first, five at most.
        counts: of :func:`qkf_deploy.runs.packing.pack`; empty for an error.
        error: one sentence, where the sample could not be run.
    """

    index: int
    name: str
    label: int | None
    prediction: int | None
    top: tuple[int, ...]
    counts: bytes
    error: str | None = None


class Store:
    """A file of runs. Use it in a ``with`` block.

    Attributes:
        path: of the file.
        runs: what its runs are of: one, or one per point of a sweep.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, lock: int | None) -> None:
        self.path, self._db, self._lock = path, db, lock
        self.runs = tuple(self._heads())

    @staticmethod
    def create(path: str | Path, heads: Sequence[Head], *, force: bool = False) -> Store:
        """A new file with runs that have no rows yet, open for writing.

        Args:
            path: a place without a file, or with ``force`` one that may be replaced.
            heads: of the runs.

        Raises:
            InputError: a file is there, or the place cannot be written.
        """
        path = Path(path)
        if path.exists() and not force:
            raise InputError("exists already", where=str(path), hint="give another place, or go on with --resume")
        write(path, heads, [()] * len(heads))
        return Store.open(path, write=True)

    @staticmethod
    def open(path: str | Path, *, write: bool = False) -> Store:
        """Open a file.

        Args:
            path: of the file.
            write: True to add rows; one program at a time.

        Raises:
            InputError: missing, not a run file, damaged, or written by another program now.
        """
        path = Path(path)
        database.check_header(path)
        lock = locked(path) if write else None
        try:
            return Store(path, database.connect(path, write), lock)
        except BaseException:
            unlock(lock)
            raise

    def add(
        self,
        run: int,
        rows: Sequence[Row],
        *,
        gates: Sequence[Mapping[str, Any]] = (),
        notices: Iterable[str] = (),
    ) -> None:
        """Store rows; when this returns they are on the disk, all of them. A row that is there already is left.

        Args:
            run: which run.
            rows: of samples.
            gates: what is shown of the first samples, where sample 0 is among them.
            notices: sentences about these samples.

        Raises:
            InputError: a sample that is not of the run or has another row already (nothing is stored then), or a file
                that cannot be written (what was stored before stays).
        """
        with database.reported(self.path), _transaction(self._db):
            for row in rows:
                self._add(run, row)
            if gates:
                self._db.execute("UPDATE run SET gates = ? WHERE id = ?", (_dump(list(gates)), run))
            said = [(run, text) for text in notices]
            self._db.executemany("INSERT OR IGNORE INTO notice (run, text) VALUES (?, ?)", said)

    def _add(self, run: int, row: Row) -> None:
        if not 0 <= row.index < self.runs[run].samples:
            raise InputError(f"the run has no sample {row.index}", where=str(self.path))
        held = self._db.execute(
            f"SELECT {_COLUMNS} FROM sample WHERE run = ? AND position = ?",  # noqa: S608 - a constant
            (run, row.index),
        ).fetchone()
        if held is None:
            _insert(self._db, run, row)
        elif not _equal(self._row(held), row):
            raise InputError(
                f"sample {row.index} ({row.name}) has another result already", where=str(self.path),
                hint="network, images and settings must be those that the file was begun with",
            )  # fmt: skip

    def missing(self, run: int = 0) -> list[int]:
        """Ascending positions without a row. Raises InputError: so many samples are beyond the memory limit."""
        limits.check(_PER_SAMPLE * self.runs[run].samples, "the list of samples", str(self.path))
        with database.reported(self.path):
            found = {i for (i,) in self._db.execute("SELECT position FROM sample WHERE run = ?", (run,))}
        return [i for i in range(self.runs[run].samples) if i not in found]

    def rows(self, run: int = 0) -> Iterator[Row]:
        """Rows by ascending position.

        Raises:
            InputError: the file is damaged.
        """
        query = f"SELECT {_COLUMNS} FROM sample WHERE run = ? ORDER BY position"  # noqa: S608 - a constant
        last = -1
        with database.reported(self.path):
            for found in self._db.execute(query, (run,)):
                row = self._row(found)
                if not last < row.index < self.runs[run].samples:
                    raise InputError("a damaged run file: samples out of order", where=str(self.path))
                last = row.index
                yield row

    def has_result(self, run: int = 0) -> bool:
        """True if any sample has a result, not an error."""
        query = "SELECT EXISTS (SELECT 1 FROM sample WHERE run = ? AND error IS NULL)"
        with database.reported(self.path):
            (found,) = self._db.execute(query, (run,)).fetchone()
        return bool(found)

    def gates(self, run: int = 0) -> tuple[Mapping[str, Any], ...]:
        """What is shown of the first samples, see :meth:`qkf_deploy.runs.first.Shown.tables`."""
        with database.reported(self.path):
            (text,) = self._db.execute("SELECT gates FROM run WHERE id = ?", (run,)).fetchone()
        found = self._json(text)
        if not isinstance(found, list):
            raise InputError("a damaged run file: gates", where=str(self.path))
        return tuple(found)

    def notices(self, run: int = 0) -> tuple[str, ...]:
        """Sentences about samples, sorted."""
        with database.reported(self.path):
            return tuple(
                str(t) for (t,) in self._db.execute("SELECT text FROM notice WHERE run = ? ORDER BY text", (run,))
            )

    def size(self, run: int = 0) -> int:
        """Bytes of all stored counts."""
        with database.reported(self.path):
            (total,) = self._db.execute("SELECT total(length(counts)) FROM sample WHERE run = ?", (run,)).fetchone()
        return int(total)

    def close(self) -> None:
        """Everything into one file; nothing lies beside it after that."""
        with contextlib.suppress(sqlite3.Error):  # what was added is safe without it
            if self._lock is not None:
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()
        unlock(self._lock)
        self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *caught: object) -> None:
        self.close()

    def _heads(self) -> Iterator[Head]:
        with database.reported(self.path):
            sizes = self._db.execute("SELECT total(length(head) + length(gates)) FROM run").fetchone()
            limits.check(_PER_BYTE * int(sizes[0]), "the description of the runs", str(self.path))
            found = self._db.execute("SELECT id, network, data, samples, head FROM run ORDER BY id").fetchall()
            query = "SELECT count(*) FROM sample WHERE run NOT IN (SELECT id FROM run)"
            (strays,) = self._db.execute(query).fetchone()
        if not found or [number for number, *_ in found] != list(range(len(found))):
            raise InputError("a damaged run file: no runs", where=str(self.path), hint=database.AGAIN)
        if strays:
            raise InputError("a damaged run file: samples of no run", where=str(self.path), hint=database.AGAIN)
        for _, network, data, samples, text in found:
            yield self._head(network, data, samples, self._json(text))

    def _head(self, network: Any, data: Any, samples: Any, head: Any) -> Head:
        try:
            if not isinstance(samples, int) or samples < 1:
                raise InputError("a run of no samples")
            if not isinstance(network, str) or not isinstance(data, str) or not isinstance(head["config"], dict):
                raise InputError("digests or settings")
            if head.get("counts") == list(COUNT_CLASSES):  # rows know them by their place
                return Head(
                    network=network,
                    data=data,
                    config=head["config"],
                    samples=samples,
                    ledger=Ledger.from_dict(head["ledger"]),
                    graph=head["graph"],
                    widths=tuple(head["widths"]),
                    class_names=tuple(map(str, head["class_names"])),
                    provenance={str(k): str(v) for k, v in head["provenance"].items()},
                    notices=tuple(map(str, head["notices"])),
                )
        except KeyError as error:
            raise InputError(f"a damaged run file: {damage(error)}", where=str(self.path)) from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError("a damaged run file: its description", where=str(self.path)) from error
        except InputError as error:
            raise InputError(f"a damaged run file: {error.message}", where=str(self.path), hint=error.hint) from error
        words = "its counts are those of another version of qkf-deploy"
        raise InputError(words, where=str(self.path), hint=database.AGAIN)

    def _row(self, found: Sequence[Any]) -> Row:
        index, name, label, prediction, top, error, counts = found
        best = self._json(top)
        whole = isinstance(name, str) and isinstance(error, str | None) and isinstance(counts, bytes)
        classes = [label, prediction, *(best if isinstance(best, list) else [None, ""])]
        whole = whole and type(index) is int and len(set(map(str, classes[2:]))) == len(classes[2:]) <= TOP
        whole = whole and (best == [] or (isinstance(best, list) and best[0] == prediction))
        if (
            not whole
            or not all(c is None or (type(c) is int and c >= 0) for c in classes)
            or bool(counts) is bool(error)
        ):
            raise InputError(f"a damaged run file: sample {index}", where=str(self.path), hint=database.AGAIN)
        return Row(index, name, label, prediction, tuple(best), counts, error)

    def _json(self, text: Any) -> Any:
        try:
            return json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError("a damaged run file: its JSON", where=str(self.path), hint=database.AGAIN) from error


def write(
    path: str | Path,
    heads: Sequence[Head],
    rows: Sequence[Iterable[Row]],
    gates: Sequence[Sequence[Mapping[str, Any]]] = (),
    notices: Sequence[Iterable[str]] = (),
) -> None:
    """Write a whole file at once, atomically; a run file that it replaces is whole until then.

    Args:
        path: of the file.
        heads, rows, gates, notices: of every run.

    Raises:
        InputError: the place cannot be written, or another program writes the file that is there.
    """
    with (
        database.reported(Path(path)),
        _replacing(Path(path)),
        new_file(path) as made,
        contextlib.closing(database.new(made)) as db,
    ):
        for number, head in enumerate(heads):
            pictures = _dump(list(gates[number]) if gates else [])
            described = _dump(
                {
                    "config": dict(head.config), "ledger": head.ledger.to_dict(), "graph": head.graph,
                    "widths": list(head.widths), "class_names": list(head.class_names), "counts": list(COUNT_CLASSES),
                    "provenance": dict(head.provenance), "notices": list(head.notices),
                }
            )  # fmt: skip
            about = (number, head.network, head.data, head.samples, described, pictures)
            db.execute("INSERT INTO run (id, network, data, samples, head, gates) VALUES (?, ?, ?, ?, ?, ?)", about)
            for row in rows[number]:
                _insert(db, number, row)
            for text in sorted(set(notices[number])) if notices else ():
                db.execute("INSERT INTO notice (run, text) VALUES (?, ?)", (number, text))
        db.execute("COMMIT")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[None]:
    """Keeps other writers out of a run file that is replaced; what its last writer left in the log goes in first."""
    lock = None
    if database.is_run(path):
        lock = locked(path)
        with contextlib.suppress(InputError), database.reported(path):  # a damaged one may go as it is
            db = database.connect(path, write=True)
            db.execute("PRAGMA journal_mode = DELETE")
            db.close()
    else:
        database.remove_logs(path)
    try:
        yield
    finally:
        unlock(lock)


def _insert(db: sqlite3.Connection, run: int, row: Row) -> None:
    values = (run, row.index, row.name, row.label, row.prediction, _dump(list(row.top)), row.error, row.counts)
    db.execute(f"INSERT INTO sample (run, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608


def _equal(a: Row, b: Row) -> bool:
    """The same result; compressed counts may differ in their bytes."""
    facts = [(r.index, r.name, r.label, r.prediction, r.top, r.error) for r in (a, b)]
    return facts[0] == facts[1] and same(a.counts, b.counts)


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
