"""SQLite as a file format: opened without trust, every failure of it an error with its place."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

from qkf_deploy.errors import InputError
from qkf_deploy.filekinds import kind_of, refuse_others

APPLICATION_ID = 0x514B4652
"""Says "QKFR" in the file's header."""
SCHEMA_VERSION = 1

#: The tables, as SQLite keeps them. `run.head` and `run.gates` are JSON, `sample.top` a JSON list, `sample.counts` what
#: :mod:`qkf_deploy.runs.packing` makes.
TABLES = (
    "CREATE TABLE run (id INTEGER PRIMARY KEY, network TEXT NOT NULL, data TEXT NOT NULL, samples INTEGER NOT NULL, "
    "head TEXT NOT NULL, gates TEXT NOT NULL)",
    "CREATE TABLE sample (run INTEGER NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, label INTEGER, "
    "prediction INTEGER, top TEXT NOT NULL, error TEXT, counts BLOB NOT NULL, PRIMARY KEY (run, position))",
    "CREATE TABLE notice (run INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (run, text))",
)
_MAGIC = b"SQLite format 3\x00"
#: Byte of the header that says how the file is written, and its value where that is a log beside it.
_WRITE_VERSION, _IN_LOG = 18, 2
AGAIN = "write it again with `qkf-deploy simulate` or `evaluate`, `-o run.sqlite`"

_STAYS = "what was written before stays, `qkf-deploy evaluate --resume` goes on from there"


def new(path: Path) -> sqlite3.Connection:
    """A database with empty tables for a file that has no final name yet: without a journal."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = OFF")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("BEGIN")
    for table in TABLES:
        db.execute(table)
    return db


def connect(path: Path, write: bool) -> sqlite3.Connection:
    """Open a database of :func:`new`.

    A file that nobody writes is opened as it stands, so that a read-only folder is no hindrance. A log beside a file
    that was closed as a whole belongs to another file that had its name: it is not read, and who writes removes it.

    Args:
        path: of the file.
        write: True to write; the caller keeps other writers out.

    Raises:
        InputError: missing, not a run file, of another version, damaged, or with anything in it besides our tables.
    """
    closed = check_header(path)[_WRITE_VERSION] != _IN_LOG
    waiting = path.resolve().with_name(path.resolve().name + "-wal")
    still = closed or not (waiting.exists() and waiting.stat().st_size)
    if write and closed:
        remove_logs(path)
    mode = "mode=rw" if write else "mode=ro&immutable=1" if still else "mode=ro"
    with reported(path):
        db = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, timeout=0)
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA mmap_size = 0")
        db.execute("PRAGMA synchronous = FULL")
        if write:
            db.execute("PRAGMA journal_mode = WAL")
        held = sorted(sql for (sql,) in db.execute("SELECT sql FROM sqlite_master") if sql is not None)
    if held != sorted(TABLES):
        db.close()
        raise InputError("not a run file: it holds other tables", where=str(path), hint=AGAIN)
    return db


def remove_logs(path: Path) -> None:
    """Remove what SQLite has left beside a file of this name."""
    for suffix in ("-wal", "-shm"):
        path.resolve().with_name(path.resolve().name + suffix).unlink(missing_ok=True)


def check_header(path: Path) -> bytes:
    """The file's header. Raises InputError unless it says that it is a run file of this version."""
    try:
        if path.exists() and not path.is_file():  # a pipe would never answer
            raise InputError("not a regular file", where=str(path), hint=AGAIN)
        with path.open("rb") as file:
            head = file.read(100)
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot be read: {reason}", where=str(path), hint=AGAIN) from error
    refuse_others(path, "run")
    if head.lstrip()[:1] == b"{":
        raise InputError("runs are no longer kept as JSON", where=str(path), hint=AGAIN)
    if len(head) < 100 or not head.startswith(_MAGIC) or _number(head, 68) != APPLICATION_ID:
        raise InputError("not a run file", where=str(path), hint=AGAIN)
    if _number(head, 60) != SCHEMA_VERSION:
        found = _number(head, 60)
        raise InputError(f"run schema {found}, this version reads {SCHEMA_VERSION}", where=str(path), hint=AGAIN)
    return head


def is_run(path: str | Path) -> bool:
    """True if a file says that it is a run file, of any version."""
    return kind_of(path) == "run"


def _number(head: bytes, place: int) -> int:
    return int(struct.unpack_from(">I", head, place)[0])


@contextlib.contextmanager
def reported(path: Path) -> Iterator[None]:
    """SQLite's failures in the block as InputError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "decode" in str(error):
            raise InputError("a damaged run file: a text that is no UTF-8", where=str(path), hint=AGAIN) from error
        raise InputError(f"cannot be read or written: {error}", where=str(path), hint=_hint(error)) from error
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        raise InputError("a damaged run file", where=str(path), hint=AGAIN) from error


def _hint(error: sqlite3.OperationalError) -> str:
    text = str(error)
    if "full" in text:
        return f"make room; {_STAYS}"
    if "I/O" in text:  # what SQLite says of a quota and of `ulimit -f`, too
        return f"is a quota or a limit of sizes reached, or does the disk fail? {_STAYS}"
    if "locked" in text:
        return "another program writes this file; wait until it is done"
    return "choose a place that can be written"
