"""One table, four formats: for people (rich), JSON, CSV, Markdown.

JSON and CSV carry every digit: decimals are written exactly, rates as numerator / denominator in double precision.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import simplejson
from rich import box
from rich.console import Console
from rich.table import Table

FORMATS = ("table", "json", "csv", "md")
#: A table narrower than this would cut names and numbers; longer lines are the reader's to scroll.
_LEAST_WIDTH = 150

Cell = str | int | float | Decimal | Fraction | bool | None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: name in JSON and CSV, unit included (``energy_pj``).
        title: heading for people.
        left: text column.
    """

    key: str
    title: str
    left: bool = False


@dataclass(frozen=True)
class ShownCell:
    """One cell of a page: text, number to sort by (empty where there is none), left-aligned or not."""

    text: str
    value: str
    left: bool


@dataclass(frozen=True)
class Sheet:
    """Rows of cells under columns.

    Attributes:
        title: caption.
        columns: headings.
        rows: exact values, for machines.
        shown: the same rows as people read them, rounded; defaults to ``rows``.
        footer: shown as a last row for people (totals), as strings.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    shown: tuple[tuple[str, ...], ...] | None = None
    footer: tuple[str, ...] | None = None

    def for_people(self) -> list[tuple[str, ...]]:
        """Rows as strings."""
        if self.shown is not None:
            return list(self.shown)
        return [tuple("" if c is None else str(c) for c in row) for row in self.rows]

    def cells(self) -> list[list[ShownCell]]:
        """Rows for a page: what is read, what sorts, and how it is aligned."""
        return [
            [ShownCell(text, _sort_key(exact), c.left) for text, exact, c in zip(shown, row, self.columns, strict=True)]
            for shown, row in zip(self.for_people(), self.rows, strict=True)
        ]

    def records(self) -> list[dict[str, Cell]]:
        """Rows as dictionaries by column key."""
        return [dict(zip((c.key for c in self.columns), row, strict=True)) for row in self.rows]


def _sort_key(value: Cell) -> str:
    return "" if value is None or isinstance(value, str) else repr(float(value))


def to_json(data: Mapping[str, Any]) -> str:
    """JSON with exact decimals, two-space indent, final newline. Fractions become double precision."""
    return simplejson.dumps(data, use_decimal=True, indent=2, default=_plain, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_csv(sheet: Sheet) -> str:
    """CSV with a header of column keys."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([c.key for c in sheet.columns])
    writer.writerows([_csv_cell(c) for c in row] for row in sheet.rows)
    return out.getvalue()


def _csv_cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return format(value, "f")
    return repr(float(value)) if isinstance(value, Fraction) else str(value)


def to_markdown(sheet: Sheet) -> str:
    """GitHub table with a bold caption line."""
    lines = [f"**{_escape(sheet.title)}**", ""]
    lines.append("| " + " | ".join(_escape(c.title) for c in sheet.columns) + " |")
    lines.append("|" + "|".join(":--" if c.left else "--:" for c in sheet.columns) + "|")
    rows = [*sheet.for_people(), *([sheet.footer] if sheet.footer else [])]
    lines += ["| " + " | ".join(_escape(c) for c in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def to_text(sheet: Sheet) -> str:
    """Table for people, as wide as it needs."""
    table = Table(title=sheet.title, box=box.SIMPLE_HEAD, title_justify="left", show_footer=bool(sheet.footer))
    for index, column in enumerate(sheet.columns):
        footer = sheet.footer[index] if sheet.footer else ""
        table.add_column(
            column.title,
            justify="left" if column.left else "right",
            no_wrap=True,
            footer=footer,
        )
    for row in sheet.for_people():
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=_width(sheet), color_system=None, markup=False, highlight=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"  # type: ignore[attr-defined]


def _width(sheet: Sheet) -> int:
    rows = [tuple(c.title for c in sheet.columns), *sheet.for_people(), sheet.footer or ()]
    widths = [max((len(r[i]) for r in rows if i < len(r)), default=0) for i in range(len(sheet.columns))]
    return max(_LEAST_WIDTH, sum(widths) + 3 * len(widths) + 4)


def si(value: int | float | Decimal | Fraction, unit: str = "", digits: int = 4) -> str:
    """A number for people with an SI prefix: ``4.181 G``, ``12.3 m``; ``digits`` significant digits."""
    number = float(value)
    if number == 0:
        return f"0 {unit}".strip()
    scales = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
    scale, prefix = next(((s, p) for s, p in scales if abs(number) >= s * 0.99995), (1e-12, "p"))
    text = f"{number / scale:.{digits}g}"
    return f"{text} {prefix}{unit}".strip()


def joules(picojoule: int | Decimal | Fraction | float) -> str:
    """Energy for people: ``4.181 mJ``."""
    return si(float(picojoule) * 1e-12, "J")


def rate(value: Fraction | None) -> str:
    """A firing rate for people, four decimals."""
    return "" if value is None else f"{float(value):.4f}"


def percent(value: Fraction | float) -> str:
    """A share for people."""
    return f"{100 * float(value):.2f} %"


def signed_percent(value: Fraction | None) -> str:
    """A difference for people; empty where there is none."""
    return "" if value is None else f"{100 * float(value):+.2f} %"


def whole(value: int | Fraction) -> str:
    """A whole number (or a mean, rounded to one) with thousands separators."""
    return f"{round(value):,}"
