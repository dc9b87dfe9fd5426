"""How much memory reading one input may take: what a file asks for is checked before it is given.

A reader computes what it is about to allocate from a header (shapes, sizes, numbers of pixels) and calls :func:`check`.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from qkf_deploy.errors import InputError, UsageError

#: Bytes that one network, checkpoint, array or image may take unless the user says otherwise.
DEFAULT_BYTES = 2**30
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
#: What torch says without memory: on a CUDA device, on a CPU.
_TORCH = ("out of memory", "can't allocate memory")
_bytes: ContextVar[int] = ContextVar("memory_limit", default=DEFAULT_BYTES)


@contextlib.contextmanager
def memory_limit(size: int | str) -> Iterator[None]:
    """Let every reader in the block take up to this much memory for one input (1 GiB otherwise).

    Args:
        size: bytes, or a text such as ``4G``.

    Raises:
        UsageError: not a size.
    """
    token = _bytes.set(size if isinstance(size, int) else parse_size(size))
    try:
        yield
    finally:
        _bytes.reset(token)


def parse_size(text: str) -> int:
    """Bytes of ``512M``, ``4G`` ... (powers of 1024). Raises UsageError for anything else."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not (number.isascii() and number.isdigit() and len(number) <= 15 and int(number)) or unit not in _UNITS:
        raise UsageError(f"{text[:40]!r} is not a size", hint="for example 512M or 4G")
    return int(number) * _UNITS[unit]


def allowed() -> int:
    """Bytes that one input may take now."""
    return _bytes.get()


def ran_out(error: Exception) -> bool:
    """True if memory ran out; torch raises a RuntimeError with one of two texts then, by device."""
    said = isinstance(error, RuntimeError) and any(text in str(error) for text in _TORCH)
    return said or isinstance(error, MemoryError)


def check(size: int, what: str, where: str | None = None) -> None:
    """Refuse an allocation beyond the limit.

    Args:
        size: bytes about to be taken.
        what: of what, for the message: "the array 'images'".
        where: file or node.

    Raises:
        InputError: beyond the limit.
    """
    if size > _bytes.get():
        raise InputError(
            f"{what} takes {readable(size)} of memory, the limit is {readable(_bytes.get())}",
            where=where,
            hint="if you trust it: qkf-deploy --memory SIZE ..., or qkf_deploy.memory_limit(SIZE)",
        )


def read_whole(path: Path, *, bytes_per_byte: int = 1) -> bytes:
    """A file's content, of regular files only: a device or a pipe may never end.

    Args:
        path: of the file.
        bytes_per_byte: how much memory each byte of it may take once it is understood.

    Raises:
        InputError: not a regular file, beyond the limit, or it cannot be read.
    """
    check(regular_size(path) * bytes_per_byte, "what the file may hold", str(path))
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def regular_size(path: Path) -> int:
    """Bytes of a file. Raises InputError if it is missing, or no regular file."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:  # a null byte in the name
        raise InputError("its name has a null byte", where=str(path)) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file", where=str(path))
    return status.st_size


def readable(size: int) -> str:
    """A size for people, rounded: ``1.5 GiB``."""
    value = float(min(size, 2**200))
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"
