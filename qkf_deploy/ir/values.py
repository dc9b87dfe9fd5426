"""What flows along an edge: shape per image and time step, kind, range, timing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.schema import check_attributes


class Kind(str, Enum):
    """What the numbers of a value are.

    ``real`` values (pixels) cost multiplications; ``spike`` {0, 1}, ``count`` 0..k and ``signed`` -k..k (spikes of
    either polarity, and sums of them) cost additions; a ``drive`` is what enters a neuron (or travels along a membrane
    shortcut).
    """

    REAL = "real"
    SPIKE = "spike"
    COUNT = "count"
    SIGNED = "signed"
    DRIVE = "drive"


#: Kinds of values that are events, as records name them.
EVENT_KINDS = frozenset(kind.value for kind in (Kind.SPIKE, Kind.COUNT, Kind.SIGNED))


class Timing(str, Enum):
    """When a value exists: at every ``step``; ``constant`` over the steps; once per ``image``, after the readout."""

    STEP = "step"
    CONSTANT = "constant"
    IMAGE = "image"


@dataclass(frozen=True)
class ValueType:
    """Type of one value.

    Attributes:
        shape: per image and per time step, e.g. ``(C, H, W)`` or ``(heads, d, N)``.
        kind: see :class:`Kind`.
        timing: see :class:`Timing`.
        high: largest value, known for spikes (1), counts (k) and byte inputs (255); ``None`` otherwise.
        low: smallest value, 0 for spikes and counts, -``high`` for signed events.
    """

    shape: tuple[int, ...]
    kind: Kind
    timing: Timing = Timing.STEP
    high: int | None = None
    low: int | None = None

    def __post_init__(self) -> None:
        check_attributes(self)
        if not all(n >= 1 for n in self.shape):
            raise GraphError(f"a value cannot have the shape {self.shape}")

    @property
    def size(self) -> int:
        """Number of elements per image and time step."""
        return math.prod(self.shape)

    @property
    def is_events(self) -> bool:
        """True if every element is a number of spikes (0, 1, ... ``high``), of one polarity or either."""
        return self.kind in (Kind.SPIKE, Kind.COUNT, Kind.SIGNED)

    @property
    def is_signed(self) -> bool:
        """True for events of either polarity."""
        return self.kind is Kind.SIGNED

    @property
    def is_counts(self) -> bool:
        """True for events without a sign."""
        return self.kind in (Kind.SPIKE, Kind.COUNT)

    @property
    def is_binary(self) -> bool:
        """True for events that are 0 or 1, whatever they are made of."""
        return self.is_counts and self.high == 1

    @staticmethod
    def spikes(shape: tuple[int, ...]) -> ValueType:
        """Type of a neuron's output."""
        return ValueType(shape, Kind.SPIKE, Timing.STEP, 1, 0)

    @staticmethod
    def events(shape: tuple[int, ...], high: int | None, timing: Timing, *, signed: bool = False) -> ValueType:
        """Spikes if ``high`` is 1, otherwise counts up to ``high``; ``signed``: of either polarity."""
        if signed:
            return ValueType(shape, Kind.SIGNED, timing, high, None if high is None else -high)
        return ValueType(shape, Kind.SPIKE if high == 1 else Kind.COUNT, timing, high, 0)

    @staticmethod
    def sums(shape: tuple[int, ...], high: int | None, timing: Timing, terms: Sequence[ValueType]) -> ValueType:
        """Counts up to ``high`` that are sums or products of events; signed if any of them is."""
        if any(t.is_signed for t in terms):
            return ValueType.events(shape, high, timing, signed=True)
        return ValueType(shape, Kind.COUNT, timing, high, 0)

    @staticmethod
    def drive(shape: tuple[int, ...], timing: Timing) -> ValueType:
        """Type of a synapse's output."""
        return ValueType(shape, Kind.DRIVE, timing)
