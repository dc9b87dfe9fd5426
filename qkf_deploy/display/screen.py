"""Tables on a terminal: as many rows as are read, columns in groups that fit its width.

Files and pipes get whole tables. :data:`SCREEN` says what is limited; without a command line nothing is.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, replace

from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.tables import Sheet, to_text


@dataclass(frozen=True)
class Screen:
    """What a table may take.

    Attributes:
        rows: of a table, the first ones; ``None`` for all.
        width: characters of a line; ``None`` for any.
    """

    rows: int | None = None
    width: int | None = None


_WHOLE = Screen()
SCREEN: ContextVar[Screen] = ContextVar("screen", default=_WHOLE)


def on_screen(sheet: Sheet) -> str:
    """A table as text, as the screen takes it: nothing is cut off in silence."""
    screen = SCREEN.get()
    left_out = len(sheet.rows) - screen.rows if screen.rows is not None else 0
    if left_out > 0 and screen.rows is not None:
        shown = tuple(sheet.for_people()[: screen.rows])
        sheet = replace(sheet, rows=sheet.rows[: screen.rows], shown=shown)
    text = "\n".join(to_text(part) for part in _fitting(sheet, screen.width))
    return text if left_out <= 0 else f"{text}  ... {quantity(left_out, 'more row')} (--rows all)\n"


def _fitting(sheet: Sheet, width: int | None) -> list[Sheet]:
    """The table, or tables of some of its columns, the first column on each, where it is wider than the screen."""
    if width is None or _width(sheet) <= width or len(sheet.columns) < 3:
        return [sheet]
    parts: list[list[int]] = [[0, 1]]
    for column in range(2, len(sheet.columns)):
        if _width(_some(sheet, [*parts[-1], column])) <= width:
            parts[-1].append(column)
        else:
            parts.append([0, column])
    return [_some(sheet, part) for part in parts]


def _some(sheet: Sheet, columns: list[int]) -> Sheet:
    def kept(row: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(row[column] for column in columns)

    return replace(
        sheet,
        columns=tuple(sheet.columns[column] for column in columns),
        rows=tuple(tuple(row[column] for column in columns) for row in sheet.rows),
        shown=tuple(kept(row) for row in sheet.for_people()),
        footer=None if sheet.footer is None else kept(sheet.footer),
    )


def _width(sheet: Sheet) -> int:
    return max(map(len, to_text(sheet).splitlines()))
