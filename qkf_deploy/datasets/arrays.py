"""`.npy` and `.npz` files: heads are read and checked first, rows when they are wanted."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from qkf_deploy import limits
from qkf_deploy.errors import InputError, told

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


class Rows:
    """Rows of a stored array, read when they are asked for.

    Reading forward is cheap; in a compressed archive, going back means unpacking from its beginning.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        """Look at the head of an array.

        Args:
            path: a ``.npy`` file, or an archive with ``name``.
            name: of an array in an archive.

        Raises:
            InputError: not a whole array of numbers.
        """
        self._path = path
        self.what = "the array" if name is None else f"the array {name[:60]!r}"
        try:
            self._file, size = _opened(path, name)
            self.header = _header(self._file)
            self._start = self._file.tell()
        except _DAMAGE as error:
            raise _unreadable(path, error) from error
        self._check(size - self._start)

    def __len__(self) -> int:
        return self.header.shape[0] if self.header.shape else 0

    def read(self, index: int) -> np.ndarray:
        """One row. Raises InputError if the file is damaged there."""
        if self.header.fortran_order:
            return self.whole[index]
        size = self.header.bytes_of(1)
        data = self._bytes(self._start + index * size, size)
        return np.frombuffer(data, self.header.dtype).reshape(self.header.shape[1:])

    @cached_property
    def whole(self) -> np.ndarray:
        """All rows. Raises InputError if they are beyond the memory limit, or the file is damaged."""
        size = self.header.bytes_of(None)
        limits.check(size, self.what, str(self._path))
        order = "F" if self.header.fortran_order else "C"
        return np.ndarray(self.header.shape, self.header.dtype, self._bytes(self._start, size), order=order)

    def _check(self, available: int) -> None:
        header, where = self.header, str(self._path)
        if header.dtype.hasobject or header.dtype.kind not in "biuf" or not all(n >= 0 for n in header.shape):
            raise InputError(
                f"{self.what} holds {header.dtype} of shape {header.shape}, not numbers", where=where, hint=_HINT
            )
        if header.bytes_of(None) > available:
            raise InputError(
                f"{self.what} is cut off: {header.shape} of {header.dtype} do not fit the file", where=where
            )

    def _bytes(self, start: int, size: int) -> bytes:
        try:
            self._file.seek(start)
            data = self._file.read(size)
        except _DAMAGE as error:
            raise _unreadable(self._path, error) from error
        if len(data) != size:
            raise InputError(f"{self.what} is cut off", where=str(self._path), hint=_HINT)
        return data


def npz_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays of an archive, nothing of them read.

    Raises:
        InputError: not an archive of arrays.
    """
    limits.regular_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    if not members or not all(m.endswith(_MEMBER) for m in members) or len(set(members)) != len(members):
        raise InputError("has members that are no arrays", where=str(path), hint=_HINT)
    return tuple(m.removesuffix(_MEMBER) for m in members)


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"not a readable array file: {told(error)}", where=str(path), hint=_HINT)


def _opened(path: Path, name: str | None) -> tuple[IO[bytes], int]:
    """An array's bytes, head included, and how many there should be."""
    size = limits.regular_size(path)
    if name is None:
        return path.open("rb"), size
    archive = zipfile.ZipFile(path)
    member = archive.getinfo(name + _MEMBER)
    return archive.open(member), member.file_size


def _header(file: IO[bytes]) -> Header:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return Header(*read(file))
