"""Sums of counts times prices, exact to the last digit: prices are finite decimals, counts are integers."""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np

from qkf_deploy.hw_models.quantity import PerImage, times, wide
from qkf_deploy.ledger import exact_total

_EXACT = decimal.Context(prec=80, traps=[decimal.Inexact, decimal.InvalidOperation])


def exact_sum(values: Iterable[Decimal]) -> Decimal:
    """Sum of decimals without rounding (it would raise)."""
    total = Decimal(0)
    for value in values:
        total = _EXACT.add(total, value)
    return total


def exact_product(count: int, price: Decimal) -> Decimal:
    """Product without rounding (it would raise)."""
    return _EXACT.multiply(Decimal(count), price)


@dataclass(frozen=True, eq=False)
class Energies:
    """Energies of images as whole multiples of a unit, so that sums are exact and cheap.

    Attributes:
        units: int64 or Python integers, one per image.
        unit_pj: what one unit is.
    """

    units: np.ndarray
    unit_pj: Decimal

    @staticmethod
    def of(terms: Iterable[Term]) -> Energies:
        """Energy of several terms together; none of them is no energy."""
        chosen = list(terms)
        unit = min((term.pj for term in chosen), key=_exponent, default=Decimal(0))
        unit = Decimal(1).scaleb(_exponent(unit))
        prices = [int(_EXACT.divide(term.pj, unit)) for term in chosen]
        units: np.ndarray = np.zeros(1, np.int64)
        for term, each in zip(chosen, prices, strict=True):
            units = wide(units, 2) + wide(times(term.counts, each), 2)
        return Energies(units, unit)

    @property
    def total(self) -> Decimal:
        """Of all images."""
        return exact_product(exact_total(self.units), self.unit_pj)

    def each(self, images: int) -> tuple[Decimal, ...]:
        """One energy per image, in pJ."""
        units = np.broadcast_to(self.units, images).tolist()
        return tuple(exact_product(n, self.unit_pj) for n in units)

    def deviation(self, images: int) -> float:
        """Sample standard deviation in pJ: n sum of squares less the square of the sum, exact until the root."""
        if images < 2 or len(self.units) < 2:
            return 0.0
        units = self.units.tolist()
        spread = images * sum(n * n for n in units) - sum(units) ** 2
        return math.sqrt(Fraction(spread, images * (images - 1)) * Fraction(self.unit_pj) ** 2)


def _exponent(value: Decimal) -> int:
    found = value.as_tuple().exponent
    return found if isinstance(found, int) else 0


@dataclass(frozen=True, eq=False)
class Term:
    """One priced quantity of a layer.

    Attributes:
        counts: per image.
        pj: price of one.
    """

    counts: PerImage
    pj: Decimal

    @property
    def total(self) -> Decimal:
        """Energy of all images, in pJ."""
        return exact_product(exact_total(self.counts), self.pj)
