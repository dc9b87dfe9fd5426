"""Tables for a paper: booktabs rules, siunitx numbers and units, a caption, and what must be known as notes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qkf_deploy.display.tables import Sheet, printable

#: Rows that fit a page; longer tables break over pages.
_ROWS_OF_A_PAGE = 40
#: Columns of a longer table that fit upright.
_COLUMNS_OF_A_PAGE = 8
_PREAMBLE = "% \\usepackage{adjustbox,booktabs,longtable,pdflscape,siunitx}  \\DeclareSIUnit\\byte{B}\n"
_PREFIXES = {
    "f": ("\\femto", -15), "p": ("\\pico", -12), "n": ("\\nano", -9), "µ": ("\\micro", -6), "m": ("\\milli", -3),
    "": ("", 0), "k": ("\\kilo", 3), "M": ("\\mega", 6), "G": ("\\giga", 9), "T": ("\\tera", 12),
}  # fmt: skip
_UNITS = {"J": "\\joule", "B": "\\byte", "%": "\\percent"}
_NUMBER = re.compile(r"([+-]?)((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?) ?([fpnµmkMGT]?)([JB%]?)")
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
    columns = "".join("l" if c.left or not i else "r" for i, c in enumerate(sheet.columns))
    body = "".join([*rows, *total])
    caption = _escape(sheet.title)
    if len(rows) > _ROWS_OF_A_PAGE:
        turned = ("\\begin{landscape}\n", "\\end{landscape}\n") if len(sheet.columns) > _COLUMNS_OF_A_PAGE else ("", "")
        return (
            f"{_PREAMBLE}{turned[0]}{{\\scriptsize\\setlength{{\\tabcolsep}}{{3pt}}\n\\begin{{longtable}}{{{columns}}}\n\\caption{{{caption}}}\\\\\n"
            f"\\toprule\n{heading}\\midrule\n\\endhead\n{body}\\bottomrule\n\\end{{longtable}}}}\n{turned[1]}"
        )
    return (
        f"{_PREAMBLE}\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n"
        f"\\begin{{adjustbox}}{{max width=\\textwidth}}\n\\begin{{tabular}}{{{columns}}}\n"
        f"\\toprule\n{heading}\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n\\end{adjustbox}\n\\end{table}\n"
    )


def latex_notes(text: str) -> str:
    """Lines under a table as small print; a line that begins with a dash is an item."""
    lines = [_escape(line.strip().removeprefix("- ")) for line in text.splitlines() if line.strip()]
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
