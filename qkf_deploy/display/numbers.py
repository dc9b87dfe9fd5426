"""Numbers for people: SI prefixes, energies, rates, shares."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

Number = int | float | Decimal | Fraction


def si(value: Number, unit: str = "", digits: int = 4) -> str:
    """A number with an SI prefix: ``4.181 G``, ``12.3 mJ``; ``digits`` significant digits.

    What has no unit is a count, and counts have no milli: ``-0.1667``.
    """
    number = float(value)
    if number == 0:
        return f"0 {unit}".strip()
    large, small = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")), ((1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
    scales = (*large, (1, ""), *small) if unit else large
    scale, prefix = next(((s, p) for s, p in scales if abs(number) >= s * 0.99995), (1e-12, "p") if unit else (1, ""))
    text = f"{number / scale:.{digits}g}"
    return f"{text} {prefix}{unit}".strip()


def joules(picojoule: Number) -> str:
    """Energy: ``4.181 mJ``."""
    return si(float(picojoule) * 1e-12, "J")


def rate(value: Fraction | None) -> str:
    """A firing rate, four decimals."""
    return "" if value is None else f"{float(value):.4f}"


def percent(value: Fraction | float) -> str:
    """A share."""
    return f"{100 * float(value):.2f} %"


def signed_percent(value: Fraction | None) -> str:
    """A difference; empty where there is none."""
    return "" if value is None else f"{100 * float(value):+.2f} %"


def ratio(value: Number | None, digits: int = 3) -> str:
    """A quotient, significant digits; empty where there is none."""
    return "" if value is None else f"{float(value):.{digits}g}"


def decimals(digits: int) -> Callable[[Any], str]:
    """How numbers with so many decimals are shown; empty where there is none."""
    return lambda value: "" if value is None else f"{float(value):.{digits}f}"


def unless_zero(text: Callable[[Any], str]) -> Callable[[Any], str]:
    """``text``, and nothing for zero."""
    return lambda value: text(value) if value else ""


def whole(value: int | Fraction) -> str:
    """A whole number (or a mean, rounded to one) with thousands separators."""
    return f"{round(value):,}"


def plain(value: Any) -> str:
    """A cell as it is: nothing for ``None``, whole numbers with thousands separators."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def quantity(count: int, noun: str) -> str:
    """``1 node``, ``3 nodes``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
