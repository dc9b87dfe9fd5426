"""Firing rates of layers from a CSV file: published ones that come with the package, or a user's own.

A row names a layer. For a convolution, a linear layer or a Q-K sum the number is the mean value of what it reads; for a
neuron (or anything else that gives out events) the mean value of what leaves it. Means are per element and time step;
a value of 3 counts as three spikes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from importlib import resources
from pathlib import Path

from qkf_deploy import limits
from qkf_deploy.errors import InputError
from qkf_deploy.filekinds import refuse_others

_FOLDER = "rates"
#: Column -> what 1 stands for in it.
_COLUMNS = {"rate": 1, "mean_value": 1, "rate_percent": 100, "input_rate_percent": 100}
_INDEX = re.compile(r"\[(\d+)\]")
_MAX_BYTES, _MOST, _DIGITS = 10_000_000, 10**6, 30


@dataclass(frozen=True)
class RateTable:
    """Mean values by layer.

    Attributes:
        where: the file, for messages.
        means: layer -> mean value per element and step.
        lines: layer -> line in the file, from 1.
        notes: comment lines of the file: what the numbers are and where they are from.
    """

    where: str
    means: Mapping[str, Fraction]
    lines: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def error(self, layer: str, message: str, hint: str | None = None) -> InputError:
        """An error about one row."""
        return InputError(f"{layer}: {message}", where=f"{self.where}:{self.lines.get(layer, 1)}", hint=hint)


def published_rates() -> tuple[str, ...]:
    """Models whose published firing rates come with the package."""
    files = (resources.files("qkf_deploy.hw_models") / _FOLDER).iterdir()
    return tuple(sorted(f.name.removesuffix(".csv") for f in files if f.name.endswith(".csv")))


def load_rates(name_or_path: str | Path) -> RateTable:
    """Rates that come with the package, by the name of their model, or a user's CSV file.

    Lines that begin with ``#`` are comments. The header has a column ``layer`` and one of ``rate``, ``mean_value``
    (1 is one spike per element and step), ``rate_percent`` or ``input_rate_percent``; other columns are not read.

    Raises:
        InputError: not a file, no such columns, a layer twice, something that is no number, or negative.
    """
    if str(name_or_path) in published_rates():
        source = resources.files("qkf_deploy.hw_models") / _FOLDER / f"{name_or_path}.csv"
        return parse_rates(source.read_text(encoding="utf-8"), str(name_or_path))
    path = Path(name_or_path)
    refuse_others(path, "table")
    try:
        content = limits.read_whole(path)
    except InputError as error:
        known = ", ".join(published_rates())
        raise InputError(error.message, where=error.where, hint=f"a CSV file, or one of: {known}") from error
    if len(content) > _MAX_BYTES:
        raise InputError(f"larger than {_MAX_BYTES} bytes", where=str(path))
    try:
        return parse_rates(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", where=str(path), hint="write a CSV file with a header") from error


def parse_rates(text: str, where: str) -> RateTable:
    """As :func:`load_rates`, from text."""
    lines = text.splitlines()
    notes = tuple(line.lstrip("# ").rstrip() for line in lines if line.startswith("#"))
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    rows = [(number, _cells(line, f"{where}:{number}")) for number, line in numbered]
    if not rows:
        raise InputError("no rows", where=where, hint="a CSV file with the columns layer and rate")
    (first, header), *body = rows
    layer, column = _columns(header, f"{where}:{first}")
    means: dict[str, Fraction] = {}
    found: dict[str, int] = {}
    for number, cells in body:
        place = f"{where}:{number}"
        if len(cells) != len(header):
            raise InputError(f"{len(cells)} columns, the header has {len(header)}", where=place)
        name = _INDEX.sub(r".\1", cells[layer].strip())
        if name in means:
            raise InputError(f"{name} stands here and in line {found[name]}", where=place, hint="keep one row")
        means[name] = _number(cells[column], place) / _COLUMNS[header[column].strip()]
        found[name] = number
    return RateTable(where, means, found, notes)


def _cells(line: str, place: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(line), strict=True))
    except (csv.Error, StopIteration) as error:
        raise InputError("not a line of a CSV file", where=place, hint="separate columns by commas") from error


def _columns(header: list[str], place: str) -> tuple[int, int]:
    names = [cell.strip() for cell in header]
    rates = [name for name in names if name in _COLUMNS]
    if names.count("layer") != 1 or len(rates) != 1:
        raise InputError(
            "the header needs a column layer and one column of rates",
            where=place,
            hint=f"name it one of: {', '.join(_COLUMNS)}",
        )
    return names.index("layer"), names.index(rates[0])


def _number(text: str, place: str) -> Fraction:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0 or value > _MOST or len(value.as_tuple().digits) > _DIGITS:
        raise InputError(f"{text.strip()[:40]!r} is not a mean value", where=place, hint="a number from 0, e.g. 0.17")
    if value and value.adjusted() < -_DIGITS:
        raise InputError(f"{text.strip()[:40]!r} is smaller than any mean value", where=place)
    return Fraction(value)
