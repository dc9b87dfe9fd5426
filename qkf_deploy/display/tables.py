"""Tables: declared once as fields, filled with rows, shown as text or HTML."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Generic, TypeVar

from qkf_deploy.display.numbers import plain

Cell = str | int | float | Decimal | Fraction | bool | None
Row = TypeVar("Row")


@dataclass(frozen=True)
class Column:
    """One column of a finished table.

    Attributes:
        key: name in JSON and CSV, unit included (``energy_pj``).
        title: heading for people.
        left: text column.
    """

    key: str
    title: str
    left: bool = False


@dataclass(frozen=True)
class Field(Generic[Row]):
    """One column of a table together with what stands in it: the only place that knows both.

    Attributes:
        key: name in JSON and CSV, unit included (``energy_pj``).
        title: heading for people.
        value: exact value of a row, for machines.
        text: that value for people, rounded.
        left: text column.
        total: the value under the column, of all rows; a string stands there as it is; ``None`` leaves it empty.
    """

    key: str
    title: str
    value: Callable[[Row], Cell]
    text: Callable[[Any], str] = plain
    left: bool = False
    total: Callable[[Sequence[Row]], Cell] | None = None


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


def summed(
    key: str, title: str, value: Callable[[Row], int | Decimal | Fraction], text: Callable[[Any], str] = plain
) -> Field[Row]:
    """A column of numbers with their sum under it."""
    return Field(key, title, value, text, total=lambda rows: sum((value(r) for r in rows), start=0))


def tabulate(
    title: str, fields: Sequence[Field[Row]], rows: Iterable[Row], all_rows: Sequence[Row] | None = None
) -> Sheet:
    """Fill a table.

    Args:
        title: caption.
        fields: columns in order.
        rows: what is shown.
        all_rows: what the totals are of, where ``rows`` leaves some out; of nothing there are none.
    """
    rows = list(rows)
    values = [tuple(f.value(row) for f in fields) for row in rows]
    shown = [tuple(f.text(v) for f, v in zip(fields, cells, strict=True)) for cells in values]
    summed_up = rows if all_rows is None else all_rows
    totals = [_total(f, summed_up) for f in fields]
    return Sheet(
        title,
        tuple(Column(f.key, f.title, f.left) for f in fields),
        tuple(values),
        tuple(shown),
        (totals[0] or "total", *totals[1:]) if summed_up and any(f.total for f in fields) else None,
    )


def _total(field: Field[Row], rows: Sequence[Row]) -> str:
    total = "" if field.total is None else field.total(rows)
    return total if isinstance(total, str) else field.text(total)


def printable(text: str) -> str:
    """The text on one line, without control characters (they could move a terminal's cursor or hide text)."""
    return "".join(" " if c.isspace() else "\ufffd" if unicodedata.category(c)[0] == "C" else c for c in text)


def _width(text: str) -> int:
    """Columns of a terminal."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)


def to_text(sheet: Sheet) -> str:
    """Table for people, as wide as it needs."""
    lines = [tuple(c.title for c in sheet.columns), *sheet.for_people(), *([sheet.footer] if sheet.footer else [])]
    cells = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]

    def padded(line: Sequence[str]) -> str:
        parts = []
        for text, width, column in zip(line, widths, sheet.columns, strict=True):
            space = " " * (width - _width(text))
            parts.append(text + space if column.left else space + text)
        return ("  " + "   ".join(parts)).rstrip()

    head, *body = map(padded, cells)
    rule = " " + "─" * (sum(widths) + 3 * len(widths) - 1)
    if sheet.footer:
        body[-1:] = ["", body[-1]]
    return "\n".join([printable(sheet.title), "", head, rule, *body]) + "\n\n"


def to_html(sheet: Sheet) -> str:
    """A table that stands alone in any page: every text escaped, no style sheet, script or outside reference."""
    heads = "".join(_cell("th", c.title, c) for c in sheet.columns)
    body = "".join(f"<tr>{_cells(sheet, row)}</tr>\n" for row in sheet.for_people())
    foot = f"<tfoot><tr>{_cells(sheet, sheet.footer)}</tr></tfoot>\n" if sheet.footer else ""
    caption = f"<caption>{escape(sheet.title)}</caption>\n" if sheet.title else ""
    return f"<table>\n{caption}<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n{foot}</table>\n"


def _cells(sheet: Sheet, row: Sequence[str]) -> str:
    return "".join(_cell("td", text, column) for text, column in zip(row, sheet.columns, strict=True))


def _cell(tag: str, text: str, column: Column) -> str:
    return f'<{tag} style="text-align: {"left" if column.left else "right"}">{escape(text)}</{tag}>'


def escape(text: str) -> str:
    """Text inside HTML."""
    return html.escape(printable(text))
