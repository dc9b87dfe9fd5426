"""Tables for a paper: the numbers are those of the table, the text is safe, TeX accepts it."""

from __future__ import annotations

import re
import shutil
import subprocess
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from digits_network import DigitsNetwork

import qkf_deploy as qd
from qkf_deploy.cli import run as command_line
from qkf_deploy.display.tables import Column, Sheet
from qkf_deploy.hw_models.pricing import price
from qkf_deploy.report.comparison import render_comparison
from qkf_deploy.report.evaluation_table import drawn
from qkf_deploy.report.formats import for_people
from qkf_deploy.report.latex import latex_notes, to_latex
from qkf_deploy.report.tables import render_energy

_EXPONENTS = {"": 0, "\\femto": -15, "\\pico": -12, "\\nano": -9, "\\micro": -6, "\\milli": -3, "\\kilo": 3}
_PREAMBLE = "\\documentclass{article}\\usepackage[T1]{fontenc}\n"


def value(cell: str) -> Decimal:
    """What a siunitx cell says, in the unit without prefix."""
    number, unit = re.fullmatch(r"\\(?:num|qty)\{([^}]*)\}(?:\{(.*)\})?", cell).groups()  # type: ignore[union-attr]
    prefix = (unit or "").removesuffix("\\joule").removesuffix("\\byte").removesuffix("\\percent")
    return Decimal(number).scaleb(_EXPONENTS[prefix])


def cells(text: str) -> dict[str, list[str]]:
    rows = re.search(r"\\midrule\n(?:\\endhead\n)?(.*?)\\bottomrule", text, re.DOTALL).group(1)  # type: ignore[union-attr]
    split = [line.removesuffix(" \\\\").split(" & ") for line in rows.splitlines() if line != "\\midrule"]
    return {re.sub(r"\\([_#])", r"\1", row[0]): row[1:] for row in split}


def test_numbers_are_those_of_json(network: DigitsNetwork) -> None:
    report = price(network.run.ledger, "paper-eq23")
    found = cells(render_energy(report, "latex"))
    exact = {layer.layer: Fraction(layer.energy_pj) / report.images for layer in report.layers}
    exact["total"] = report.mean_energy_pj
    assert len(found) > 20
    for name, row in found.items():
        joules = Decimal(float(exact[name])).scaleb(-12)
        assert abs(value(row[-2]) - joules) <= joules * Decimal("0.0006"), name


def test_cells() -> None:
    shown = ("a_b", "1,234", "-0.5 %", "4.896 µJ", "5.043 M", "1.2e-05", "none", "")
    columns = tuple(Column(str(i), f"c{i} & %") for i in range(len(shown)))
    sheet = Sheet("100 % of $x_1$", columns, (shown,), (shown,))
    text = to_latex(sheet)
    assert "a\\_b & \\num{1234} & \\qty{-0.5}{\\percent} & \\qty{4.896}{\\micro\\joule} & \\num{5.043e6} & " in text
    assert "\\num{1.2e-05} & none &  \\\\" in text
    assert "\\caption{100 \\% of \\$x\\_1\\$}" in text
    assert "c0 \\& \\%" in text


def test_hostile_text_stays_text() -> None:
    evil = "\\input{/etc/passwd} ${}^~#&_% \x1b[2J\n"
    text = to_latex(Sheet(evil, (Column("a", evil, True),), ((evil,),))) + latex_notes(evil)
    assert "\\input" not in text
    assert "\x1b" not in text


def test_notes_break_where_there_are_no_spaces() -> None:
    assert latex_notes('{"a":1,"b":2}').count("\\allowbreak{}") == 3
    assert "allowbreak" not in latex_notes("one, two: three / four")


def test_the_packages_stand_first() -> None:
    sheet = Sheet("t", (Column("a", "a"),), ((1,),))
    text = drawn([sheet, sheet], ["4 of 6 answers changed"], "latex")
    assert text.startswith("% \\usepackage")
    assert text.count("4 of 6 answers changed") == 1
    assert drawn([sheet], ["4 of 6 answers changed"], "md").startswith("- 4 of 6")


def test_long_tables_break_over_pages() -> None:
    rows = tuple((i,) for i in range(41))
    assert "longtable}" in to_latex(Sheet("t", (Column("a", "a"),), rows)).split("\n", 1)[1]
    assert "longtable}" not in to_latex(Sheet("t", (Column("a", "a"),), rows[:40])).split("\n", 1)[1]


def test_a_table_that_breaks_fits_its_page() -> None:
    """Smaller type first, then lines of words break; names that have no spaces keep their room."""
    name, words = "stage1.0.tssa.proj_conv", "input count up to 2: additions only, and more words " * 3
    rows = tuple((name, words, *range(10)) for _ in range(41))
    columns = (
        Column("a", "layer", True),
        Column("b", "audit", True),
        *(Column(str(i), "dense MACs") for i in range(10)),
    )
    text = to_latex(Sheet("t", columns, rows))
    assert text.count("}p{") == 1
    assert "{\\tiny" in text
    assert "\\scriptsize" in to_latex(Sheet("t", columns[2:6], tuple(row[2:6] for row in rows)))


def test_tex_accepts_every_table(network: DigitsNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if (tex := shutil.which("pdflatex")) is None:
        pytest.skip("pdflatex is not installed")
    ledger = network.run.ledger
    reports = [price(ledger, name) for name in ("paper-eq23", "exact-fp32", "horowitz45-sram")]
    parts = [render_energy(reports, "latex", every_node=True), render_comparison(ledger, reports, "latex")]
    qd.save(network.integer_graph, tmp_path / "net.qkf")
    commands = (
        "profiles",
        "profiles paper-eq23",
        "profiles --quantities",
        "models",
        "doctor",
        "inspect {}",
        "widths {}",
    )
    for words in commands:
        assert command_line([*words.format(tmp_path / "net.qkf").split(), "--format", "latex"]) == 0
        parts.append(capsys.readouterr().out)
    hostile = "".join(map(chr, range(32, 127))) + "±×→√µ·≤≥²³⁻½α⌈⌉θ−ᵀ"
    parts.append(for_people("latex")(Sheet(hostile, (Column("a", hostile, True),), ((hostile,),))))
    packages = parts[0].splitlines()[0].lstrip("% ")
    body = "\n".join([_PREAMBLE + packages, "\\begin{document}", *parts, "\\end{document}", ""])
    (tmp_path / "all.tex").write_text(body)
    done = subprocess.run(
        [tex, "-interaction=nonstopmode", "-halt-on-error", "all.tex"], cwd=tmp_path, capture_output=True, check=False
    )
    said = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, said[-2000:]
    # A table that is scaled, or one that breaks and must have given way, is never wider than the page.
    assert re.findall(r"Overfull \\hbox.*in alignment.*", said) == []
