"""Writing results: a file or folder under its final name is complete or absent, whatever stops the program.

What is written goes to a temporary name beside the target first, reaches the disk, and is then renamed. A temporary
name whose writer is gone (it was killed) is removed by the next writer of the same target: a living one holds a lock.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qkf_deploy.errors import InputError

# Windows has none: there files are replaced after they are closed, and leftovers stay.
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

_SUFFIX = ".partial"
_HINT = "give another -o"


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file completely or not at all; it keeps the permissions of the file that it replaces.

    Args:
        path: a place without a file, a regular file, or a link to one (the link stays).
        data: the content.

    Raises:
        InputError: a device, pipe, socket, folder or read-only file; no such folder; a disk that is full.
    """
    with new_file(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """An empty file to fill, which takes its final name when the block ends without an error, and vanishes otherwise.

    Args:
        path: as for :func:`write_atomically`.

    Raises:
        InputError: as there.
    """
    path = Path(path)
    target = _file_target(path)
    try:
        _remove_leftovers(target)
        with _temporary_file(target) as temporary:
            yield temporary
            _sync(temporary)
            _take_over_permissions(target, temporary)
            temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise InputError(f"cannot write here: {error.strerror}", where=str(path), hint=_HINT) from error


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which takes its final name when the block ends without an error, and vanishes otherwise.

    Args:
        path: a place where nothing is, or an empty folder.

    Raises:
        InputError: the folder has files, is something else, or cannot be written.
    """
    path = Path(path)
    target = check_folder(path)
    temporary: Path | None = None
    try:
        _remove_leftovers(target)
        temporary, lock = _temporary_folder(target)
        try:
            yield temporary
            for entry in sorted(temporary.rglob("*")):
                _sync(entry)
            temporary.replace(target)
            _sync_folder(target.parent)
        finally:
            os.close(lock)
            shutil.rmtree(temporary, ignore_errors=True)  # gone already where it took its name
    except OSError as error:
        raise InputError(f"cannot write here: {error.strerror}", where=str(path), hint=_HINT) from error


def check_file(path: str | Path) -> None:
    """Raise now what :func:`write_atomically` would raise after the work.

    Raises:
        InputError: as there, except for a disk that is full.
    """
    target = _file_target(Path(path))
    _check_parent(target, Path(path))


def check_folder(path: str | Path) -> Path:
    """Raise now what :func:`new_folder` would raise after the work; returns the folder, links followed.

    Raises:
        InputError: as there, except for a disk that is full.
    """
    path = Path(path)
    target = path.resolve()
    _check_parent(target, path)
    if path.is_symlink() or target.exists():
        if not target.is_dir():
            raise InputError("cannot write here: it is not a folder", where=str(path), hint=_HINT)
        if any(target.iterdir()):
            raise InputError("exists already and has files", where=str(path), hint="give a new or an empty folder")
    return target


def _file_target(path: Path) -> Path:
    """The regular file that a path stands for."""
    target = path.resolve() if path.is_symlink() else path.absolute()
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError("cannot write here: it is a link to nothing", where=str(path), hint=_HINT) from None
        return target
    except OSError as error:
        raise InputError(f"cannot write here: {error.strerror}", where=str(path), hint=_HINT) from error
    if stat.S_ISDIR(mode):
        raise InputError("cannot write here: it is a folder", where=str(path), hint="name a file in it")
    if not stat.S_ISREG(mode):
        raise InputError("cannot write here: it is not a regular file", where=str(path), hint=_HINT)
    if not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) or not os.access(target, os.W_OK):
        raise InputError("cannot write here: it is read-only", where=str(path), hint=_HINT)
    return target


def _check_parent(target: Path, path: Path) -> None:
    parent = target.parent
    if not parent.is_dir():
        raise InputError("cannot write here: no such folder", where=str(parent), hint=f"make it, or {_HINT}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError("cannot write here: Permission denied", where=str(path), hint=_HINT)


@contextlib.contextmanager
def _temporary_file(target: Path) -> Iterator[Path]:
    """A new locked file beside the target, with the permissions the user's umask gives; removed unless renamed."""
    while True:
        temporary = _temporary_name(target)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        if _locked(handle):
            break
        os.close(handle)
    with os.fdopen(handle, "wb") as lock:
        if fcntl is None:
            lock.close()
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _temporary_folder(target: Path) -> tuple[Path, int]:
    """A new folder beside the target and the handle that holds its lock."""
    while True:
        temporary = _temporary_name(target)
        temporary.mkdir()
        handle = os.open(temporary, os.O_RDONLY) if fcntl is not None else os.open(os.devnull, os.O_RDONLY)
        if _locked(handle):
            return temporary, handle
        os.close(handle)


def _temporary_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{_SUFFIX}")


def _locked(handle: int) -> bool:
    """Lock what was just made; False if another writer took it for a leftover before that and removed it."""
    if fcntl is None:
        return True
    fcntl.flock(handle, fcntl.LOCK_EX)
    return os.fstat(handle).st_nlink > 0


def _remove_leftovers(target: Path) -> None:
    """Remove temporary names of this target that nobody holds."""
    for entry in target.parent.iterdir():
        name = entry.name
        if name.startswith(f".{target.name}.") and name.endswith(_SUFFIX):
            with contextlib.suppress(OSError):
                _remove_unheld(entry)


def _remove_unheld(entry: Path) -> None:
    """Remove a temporary file or folder. Raises OSError if its writer lives."""
    if fcntl is None:
        return
    handle = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
    finally:
        os.close(handle)


def _take_over_permissions(target: Path, temporary: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        before = target.stat()
        temporary.chmod(stat.S_IMODE(before.st_mode))
        if hasattr(os, "chown") and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            with contextlib.suppress(PermissionError):  # only root can give files away
                os.chown(temporary, before.st_uid, before.st_gid)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    if fcntl is not None:  # Windows opens no folders
        _sync(path)
