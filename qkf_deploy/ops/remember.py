"""Results that belong to an array and are needed again with the next batch."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Remembered(Generic[T]):
    """What was computed from read-only arrays, the last ones asked for, while the arrays live.

    Args:
        most: results kept.
    """

    def __init__(self, most: int = 512) -> None:
        self._most = most
        self._known: dict[tuple[int, Hashable], tuple[weakref.ref[np.ndarray], T]] = {}

    def get(self, array: np.ndarray, key: Hashable, make: Callable[[], T]) -> T:
        """The result for an array and whatever else it depends on."""
        place = (id(array), key)
        found = self._known.pop(place, None)
        if found is None or found[0]() is not array:
            found = (weakref.ref(array), make())
        self._known[place] = found
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]
        return found[1]
