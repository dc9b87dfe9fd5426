"""Labelled images to train on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Examples(Protocol):
    """Labelled images, read when they are needed.

    Attributes:
        labels: class index of every image, int64 ``(N,)``.
        class_names: names of the classes.
        digest: sha256 of what they are.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    digest: str

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """uint8 ``(n, C, H, W)``, or event frames ``(n, T, C, H, W)``."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayExamples:
    """Examples that are in memory.

    Attributes:
        array: uint8 ``(N, C, H, W)``, or event frames ``(N, T, C, H, W)``.
        labels: int64 ``(N,)``.
        class_names: names of the classes.
    """

    array: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Sha256 of pixels and labels."""
        found = hashlib.sha256(repr((self.array.dtype.str, self.array.shape)).encode())
        found.update(np.ascontiguousarray(self.array).tobytes())
        found.update(np.ascontiguousarray(self.labels, dtype=np.int64).tobytes())
        return found.hexdigest()

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """See :class:`Examples`."""
        return self.array[indices]
