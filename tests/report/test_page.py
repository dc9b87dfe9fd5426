"""The page as a file: complete, self-contained, escaped, deterministic."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from digits_network import DigitsNetwork

from qkf_deploy.display.numbers import joules
from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.pricing import price
from qkf_deploy.report.graph import network
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
    assert page.count("<script") == render_page(run).count("<script")
    assert "&lt;script&gt;" in page


def test_float_runs_and_runs_without_gates(network: DigitsNetwork) -> None:
    page = render_page(replace(stored(network.integer_graph, network.run), widths=(), gates=()))
    assert 'id="widths"' not in page
    assert 'id="gates"' not in page
    assert 'href="#gates"' not in page


def test_no_profile_is_an_error(run: RunFile) -> None:
    with pytest.raises(UsageError, match="at least one profile"):
        render_page(run, [])


def test_graph_has_every_node_edge_and_number(run: RunFile) -> None:
    nodes, report = run.graph["nodes"], price(run.ledger, DEFAULT_PROFILES[0])
    data = network(run, report)
    assert [n["name"] for n in data["nodes"]] == [n["name"] for n in nodes]
    names = [n["name"] for n in nodes]
    assert {(names[a], names[b]) for a, b in data["edges"]} == {(i, n["name"]) for n in nodes for i in n["inputs"]}
    blocks = {n["name"]: n["block"] for n in data["nodes"]}
    assert blocks["stage1.0.tssa.q_conv"] == "stage1.0"
    assert blocks["patch_embed1.proj_conv"] == "patch_embed1"
    assert blocks["head"] == ""
    assert set(blocks.values()) - {""} == set(data["blocks"])
    by_name = {n["name"]: n["lines"] for n in data["nodes"]}
    layer = next(r for r in report.layers if r.layer == "stage1.0.tssa.q_conv")
    assert by_name["stage1.0.tssa.q_conv"] == [
        "conv " + " × ".join(map(str, nodes[names.index("stage1.0.tssa.q_conv")]["shape"])),
        joules(Fraction(layer.energy_pj) / report.images),
    ]
    neuron = run.ledger["stage1.0.tssa.q_lif"]
    spikes = Fraction(int(neuron.spikes_per_step.sum()), neuron.output_size * 4 * run.ledger.images)  # type: ignore[union-attr]
    assert by_name["stage1.0.tssa.q_lif"][-1] == f"rate {float(spikes):.4f}"


def test_charts_show_the_numbers_of_the_tables(run: RunFile) -> None:
    data = {chart["id"]: chart for chart in chart_data(render_page(run, beside={"the same again": run}))}
    report = price(run.ledger, DEFAULT_PROFILES[0])
    for name in ("by-stage", "by-layer"):
        total = sum(row["energy_pj"] for row in data[name]["rows"])
        assert total == pytest.approx(float(report.mean_energy_pj), rel=1e-12)
    profiles = {row["profile"] for row in data["by-profile"]["rows"]}
    assert profiles == set(DEFAULT_PROFILES)
    steps = [row for row in data["rates-by-step"]["rows"] if row["stage"] == "stage1"]
    assert [row["step"] for row in steps] == [0, 1, 2, 3]
    neurons = [r for r in run.ledger if "resets" in r.counts and stage_of(r.name) == "stage1"]
    spikes = sum(int(r.spikes_per_step[2].sum()) for r in neurons if r.spikes_per_step is not None)
    size = sum(r.output_size for r in neurons) * run.ledger.images
    assert steps[2]["firing_rate"] == spikes / size
    assert "confusion" not in data  # no labels
    assert "accuracy-over-energy" not in data


def test_answers_by_class(run: RunFile) -> None:
    labelled = replace(run, labels=tuple(i % 3 for i in range(len(run.labels))))
    chart = next(c for c in chart_data(render_page(labelled)) if c["id"] == "confusion")
    pairs = Counter(zip(labelled.labels, labelled.predictions, strict=True))
    name = (lambda c: run.class_names[c]) if run.class_names else str
    assert {(r["label"], r["answer"]): r["samples"] for r in chart["rows"] if r["samples"]} == {
        (name(label), name(answer)): count for (label, answer), count in pairs.items()
    }


def chart_data(page: str) -> list[dict[str, Any]]:
    """What the charts of a page are drawn from."""
    found = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


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
