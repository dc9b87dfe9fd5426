"""Tables for a paper: booktabs rules, siunitx numbers and units, a caption, and what must be known as notes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qkf_deploy.display.tables import Sheet, printable

#: Rows that fit a page; longer tables break over pages.
_ROWS_OF_A_PAGE = 40
#: Columns of a longer table that fit upright.
_COLUMNS_OF_A_PAGE = 8
#: Width of the text of an article on letter paper, upright and across, in points, less what is lost between columns.
_UPRIGHT, _ACROSS, _BETWEEN = 345, 550, 6
#: Sizes of type for tables that break, with the widest letters that their texts have on average, in points.
_TYPES = (("\\scriptsize", 4.2), ("\\tiny", 3.5))
#: Characters that a column of words keeps where it gives way, if its longest word is not longer.
_NARROW = 12
_PREAMBLE = "% \\usepackage{adjustbox,array,booktabs,longtable,pdflscape,siunitx}  \\DeclareSIUnit\\byte{B}\n"
_PREFIXES = {
    "f": ("\\femto", -15), "p": ("\\pico", -12), "n": ("\\nano", -9), "µ": ("\\micro", -6), "m": ("\\milli", -3),
    "": ("", 0), "k": ("\\kilo", 3), "M": ("\\mega", 6), "G": ("\\giga", 9), "T": ("\\tera", 12),
}  # fmt: skip
_UNITS = {"J": "\\joule", "B": "\\byte", "%": "\\percent"}
_NUMBER = re.compile(r"([+-]?)((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?) ?([fpnµmkMGT]?)([JB%]?)")
#: Where a line of a note may break: JSON and paths have no spaces.
_BREAKS = re.compile(r"([,:;/])(?=\S)")
_SPECIAL = {
    "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "$": "\\$", "&": "\\&", "#": "\\#", "%": "\\%", "_": "\\_",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}",
    "±": "$\\pm$", "×": "$\\times$", "→": "$\\rightarrow$", "√": "$\\surd$", "µ": "$\\mu$", "·": "$\\cdot$",
    "≤": "$\\leq$", "≥": "$\\geq$", "²": "$^2$", "³": "$^3$", "⁻": "$^-$", "½": "$\\frac{1}{2}$", "α": "$\\alpha$",
    "⌈": "$\\lceil$", "⌉": "$\\rceil$", "θ": "$\\theta$", "−": "$-$", "ᵀ": "$^T$",
}  # fmt: skip


def to_latex(sheet: Sheet) -> str:
    """A ``table``, or a ``longtable`` where the rows do not fit a page, which lies across where it has many columns."""
    rows = [_row(sheet, row) for row in sheet.for_people()]
    total = ["\\midrule\n", _row(sheet, sheet.footer)] if sheet.footer else []
    heading = " & ".join(_escape(c.title) for c in sheet.columns) + " \\\\\n"
    body = "".join([*rows, *total])
    caption = _escape(sheet.title)
    if len(rows) > _ROWS_OF_A_PAGE:
        across = len(sheet.columns) > _COLUMNS_OF_A_PAGE
        turned = ("\\begin{landscape}\n", "\\end{landscape}\n") if across else ("", "")
        size, columns = _fitted(sheet, _ACROSS if across else _UPRIGHT)
        heading = " & ".join(_escape(c.title) if c.left else _stacked(c.title) for c in sheet.columns) + " \\\\\n"
        return (
            f"{_PREAMBLE}{turned[0]}{{{size}\\setlength{{\\tabcolsep}}{{3pt}}\n\\begin{{longtable}}{{{columns}}}\n\\caption{{{caption}}}\\\\\n"
            f"\\toprule\n{heading}\\midrule\n\\endhead\n{body}\\bottomrule\n\\end{{longtable}}}}\n{turned[1]}"
        )
    return (
        f"{_PREAMBLE}\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n"
        f"\\begin{{adjustbox}}{{max width=\\textwidth}}\n\\begin{{tabular}}{{{''.join(_letters(sheet))}}}\n"
        f"\\toprule\n{heading}\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n\\end{adjustbox}\n\\end{table}\n"
    )


def _stacked(title: str) -> str:
    """A heading above numbers, one word below the other: it must not be wider than they are."""
    words = _escape(title).split()
    return "\\shortstack[r]{" + " \\\\ ".join(words) + "}" if len(words) > 1 else _escape(title)


def _letters(sheet: Sheet) -> list[str]:
    """How LaTeX aligns each column."""
    return ["l" if c.left or not i else "r" for i, c in enumerate(sheet.columns)]


def _fitted(sheet: Sheet, room: float) -> tuple[str, str]:
    """Size of type and columns of a table that breaks over pages, which cannot be scaled as a whole.

    Smaller type comes first; then the widest columns of words break their lines.
    """
    titles = [c.title if c.left else max(c.title.split(), key=len, default="") for c in sheet.columns]
    lines = [titles, *sheet.for_people(), *([sheet.footer] if sheet.footer else [])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = [max(len(word) for text in column for word in text.split() or [""]) for column in zip(*lines, strict=True)]
    left = room - _BETWEEN * len(widths)
    size, point = next(((name, pt) for name, pt in _TYPES if sum(widths) * pt <= left), _TYPES[-1])
    least = [max(_NARROW, w) if c.left else width for c, w, width in zip(sheet.columns, words, widths, strict=True)]
    letters = _letters(sheet)
    while sum(widths) * point > left and (wide := [i for i, w in enumerate(widths) if w > least[i]]):
        widest = max(wide, key=lambda i: widths[i])
        widths[widest] -= 1
        letters[widest] = f">{{\\raggedright\\arraybackslash}}p{{{widths[widest] * point:.0f}pt}}"
    return size, "".join(letters)


def latex_notes(text: str) -> str:
    """Lines under a table as small print; a line that begins with a dash is an item."""
    lines = [_escape(line.strip().removeprefix("- ")) for line in text.splitlines() if line.strip()]
    lines = [_BREAKS.sub(r"\1\\allowbreak{}", line) for line in lines]
    if not lines:
        return ""
    return "\\begin{flushleft}\\footnotesize\n" + "\\\\\n".join(lines) + "\n\\end{flushleft}\n"


def _row(sheet: Sheet, cells: Sequence[str]) -> str:
    shown = [_escape(cell) if column.left else _number(cell) for cell, column in zip(cells, sheet.columns, strict=True)]
    return " & ".join(shown) + " \\\\\n"


def _number(cell: str) -> str:
    """A number with its unit as siunitx writes it; any other text as it is."""
    found = _NUMBER.fullmatch(cell.strip())
    if found is None:
        return _escape(cell)
    sign, digits, prefix, unit = found.groups()
    number = sign + digits.replace(",", "")
    name, exponent = _PREFIXES[prefix]
    if unit:
        return f"\\qty{{{number}}}{{{name}{_UNITS[unit]}}}"
    return f"\\num{{{number}e{exponent}}}" if exponent else f"\\num{{{number}}}"


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in printable(text))
