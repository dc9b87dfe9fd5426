"""Values of one image as the kernels store them, and their conversion to plain arrays.

Every value is seen as ``(channels, tokens)`` per time step, ``flat index = channel * tokens + token``; the kernels
store rows ``token * T + t`` of channels padded to a multiple of 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from qkf_deploy.errors import InputError
from qkf_deploy.simulators.event.kernels.lists import EventList, list_events
from qkf_deploy.simulators.event.kernels.streams import class_counts, column_sums, totals


def words_of(channels: int) -> int:
    """32-channel words per row."""
    return -(-channels // 32)


class Totals(NamedTuple):
    """Counts over a stream.

    Attributes:
        unary, graded: sum of all values, number of non-zero elements.
        unary_per_step: int64 ``(T,)``.
    """

    unary: int
    graded: int
    unary_per_step: np.ndarray


@dataclass
class Stream:
    """Spikes or counts.

    Attributes:
        data: u32 ``(tokens * T, words)`` bits or u8 ``(tokens * T, 32 * words)`` counts; padding is 0.
        channels, tokens, steps: size per image; ``steps`` is T.
        counted: totals, where whoever made the stream counted on the way.
        bound: no value is larger, where that is known.
    """

    data: np.ndarray
    channels: int
    tokens: int
    steps: int
    counted: Totals | None = None
    bound: int | None = None
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @staticmethod
    def of_spikes(data: np.ndarray, channels: int, fired: np.ndarray) -> Stream:
        """Spikes, and how many there are at each step, int64 ``(T,)``."""
        total, steps = sum(fired.tolist()), fired.shape[0]
        return Stream(data, channels, data.shape[0] // steps, steps, Totals(total, total, fired))

    @property
    def words(self) -> int:
        """32-channel words per row."""
        return words_of(self.channels)

    @property
    def is_bits(self) -> bool:
        """True for spikes stored as bits."""
        return self.data.dtype == np.uint32

    def totals(self, isa: np.generic) -> Totals:
        """Counts over the whole stream, made once."""
        if self.counted is None:
            per_step = np.zeros(self.steps, np.int64)
            graded = totals(isa, self.data, self.words, self.steps, per_step)
            self.counted = Totals(int(per_step.sum()), graded, per_step)
        return self.counted

    def largest(self) -> int:
        """Largest value, or what bounds it; 1 for spikes, whether there are any or not."""
        if self.bound is None:
            self.bound = 1 if self.is_bits else int(self.data.max(initial=0))
        return self.bound

    def events(self, isa: np.generic, line: int = 1) -> EventList:
        """Event list (by lines of so many pixels, if more than 1), made once for all synapses that read the stream."""
        key = ("events", line)
        if key not in self._cache:
            nonzero = self.totals(isa).graded
            self._cache[key] = list_events(isa, self.data, nonzero, self.channels, self.steps, self.largest(), line)
        return self._cache[key]

    def is_listed(self, line: int) -> bool:
        """True if :meth:`events` has been asked for these lines before."""
        return ("events", line) in self._cache

    def class_counts(
        self, isa: np.generic, class_of: np.ndarray, classes: int, key: object
    ) -> tuple[np.ndarray, np.ndarray]:
        """(sum of values, non-zero elements) per class of pixel and channel, int64 ``(classes * 32 * words,)`` each.

        The two are the same array if no value exceeds 1.

        Args:
            isa: instruction set tag.
            class_of: int64 ``(tokens,)``.
            classes: number of classes.
            key: identifies ``class_of``; equal keys share one result.
        """
        if key not in self._cache:
            counts = np.zeros((2, classes, 32 * self.words), np.int64)
            class_counts(isa, self.data, self.words, self.steps, class_of, self.largest(), counts[0], counts[1])
            unary, graded = counts.reshape(2, -1)
            self._cache[key] = (unary if self.largest() > 1 else graded), graded
        return self._cache[key]

    def column_sums(self, isa: np.generic) -> np.ndarray:
        """Sum over tokens at each step, int64 ``(T, channels)``."""
        if "columns" not in self._cache:
            out = np.zeros((self.steps, 32 * self.words), np.int64)
            column_sums(isa, self.data, self.words, self.steps, self.largest(), out)
            self._cache["columns"] = out[:, : self.channels]
        return self._cache["columns"]


@dataclass
class Drive:
    """What enters neurons: s32 ``(tokens * steps, 32 * words)``; ``steps`` is 1 for a drive constant over time."""

    data: np.ndarray
    channels: int
    tokens: int
    steps: int


@dataclass
class Plain:
    """Any value as the reference engine has it: ``(T or 1, 1, *shape)``."""

    data: np.ndarray


Value = Stream | Drive | Plain


def to_plain(value: Value, shape: tuple[int, ...], dtype: type = np.int64) -> np.ndarray:
    """``(T or 1, 1, *shape)`` array of a value."""
    if isinstance(value, Plain):
        return value.data
    rows = value.data
    if isinstance(value, Stream) and value.is_bits:
        rows = np.unpackbits(rows.view(np.uint8), axis=1, bitorder="little")
    grid = rows[:, : value.channels].reshape(value.tokens, value.steps, value.channels)
    return grid.transpose(1, 2, 0).reshape(value.steps, 1, *shape).astype(dtype)


def to_rows(x: np.ndarray, channels: int, dtype: type) -> np.ndarray:
    """``(tokens * T, 32 * words)`` of a ``(T or 1, 1, ...)`` array whose per-step order is channel, token."""
    steps = x.shape[0]
    tokens = x[0].size // channels
    rows = np.zeros((tokens * steps, 32 * words_of(channels)), dtype)
    rows[:, :channels] = x.reshape(steps, channels, tokens).transpose(2, 0, 1).reshape(tokens * steps, channels)
    return rows


def to_stream(x: np.ndarray, channels: int, high: int | None, time_steps: int) -> Stream:
    """Stream of a ``(T or 1, 1, ...)`` array of spikes or counts.

    Raises:
        InputError: a value outside 0..255 (the planner sends wider values another way).
    """
    x = np.broadcast_to(x, (time_steps, *x.shape[1:]))
    if int(x.min(initial=0)) < 0 or int(x.max(initial=0)) > 255:
        raise InputError("a stream of counts holds 0 to 255")
    rows = to_rows(x, channels, np.uint8)
    tokens = x[0].size // channels
    if high == 1:
        rows = np.packbits(rows, axis=1, bitorder="little").view(np.uint32)
    return Stream(np.ascontiguousarray(rows), channels, tokens, time_steps)


def size_of(shape: tuple[int, ...]) -> int:
    """Number of elements."""
    return math.prod(shape)
