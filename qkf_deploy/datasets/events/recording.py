"""Events, and how they become frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from qkf_deploy.errors import InputError

SplitBy = Literal["number", "time"]


@dataclass(frozen=True, eq=False)
class Events:
    """Events in the order of the file.

    Attributes:
        t: time stamps in microseconds, int64 ``(N,)``.
        x, y: column and row, int64 ``(N,)``.
        p: polarity, 0 or 1, int64 ``(N,)``; it is the channel of the frames.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray

    def __len__(self) -> int:
        return len(self.t)

    @property
    def goes_back(self) -> bool:
        """Whether an event is earlier than the one before it: a clock that wrapped around, or a damaged file."""
        return bool((self.t[1:] < self.t[:-1]).any())

    def between(self, start: int, end: int) -> Events:
        """Those with ``start <= t < end``."""
        kept = (self.t >= start) & (self.t < end)
        return Events(self.t[kept], self.x[kept], self.y[kept], self.p[kept])


def frames(events: Events, count: int, split_by: SplitBy, height: int, width: int) -> np.ndarray:
    """Numbers of events per frame, polarity and pixel, int32 ``(count, 2, height, width)``.

    The rule of SpikingJelly's ``integrate_events_by_fixed_frames_number``: by number, every frame has ``N // count``
    events and the last one also the rest; by time, every frame lasts ``(t[-1] - t[0]) // count`` and the last one takes
    all events to the end. A frame without events, which SpikingJelly cannot make, is zero.

    Raises:
        InputError: no events, events outside the frame, or too short a time to be split.
    """
    if not len(events):
        raise InputError("holds no events")
    for values, size, axis in ((events.x, width, "x"), (events.y, height, "y"), (events.p, 2, "p")):
        if values.min() < 0 or values.max() >= size:
            worst = int(values.max()) if values.max() >= size else int(values.min())
            raise InputError(f"an event lies at {axis} = {worst} of 0 to {size - 1}")
    cut = _by_number(len(events), count) if split_by == "number" else _by_time(events.t, count)
    place = (events.p * height + events.y) * width + events.x
    size = 2 * height * width
    parts = [np.bincount(place[start:end], minlength=size) for start, end in cut]
    return np.stack(parts).astype(np.int32).reshape(count, 2, height, width)


def _by_number(events: int, count: int) -> list[tuple[int, int]]:
    each = events // count
    return [(i * each, events if i == count - 1 else (i + 1) * each) for i in range(count)]


def _by_time(t: np.ndarray, count: int) -> list[tuple[int, int]]:
    first, length = int(t[0]), (int(t[-1]) - int(t[0])) // count
    if length <= 0:
        raise InputError(f"events from {first} to {int(t[-1])} µs cannot be split into {count} frames by time")
    cut = []
    for i in range(count):
        start = first + i * length
        inside = np.flatnonzero((t >= start) & (t < start + length))
        left, right = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (_first_from(t, start),) * 2
        cut.append((left, len(t) if i == count - 1 else right))
    return cut


def _first_from(t: np.ndarray, start: int) -> int:
    """Place of the first event at or after a time; behind the last one if there is none."""
    later = t >= start
    return int(later.argmax()) if later.any() else len(t)
