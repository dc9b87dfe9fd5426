"""One writer at a time: a lock on a run file, which ends with its program."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from qkf_deploy.errors import InputError

try:
    fcntl: Any = importlib.import_module("fcntl")
except ModuleNotFoundError:  # Windows
    fcntl = None


def locked(path: Path) -> int:
    """A handle that keeps other writers out while it is open.

    Raises:
        InputError: another program holds it, or the file cannot be written.
    """
    if fcntl is None:
        return -1
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError as error:
        hint = "choose a place that can be written"
        raise InputError(f"cannot be written: {error.strerror}", where=str(path), hint=hint) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise InputError(
            "another program writes this file", where=str(path), hint="wait until it is done, or stop it"
        ) from error
    return handle


def unlock(handle: int | None) -> None:
    """Let others write."""
    if handle is not None and handle >= 0:
        os.close(handle)
