"""A data set: samples that are read when they are asked for, never all at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from qkf_deploy import limits
from qkf_deploy.errors import InputError

_BLOCK = 2**20
_HASHING_THREADS = 8


@dataclass(frozen=True, eq=False)
class Sample:
    """One input.

    Attributes:
        array: ``(C, H, W)`` uint8 pixels or normalized floats, or event frames ``(T, C, H, W)``.
        notices: what was done to it that a user should know.
    """

    array: np.ndarray
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Samples:
    """Some samples of a data set.

    Attributes:
        indices: places in the data set of what could be read, in the order asked for.
        array: ``(len(indices), C, H, W)`` uint8 pixels or normalized floats, or event frames ``(n, T, C, H, W)``.
        errors: place in the data set -> one sentence, for what could not be read.
        notices: what was done to them that a user should know (16-bit pixels, orientation ...).
    """

    indices: tuple[int, ...]
    array: np.ndarray
    errors: Mapping[int, str]
    notices: tuple[str, ...]


class Source(Protocol):
    """Where samples come from."""

    @property
    def what(self) -> str:
        """What is read, for messages: "the array 'images'"."""
        ...

    @property
    def empty(self) -> np.ndarray:
        """No sample: ``(0, ...)`` with the shape and type that samples have."""
        ...

    def read(self, index: int) -> Sample:
        """One sample. Raises InputError if it cannot be used."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples by place, with names and labels where they are known.

    Attributes:
        path: what the user named.
        names: one per sample.
        source: where they come from.
        labels: class indices ``(N,)`` int64, -1 where a sample's is unknown; ``None`` without labels.
        notices: how the files were understood.
        files: those the samples are read from.
        reading: what else decides the samples (format, resizing, frames), as plain data.
    """

    path: Path
    names: Sequence[str]
    source: Source
    labels: np.ndarray | None = None
    notices: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __len__(self) -> int:
        return len(self.names)

    @property
    def address(self) -> str:
        """What opens it again from any folder: the absolute path, or the name of one that has no files."""
        return str(self.path.absolute()) if self.files else str(self.path)

    def read(self, indices: Iterable[int]) -> Samples:
        """Read some samples; one that cannot be read is an error of its own and hinders no other.

        Raises:
            InputError: together they are beyond the memory limit.
        """
        wanted = tuple(indices)
        self.check_memory(len(wanted))
        read: dict[int, Sample] = {}
        errors: dict[int, str] = {}
        for index in wanted:
            try:
                read[index] = self.source.read(index)
            except InputError as error:
                errors[index] = error.message
        good = tuple(i for i in wanted if i in read)
        array = np.stack([read[i].array for i in good]) if good else self.source.empty
        return Samples(good, array, errors, tuple(dict.fromkeys(n for s in read.values() for n in s.notices)))

    def check_memory(self, count: int) -> None:
        """Raises InputError if so many samples are beyond the memory limit."""
        empty = self.source.empty
        size = int(np.prod(empty.shape[1:], dtype=object)) * empty.dtype.itemsize
        limits.check(count * size, self.source.what, str(self.path))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that decides what the samples are.

        That is every byte of the files they are read from, their names below the data set's folder, the labels, and how
        they are read (format, resizing and cropping, frames, number of samples). Where the folder lies, the files'
        dates and files that are not read do not count. The files are read for it once, when it is first asked for.
        """
        with ThreadPoolExecutor(_HASHING_THREADS) as pool:
            contents = list(pool.map(_content, self.files))
        labels = None if self.labels is None else self.labels.tolist()
        files = [[_below(self.path, file), found] for file, found in zip(self.files, contents, strict=True)]
        plain = {"count": len(self), "labels": labels, "files": files, "reading": self.reading}
        return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _below(root: Path, file: Path) -> str:
    """A file's place below the data set's folder; a file that is named by itself may have any name."""
    return file.relative_to(root).as_posix() if root in file.parents else ""


def _content(path: Path) -> str:
    """SHA-256 of a file; why there is none where it cannot be read."""
    found = hashlib.sha256()
    try:
        limits.regular_size(path)
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
    except InputError as error:
        return f"unreadable: {error.message}"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return found.hexdigest()
