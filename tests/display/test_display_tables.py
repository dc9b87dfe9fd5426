"""Tables as text, HTML and data frames: what is shown, what is escaped, what stays exact."""

from __future__ import annotations

import html.parser
import sys
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

import pytest

from qkf_deploy.display import Column, Field, Sheet, tabulate, to_html, to_text
from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import decimals, plain, quantity, ratio, unless_zero
from qkf_deploy.display.tables import printable, summed
from qkf_deploy.errors import MissingComponent

HOSTILE = '<img src=x onerror="alert(1)">\x1b[2J\r\n\u202e& \ud800'


@dataclass(frozen=True)
class Fruit:
    name: str
    weight: Fraction | None
    count: int


FIELDS: tuple[Field[Fruit], ...] = (
    Field("name", "fruit", lambda f: f.name, left=True),
    Field("weight_g", "weight", lambda f: f.weight, ratio),
    summed("count", "count", lambda f: f.count),
)
FRUIT = (Fruit("fig", Fraction(100, 3), 1200), Fruit("", None, 0), Fruit("日本梨", Fraction(1, 3), 34))


def test_a_table_is_declared_once() -> None:
    sheet = tabulate("fruit", FIELDS, FRUIT)
    assert sheet.columns == (Column("name", "fruit", True), Column("weight_g", "weight"), Column("count", "count"))
    assert sheet.rows == (("fig", Fraction(100, 3), 1200), ("", None, 0), ("日本梨", Fraction(1, 3), 34))
    assert sheet.shown == (("fig", "33.3", "1,200"), ("", "", "0"), ("日本梨", "0.333", "34"))
    assert sheet.footer == ("total", "", "1,234")


def test_totals_may_be_of_more_rows_than_are_shown() -> None:
    assert tabulate("", FIELDS, FRUIT[:1], FRUIT).footer == ("total", "", "1,234")
    assert tabulate("", FIELDS[:2], FRUIT).footer is None


def test_a_total_may_be_a_text_of_its_own() -> None:
    name, weight, count = FIELDS
    label = replace(name, total=lambda rows: f"of {len(rows)}")
    nothing = Field[Fruit]("none", "none", lambda f: f.count, unless_zero(plain), total=lambda rows: "0 in all")
    assert tabulate("", (label, weight, count, nothing), FRUIT).footer == ("of 3", "", "1,234", "0 in all")


def test_text_by_hand() -> None:
    assert to_text(tabulate("fruit", FIELDS, FRUIT)).splitlines() == [
        "fruit",
        "",
        "  fruit    weight   count",
        " ─────────────────────────",
        "  fig        33.3   1,200",
        "                        0",
        "  日本梨    0.333      34",
        "",
        "  total             1,234",
        "",
    ]


def test_a_table_without_rows_or_columns() -> None:
    assert to_text(tabulate("", FIELDS[:2], [])) == "\n\n  fruit   weight\n ────────────────\n\n"
    assert to_text(Sheet("none", (), ())) == "none\n\n\n \n\n"
    assert "<tbody>\n</tbody>" in to_html(Sheet("none", (), ()))


def test_control_characters_never_reach_a_terminal() -> None:
    text = to_text(Sheet(HOSTILE, (Column("a", HOSTILE),), ((HOSTILE,),)))
    assert printable(HOSTILE) == '<img src=x onerror="alert(1)">\ufffd[2J  \ufffd& \ufffd'
    assert len(text.splitlines()) == 6
    assert text.replace("\n", "").isprintable()
    text.encode()


class Tags(html.parser.HTMLParser):
    """Every tag, attribute and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_escaped_and_balanced() -> None:
    sheet = Sheet(HOSTILE, (Column("a", HOSTILE, True),), ((HOSTILE,), ("</table>",)), None, (HOSTILE,))
    page = Tags(to_html(sheet))
    assert page.open == []
    assert set(page.tags) == {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
    assert page.attributes == {"style"}
    assert page.text.count(printable(HOSTILE)) == 4
    assert "</table>" in page.text


def test_cells_as_they_are() -> None:
    assert [plain(v) for v in (None, 1234567, True, "x", Decimal("0.10"), 2.5)] == [
        "", "1,234,567", "True", "x", "0.10", "2.5",
    ]  # fmt: skip
    assert [quantity(n, "node") for n in (0, 1, 10_000)] == ["0 nodes", "1 node", "10,000 nodes"]


def test_numbers_as_they_are_shown() -> None:
    assert [decimals(2)(v) for v in (None, 0, Fraction(2, 3), Decimal("12.345678"), ".5")] == [
        "", "0.00", "0.67", "12.35", "0.50",
    ]  # fmt: skip
    assert [unless_zero(plain)(v) for v in (0, 0.0, Fraction(0), 1234)] == ["", "", "", "1,234"]


def test_a_frame_keeps_integers_and_says_what_is_missing() -> None:
    pd = pytest.importorskip("pandas")
    rows = [
        {"n": 2**63 - 1, "some": 1, "huge": 2**63, "x": Fraction(1, 3), "pj": Decimal("0.1"), "s": "a", "flag": True},
        {"n": -(2**62) - 1, "huge": 1, "x": 2, "s": "", "flag": False},
    ]
    names = ["n", "some", "huge", "x", "pj", "s", "flag", "nothing"]
    frame = data_frame(rows, names, images=3)
    assert list(frame.columns) == names
    assert frame.attrs == {"images": 3}
    assert frame["n"].dtype == "int64"
    assert frame["n"].tolist() == [2**63 - 1, -(2**62) - 1]
    assert frame["some"].dtype == "Int64"
    assert frame["some"][1] is pd.NA
    assert frame["huge"].tolist() == [2**63, 1]
    assert frame["x"].tolist() == [1 / 3, 2.0]
    assert frame["pj"][0] == 0.1
    assert frame["pj"].isna().tolist() == [False, True]
    assert frame["s"].tolist() == ["a", ""]
    assert frame["flag"].tolist() == [True, False]
    assert frame["nothing"].isna().all()


def test_a_frame_without_rows_has_its_columns() -> None:
    pytest.importorskip("pandas")
    assert list(data_frame([], ["a", "b"]).columns) == ["a", "b"]


def test_missing_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingComponent, match="pandas is not installed") as caught:
        data_frame([], [])
    assert caught.value.hint == "pip install 'qkf-deploy[notebook]'"
