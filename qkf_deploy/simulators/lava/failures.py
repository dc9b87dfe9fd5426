"""Exceptions on their way from one operating-system process to another, as files in a folder."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path

from qkf_deploy import errors
from qkf_deploy.errors import EngineError, QkfError

_SUFFIX = ".failure.json"


def report_failure(folder: Path, error: BaseException, where: str | None = None) -> None:
    """Write an exception into a folder; complete or not at all."""
    known = isinstance(error, QkfError)
    data = {
        "type": type(error).__name__,
        "known": known,
        "message": error.message if known else str(error),
        "where": (error.where if known else None) or where,
        "hint": error.hint if known else None,
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }
    temporary = folder / f"{os.getpid()}.tmp"
    temporary.write_text(json.dumps(data))
    temporary.replace(folder / f"{os.getpid()}{_SUFFIX}")


def first_failure(folder: Path) -> QkfError | None:
    """The earliest reported exception: of its own class if this package raised it, else an EngineError.

    The traceback of the other process is its ``__cause__``.
    """
    found = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda p: p.stat().st_mtime_ns)
    if not found:
        return None
    data = json.loads(found[0].read_text())
    if data["known"]:
        error = getattr(errors, data["type"])(data["message"], where=data["where"], hint=data["hint"])
    else:
        error = EngineError(f"{data['type']}: {data['message']}", where=data["where"], hint=data["hint"])
    error.__cause__ = RuntimeError(data["traceback"])
    return error
