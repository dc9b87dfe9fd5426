"""One of several outputs of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """One of several outputs, which lie side by side in the value of the output node.

    Attributes:
        name: as the model calls it.
        shape: per image.
        start: place of its first element.
    """

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_classes(self) -> bool:
        """True for one number per class: a vector, axes of size 1 aside."""
        return sum(n > 1 for n in self.shape) == 1

    def of(self, outputs: np.ndarray) -> np.ndarray:
        """This output ``(B, *shape)`` of all ``(B, elements)``."""
        return outputs[:, self.start : self.start + self.size].reshape(len(outputs), *self.shape)


def class_part(parts: Sequence[Part], shape: tuple[int, ...]) -> Part | None:
    """The first output that is one number per class, if any is; without ``parts`` the one output has that shape."""
    return next((part for part in parts or (Part("output", shape, 0),) if part.is_classes), None)
