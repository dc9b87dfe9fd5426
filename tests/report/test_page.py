"""The page as a file: complete, self-contained, escaped, deterministic."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import pytest
from digits_network import DigitsNetwork

from qkf_deploy.display.numbers import joules
from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.pricing import price
from qkf_deploy.report.drawing import draw
from qkf_deploy.report.page import DEFAULT_PROFILES, render_page, write_page
from qkf_deploy.report.stages import stage_of, stage_sheet
from qkf_deploy.runs.content import RunFile, stored


@pytest.fixture(scope="module")
def run(network: DigitsNetwork) -> RunFile:
    return stored(network.integer_graph, network.run)


class Outline(HTMLParser):
    """Tags, ids, captions and addresses of a page; fails on tags that do not match."""

    VOID = frozenset({"meta", "img", "rect", "line", "path", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        self.addresses += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_structure(run: RunFile) -> None:
    page = render_page(run)
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.tags.count("table") == outline.tags.count("caption")
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in outline.addresses)
    assert {a[1:] for a in outline.addresses if a.startswith("#")} <= set(outline.ids)
    assert "default-src 'none'" in page
    assert len(outline.tags) > 2000


def test_verdict_and_assumptions_come_first(run: RunFile) -> None:
    page = render_page(run)
    order = [page.index(f'id="{name}"') for name in ("verdict", "layers", "energy", "rates", "network", "provenance")]
    assert order == sorted(order)
    for profile in DEFAULT_PROFILES:
        assert profile in page


def test_layer_table_has_every_digit_of_the_energies(run: RunFile) -> None:
    from qkf_deploy.hw_models import price

    report, page = price(run.ledger, DEFAULT_PROFILES[0]), render_page(run)
    for row in report.layers:
        if row.energy_pj:
            assert f'data-v="{float(Fraction(row.energy_pj) / report.images)!r}"' in page


def test_the_same_run_gives_the_same_page(run: RunFile, tmp_path: Path) -> None:
    write_page(tmp_path / "a.html", run)
    assert (tmp_path / "a.html").read_text() == render_page(run)


def test_hostile_names_are_escaped(network: DigitsNetwork) -> None:
    evil = '<script>alert("x")</script>'
    run = stored(network.integer_graph, network.run)
    first, *others = run.graph["nodes"]
    graph = {**run.graph, "nodes": [{**first, "attributes": {evil: evil}}, *others]}
    page = render_page(replace(run, provenance={"source": evil, evil: evil}, notices=(evil,), graph=graph))
    assert evil not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;" in page


def test_float_runs_and_runs_without_gates(network: DigitsNetwork) -> None:
    page = render_page(replace(stored(network.integer_graph, network.run), widths=(), gates=()))
    assert 'id="widths"' not in page
    assert 'id="gates"' not in page
    assert 'href="#gates"' not in page


def test_no_profile_is_an_error(run: RunFile) -> None:
    with pytest.raises(UsageError, match="at least one profile"):
        render_page(run, [])


def test_drawing_puts_every_node_below_its_inputs(run: RunFile) -> None:
    nodes = run.graph["nodes"]
    drawing = draw(nodes)
    places = {n.name: n for n in drawing.nodes}
    assert len(places) == len(nodes)
    for node in nodes:
        for source in node["inputs"]:
            assert places[source].y < places[node["name"]].y
    for a in drawing.nodes:
        assert a.x >= 0
        assert a.x + a.width <= drawing.width
        for b in drawing.nodes:
            assert a is b or a.y != b.y or a.x + a.width <= b.x or b.x + b.width <= a.x
    assert len(drawing.edges) == sum(len(set(n["inputs"])) for n in nodes)
    assert all(re.fullmatch(r"[MC\d. -]+", path) for path in drawing.edges)


def test_begins_with_what_is_quoted(run: RunFile) -> None:
    page = render_page(run)
    report = price(run.ledger, DEFAULT_PROFILES[0])
    lead = re.search(r'<p class="lead">(.*?)</p>', page, re.DOTALL).group(1)  # type: ignore[union-attr]
    assert "The 8-bit integer network with T = 4" in lead
    assert joules(report.mean_energy_pj) in lead
    assert f"{joules(price(run.ledger, 'horowitz45-sram').mean_energy_pj)} with memory under horowitz45-sram" in lead


def test_other_runs_stand_beside(run: RunFile) -> None:
    page = render_page(run, beside={"the same again": run})
    section = re.search(r'<section id="compared">(.*?)</section>', page, re.DOTALL).group(1)  # type: ignore[union-attr]
    assert section.count("the same again") >= 2
    assert '<section id="compared">' not in render_page(run)


@pytest.mark.parametrize(
    ("layer", "stage"),
    [("stage1.0.tssa.q_conv", "stage1"), ("block.3.attn.q_conv", "block.3"), ("head", "head"), ("conv1", "conv1")],
)
def test_stages_are_the_modules(layer: str, stage: str) -> None:
    assert stage_of(layer) == stage


def test_stages_add_up(run: RunFile) -> None:
    report = price(run.ledger, "exact-fp32")
    rows = stage_sheet(report).records()
    assert [row["stage"] for row in rows][:2] == ["patch_embed1", "stage1"]
    assert sum(row["energy_pj"] for row in rows) == report.mean_energy_pj
    assert sum(row["share"] for row in rows) == 1
