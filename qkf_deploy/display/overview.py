"""Objects that explain themselves on one screen, in a terminal and in a notebook."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any, TypeVar

from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.tables import Sheet, escape, printable, to_html, to_text

#: Rows of a table and lines of notes on one screen; with headings and totals less than forty lines.
ROWS = 20
NOTES = 10
#: Longest cell and longest line of a note, in characters.
_CELL = 60
_LINE = 140

Row = TypeVar("Row")


@dataclass(frozen=True)
class Overview:
    """What fits on one screen.

    Attributes:
        headline: what the object is, one line.
        sheet: its rows, or the most telling ones; no caption.
        notes: sentences below.
    """

    headline: str
    sheet: Sheet
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """For a terminal: at most about forty lines."""
        return (to_text(self._short()) + "\n".join(self._lines())).rstrip("\n")

    def html(self) -> str:
        """For a notebook: a table of its own, every text escaped."""
        return f"<div>\n{to_html(self._short())}<p>{'<br>'.join(map(escape, self._lines()))}</p>\n</div>\n"

    def _short(self) -> Sheet:
        shown = tuple(tuple(_shorten(cell, _CELL) for cell in row) for row in self.sheet.for_people())
        return replace(self.sheet, title=_shorten(self.headline, _LINE), shown=shown)

    def _lines(self) -> list[str]:
        lines = [line for note in self.notes for line in wrap(printable(note), _LINE, subsequent_indent="  ")]
        more = len(lines) - NOTES
        return [*lines[:NOTES], f"... and {quantity(more, 'more line')}"] if more > 0 else lines


class SelfDescribing:
    """``str()`` and notebooks show the overview, ``repr()`` its headline."""

    @abstractmethod
    def overview(self) -> Overview:
        """What fits on one screen."""

    def __str__(self) -> str:
        return self.overview().text()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {printable(self.overview().headline)}>"

    def _repr_html_(self) -> str:
        return self.overview().html()


def largest(rows: Sequence[Row], size: Callable[[Row], Any], what: str) -> tuple[list[Row], tuple[str, ...]]:
    """The :data:`ROWS` largest rows in their own order, and the note that says how many are left out.

    Args:
        rows: all of them.
        size: anything that can be ordered; among equals the earlier row stays.
        what: the rows shown, in words: ``nodes, those with most parameters``.
    """
    order = sorted(range(len(rows)), key=lambda i: size(rows[i]), reverse=True)
    kept = [rows[i] for i in sorted(order[:ROWS])]
    if len(kept) == len(rows):
        return kept, ()
    return kept, (f"{len(kept)} of {len(rows):,} {what}; the totals are of all",)


def _shorten(text: str, most: int) -> str:
    """The text, its middle left out where it is too long (names differ at both ends)."""
    if len(text) <= most:
        return text
    head = (most - 3) // 2
    return f"{text[:head]}...{text[len(text) - (most - 3 - head) :]}"
