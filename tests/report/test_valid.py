"""What the page is made of: HTML without a parse error, and shapes that stand out from what they lie on."""

from __future__ import annotations

import re
from importlib import resources

import html5lib
import pytest
from digits_network import DigitsNetwork

from qkf_deploy.report.page import render_page
from qkf_deploy.runs.content import stored

TEMPLATES = resources.files("qkf_deploy.report") / "templates"
#: Colours of marks, of borders that tell nodes apart, of edges and of what shows the focus.
MARKS = ("bar", "bar2", "bar3", "bar4", "bar5", "muted", "accent", "warn")
#: What the scripts use besides: text, and what shapes lie on.
OTHERS = {"fg", "bg", "soft"}
#: Least contrast of shapes that carry meaning (WCAG 2.2, criterion 1.4.11) and of text (1.4.3).
SHAPES, TEXT = 3.0, 4.5


def colours(scheme: str) -> dict[str, str]:
    """The page's colours by name."""
    found = re.findall(r":root \{([^}]*--bg:[^}]*)\}", (TEMPLATES / "report.css").read_text(encoding="utf-8"))
    assert len(found) == 2
    return dict(re.findall(r"--(\w+):(#\w+)", found[scheme == "dark"]))


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_black_and_white() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_shapes_of_charts_and_graph_stand_out(scheme: str) -> None:
    named = colours(scheme)
    weak = {
        (mark, on): contrast(named[mark], named[on])
        for mark in MARKS for on in ("bg", "soft") if contrast(named[mark], named[on]) < SHAPES
    }  # fmt: skip
    assert weak == {}
    pairs = [("fg", "bg"), ("fg", "soft"), ("muted", "bg"), ("muted", "soft"), ("bg", "accent"), ("accent", "bg")]
    assert [pair for pair in pairs if contrast(named[pair[0]], named[pair[1]]) < TEXT] == []


def test_scripts_draw_with_these_colours_only() -> None:
    text = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("charts.js", "graph.js"))
    used = set(re.findall(r"--([a-z]\w*)", text)) | set(re.findall(r"bar\d", text))
    assert used <= {*MARKS, *OTHERS}
    legend = re.findall(r"\.node-key[^}]*\}", (TEMPLATES / "report.css").read_text(encoding="utf-8"))
    assert set(re.findall(r"border[^;}]*var\(--(\w+)\)", "".join(legend))) <= set(MARKS)


def test_the_page_parses_without_an_error(network: DigitsNetwork) -> None:
    """Wrong nesting, stray tags, attributes twice, text where a table has none: a strict parser stops at each."""
    run = stored(network.integer_graph, network.run)
    page = render_page(run, beside={"the same again": run})
    # A script is one text to the parser; half of the page is the libraries, which it need not walk through.
    short = re.sub(r"(<script>).*?(</script>)", r"\1\2", page, flags=re.DOTALL)
    html5lib.HTMLParser(strict=True).parse(short)
    with pytest.raises(html5lib.html5parser.ParseError):
        html5lib.HTMLParser(strict=True).parse(short.replace("<h2>Energy</h2>", "<p><h2>Energy</h2></p>"))
