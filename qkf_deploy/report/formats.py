"""One table, five formats: for people (text, Markdown, LaTeX), JSON and CSV.

JSON and CSV carry every digit: decimals are written exactly, rates as numerator / denominator in double precision.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, get_args

from qkf_deploy.display.screen import on_screen
from qkf_deploy.display.tables import Cell, Sheet, printable
from qkf_deploy.errors import UsageError
from qkf_deploy.options import TableFormat
from qkf_deploy.report.latex import latex_notes, to_latex

FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)


def check_format(fmt: str) -> None:
    """Raises UsageError for an unknown format."""
    if fmt not in FORMATS:
        raise UsageError(f"no format {fmt!r}", hint=f"one of: {', '.join(FORMATS)}")


def for_people(fmt: str) -> Callable[[Sheet], str]:
    """How a table is drawn that a person reads: as text, Markdown or LaTeX."""
    return {"table": on_screen, "md": to_markdown, "latex": to_latex}[fmt]


def below(fmt: str, text: str) -> str:
    """Text under a table that a person reads."""
    return latex_notes(text) if fmt == "latex" else text


def to_json(data: Mapping[str, Any]) -> str:
    """JSON with exact decimals, two-space indent, final newline. Fractions become double precision."""
    import simplejson

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
    return printable(text).replace("|", "\\|")
