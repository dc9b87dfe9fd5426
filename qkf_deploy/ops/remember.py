"""Results that belong to an object and are needed again with the next batch."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """What was computed from objects that do not change (arrays, graphs): the last results asked for, while these live.

    Args:
        most: results kept.
    """

    def __init__(self, most: int = 512) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: dict[tuple[int, Hashable], tuple[weakref.ref[object], T]] = {}

    def get(self, owner: object, key: Hashable, make: Callable[[], T]) -> T:
        """The result for an object and whatever else it depends on."""
        place = (id(owner), key)
        found = self._known.pop(place, None)
        if found is None or found[0]() is not owner:
            found = (weakref.ref(owner, lambda _: self._known.pop(place, None)), make())
        with self._lock:
            self._known[place] = found
            if len(self._known) > self._most:
                del self._known[next(iter(self._known))]
        return found[1]
