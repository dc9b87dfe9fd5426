"""`.npy` and `.npz` files: headers are read and checked first, then only the rows that are wanted."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from qkf_deploy import limits
from qkf_deploy.errors import InputError

_MEMBER = ".npy"
_HINT = "write it with numpy.save or numpy.savez"
#: What damaged or hostile array files raise in numpy and zipfile.
_DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error, NotImplementedError,
           RuntimeError, OverflowError, SyntaxError, MemoryError, tokenize.TokenError)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What the head of an array says.

    Attributes:
        shape: of the whole array.
        fortran_order: first axis fastest.
        dtype: of numbers, never objects.
    """

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    def bytes_of(self, rows: int | None) -> int:
        """Bytes of the first rows (all with ``None``)."""
        shape = self.shape if rows is None else (min(rows, self.shape[0]), *self.shape[1:])
        return math.prod(shape) * self.dtype.itemsize


def read_npy(path: Path, rows: int | None = None) -> np.ndarray:
    """An array, or its first rows.

    Raises:
        InputError: not a whole array of numbers, or larger than the memory limit.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size, rows, str(path), "the array")
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def npz_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays of an archive, nothing of them read.

    Raises:
        InputError: not an archive of arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    if not members or not all(m.endswith(_MEMBER) for m in members) or len(set(members)) != len(members):
        raise InputError("has members that are no arrays", where=str(path), hint=_HINT)
    return tuple(m.removesuffix(_MEMBER) for m in members)


def read_npz(path: Path, name: str, rows: int | None = None) -> np.ndarray:
    """One array of an archive, or its first rows.

    Raises:
        InputError: not a whole array of numbers, or larger than the memory limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(name + _MEMBER)
            with archive.open(member) as file:
                return _read(file, member.file_size, rows, str(path), f"the array {name[:60]!r}")
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"not a readable array file: {error}", where=str(path), hint=_HINT)


def _read(file: IO[bytes], size: int, rows: int | None, where: str, what: str) -> np.ndarray:
    header = _header(file)
    if header.dtype.hasobject or header.dtype.kind not in "biuf" or not all(n >= 0 for n in header.shape):
        raise InputError(f"{what} holds {header.dtype} of shape {header.shape}, not numbers", where=where, hint=_HINT)
    rows = rows if header.shape and not header.fortran_order else None
    if header.bytes_of(None) > size - file.tell():
        raise InputError(f"{what} is cut off: {header.shape} of {header.dtype} do not fit the file", where=where)
    wanted = header.bytes_of(rows)
    limits.check(wanted, what, where)
    data = file.read(wanted)
    if len(data) != wanted:
        raise InputError(f"{what} is cut off", where=where, hint=_HINT)
    shape = header.shape if rows is None else (min(rows, header.shape[0]), *header.shape[1:])
    order = "F" if header.fortran_order else "C"
    return np.ndarray(shape, header.dtype, data, order=order)


def _header(file: IO[bytes]) -> Header:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return Header(*read(file))
