"""A number that its source gives as a range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, get_args

Bound = Literal["low", "nominal", "high"]
BOUNDS: tuple[Bound, ...] = get_args(Bound)


@dataclass(frozen=True)
class Range:
    """Smallest, usual and largest value; all equal where the source gives one figure."""

    low: Decimal
    nominal: Decimal
    high: Decimal

    @staticmethod
    def of(value: Decimal | int | str) -> Range:
        """A range of one value."""
        exact = Decimal(value)
        return Range(exact, exact, exact)

    def at(self, bound: Bound) -> Decimal:
        """The value at one end, or between."""
        return {"low": self.low, "nominal": self.nominal, "high": self.high}[bound]

    def __iter__(self) -> Iterator[Decimal]:
        return iter((self.low, self.nominal, self.high))
