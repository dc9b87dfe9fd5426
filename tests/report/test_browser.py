"""The page in a real browser: nothing fetched, nothing complained about, sorting, colours, scripts off."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from chromium import BINARY, Browser
from digits_network import DigitsNetwork

from qkf_deploy.report.page import write_page
from qkf_deploy.runs.content import stored

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="Chromium is not installed (apt-get install chromium)"),
]

#: WCAG contrast of an element's text and what lies behind it, half-transparent backgrounds blended.
CONTRAST = """
(selector) => {
  const rgba = (text) => {
    const v = text.match(/[\\d.]+/g).map(Number);
    const scale = text.startsWith("color(srgb") ? 255 : 1;
    return [v[0] * scale, v[1] * scale, v[2] * scale, v.length > 3 ? v[3] : 1];
  };
  const backdrop = (element) => {
    if (!element) return [255, 255, 255];
    const [r, g, b, a] = rgba(getComputedStyle(element).backgroundColor);
    if (a === 1) return [r, g, b];
    const below = backdrop(element.parentElement);
    return [r, g, b].map((v, i) => v * a + below[i] * (1 - a));
  };
  const light = (colour) => colour.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  return Array.from(document.querySelectorAll(selector)).map((element) => {
    const a = light(rgba(getComputedStyle(element).color)), b = light(backdrop(element));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}
"""


@pytest.fixture(scope="module")
def page(network: DigitsNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, stored(network.integer_graph, network.run))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    made = Browser()
    yield made
    made.close()


def column(browser: Browser, index: int) -> list[float]:
    rows = "document.querySelectorAll('#layer-table tbody tr')"
    return browser.evaluate(f"Array.from({rows}).map(r => Number(r.cells[{index}].dataset.v))")


def test_loads_alone_and_silently(browser: Browser, page: Path) -> None:
    browser.open(page)
    outside = [url for url in browser.requests() if not url.startswith("data:")]
    assert outside == [page.as_uri()]
    assert browser.complaints() == []
    assert browser.evaluate("document.querySelectorAll('table').length") >= 6
    assert browser.evaluate("Array.from(document.images).every(i => i.complete && i.naturalWidth > 0)")


def test_sorting(browser: Browser, page: Path) -> None:
    browser.open(page)
    heads = browser.evaluate("Array.from(document.querySelectorAll('#layer-table thead th')).map(h => h.textContent)")
    energy = heads.index("energy")
    before = column(browser, energy)
    click = f"document.querySelectorAll('#layer-table thead button')[{energy}].click()"
    browser.evaluate(click)
    assert column(browser, energy) == sorted(before, reverse=True) != before
    browser.evaluate(click)
    assert column(browser, energy) == sorted(before)
    browser.evaluate(click)
    assert column(browser, energy) == before
    assert browser.complaints() == []


def test_blocks_open_and_nodes_lead_to_their_details(browser: Browser, page: Path) -> None:
    """What can be seen of the graph: closed blocks first, every node below its inputs, search, keys, buttons."""
    browser.open(page)
    closed = browser.evaluate("qkfGraph.cy.nodes().map(n => n.id())")
    assert "block:stage1.0" in closed
    assert "stage1.0.tssa.q_conv" not in closed
    browser.evaluate("void qkfGraph.cy.getElementById('block:stage1.0').emit('tap')")
    opened = browser.evaluate("qkfGraph.cy.nodes().map(n => n.id())")
    assert "stage1.0.tssa.q_conv" in opened
    assert "block:stage2.0" in opened
    label = browser.evaluate("qkfGraph.cy.getElementById('stage1.0.tssa.q_conv').data('label')")
    assert re.fullmatch(r"tssa\.q_conv\nconv [\d × ]+\n[\d.]+ [nµ]J", label)
    browser.evaluate("void qkfGraph.cy.getElementById('stage1.0.tssa.q_conv').emit('tap')")
    names = "Array.from(document.querySelectorAll('.nodeinfo[open]')).map(d => d.dataset.node)"
    assert browser.evaluate(names) == ["stage1.0.tssa.q_conv"]
    press(browser, "Open all")
    order = "qkfGraph.cy.edges().every(e => e.source().position('y') < e.target().position('y'))"
    assert browser.evaluate(order)
    inside = "qkfGraph.cy.nodes().filter(n => !n.isParent()).length"
    assert browser.evaluate(inside) == browser.evaluate("document.querySelectorAll('.nodeinfo').length")
    apart = """(() => {
      const boxes = qkfGraph.cy.nodes().filter(n => !n.isParent()).map(n => n.boundingBox({includeLabels: false}));
      const clear = (a, b) => a.x2 <= b.x1 || b.x2 <= a.x1 || a.y2 <= b.y1 || b.y2 <= a.y1;
      return boxes.every((a, i) => boxes.every((b, k) => i >= k || clear(a, b)));
    })()"""
    assert browser.evaluate(apart)
    press(browser, "Close all")
    assert browser.evaluate("qkfGraph.cy.nodes().map(n => n.id())") == closed
    browser.evaluate(
        "(s => { s.value = 'stage3.0.ssa.v_l'; s.dispatchEvent(new Event('input')); })"
        "(document.querySelector('#graph-tools input'))"
    )
    assert browser.evaluate("document.querySelector('#graph-tools [role=status]').textContent") == "1 found"
    assert browser.evaluate("qkfGraph.cy.$('.on').map(n => n.id())") == ["stage3.0.ssa.v_lif"]
    assert browser.evaluate(names) == ["stage3.0.ssa.v_lif"]
    before = browser.evaluate("[qkfGraph.cy.zoom(), qkfGraph.cy.pan().x]")
    for key in ("+", "ArrowRight"):
        browser.evaluate(
            f"document.getElementById('graph-view').dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))"
        )
    after = browser.evaluate("[qkfGraph.cy.zoom(), qkfGraph.cy.pan().x]")
    assert after[0] > before[0]
    assert browser.complaints() == []


def press(browser: Browser, words: str) -> None:
    browser.evaluate(f"Array.from(document.querySelectorAll('button')).find(b => b.textContent === '{words}').click()")


def test_charts_are_drawn_and_can_be_kept(browser: Browser, page: Path) -> None:
    browser.open(page)
    wanted = browser.evaluate("JSON.parse(document.getElementById('chart-data').textContent).map(c => c.id)")
    assert {"by-profile", "by-work", "by-stage", "by-layer", "rates-by-step"} <= set(wanted)
    drawn = "document.querySelector('#chart-{} .chart-svg')"
    for name in wanted:
        assert browser.evaluate(drawn.format(name) + ".getAttribute('aria-label').length") > 5
        assert browser.evaluate(f"document.querySelector('#chart-{name} figcaption').innerText.length") > 20
    bars = browser.evaluate(drawn.format("by-stage") + ".querySelectorAll('rect').length")
    rows = "JSON.parse(document.getElementById('chart-data').textContent).find(c => c.id === 'by-stage').rows"
    assert bars == browser.evaluate(rows + ".length")
    browser.evaluate(
        "URL.createObjectURL = (blob) => { blob.text().then((t) => { globalThis.kept = t; }); return 'data:,'; };"
        "HTMLAnchorElement.prototype.click = function () { globalThis.called = this.download; };"
    )
    for kind in ("CSV", "SVG"):
        browser.evaluate(f"document.querySelector('#chart-by-stage [aria-label$={kind}]').click()")
        kept = browser.call("Runtime.evaluate", expression="new Promise(r => setTimeout(() => r(kept), 50))",
                            awaitPromise=True, returnByValue=True)["result"]["value"]  # fmt: skip
        assert browser.evaluate("called") == f"by-stage.{kind.lower()}"
        if kind == "CSV":
            records = list(csv.DictReader(io.StringIO(kept)))
            assert [float(r["energy_pj"]) for r in records] == browser.evaluate(rows + ".map(r => r.energy_pj)")
        else:
            assert ElementTree.fromstring(kept).tag == "{http://www.w3.org/2000/svg}svg"
            assert "var(--" not in kept
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_readable(browser: Browser, page: Path, scheme: str) -> None:
    browser.media(prefers_color_scheme=scheme)
    browser.open(page)
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    for selector, least in (
        ("p, li, td, th, h1, h2, caption, summary, dd, dt, a", 4.5),
        ("body, #layer-table td", 7.0),
    ):
        ratios = browser.evaluate(f"({CONTRAST})('{selector}')")
        assert len(ratios) > 100
        assert min(ratios) >= least, selector
    browser.media()


def test_readable_with_scripts_off(browser: Browser, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        text = browser.call("Runtime.evaluate", expression="1 + 1", returnByValue=True)  # the protocol still answers
        assert text["result"]["value"] == 2
        assert browser.evaluate("document.querySelectorAll('#layer-table thead button').length") == 0
        shown = browser.evaluate("document.body.innerText")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    for words in ("Verdict", "Assumptions", "stage3.0.ssa.matmul", "spikes per synapse per inference", "Provenance"):
        assert words in shown


def test_prints_without_scroll_boxes(browser: Browser, page: Path) -> None:
    browser.media(media="print")
    browser.open(page)
    assert browser.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.media()


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed (poppler-utils)")
@pytest.mark.parametrize(("width", "height"), [(210, 297), (297, 210), (215.9, 279.4), (279.4, 215.9)])
def test_paper_cuts_nothing(
    browser: Browser, network: DigitsNetwork, tmp_path: Path, width: float, height: float
) -> None:
    """A4 and Letter, upright and across: every word of every table is on the paper, the totals once."""
    run = stored(network.integer_graph, network.run)
    write_page(tmp_path / "page.html", run, beside={"the same again": run})
    browser.open(tmp_path / "page.html")
    printed = browser.call("Page.printToPDF", paperWidth=width / 25.4, paperHeight=height / 25.4)
    (tmp_path / "page.pdf").write_bytes(base64.b64decode(printed["data"]))
    found = subprocess.run(
        ["pdftotext", "-bbox", "page.pdf", "-"], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    words = re.findall(r'<word xMin="([-\d.]+)"[^>]*xMax="([\d.]+)"[^>]*>(.*?)</word>', found.decode())
    limit = width / 25.4 * 72
    assert [text for low, high, text in words if float(low) < 0 or float(high) > limit] == []
    there = Counter(html.unescape(text) for _, _, text in words)
    wanted = browser.evaluate("Array.from(document.querySelectorAll('td, tfoot th')).map(c => c.innerText)")
    missing = Counter(word for cell in wanted for word in cell.split() if re.fullmatch(r"[-+]?[\d.,]+", word)) - there
    assert missing == {}
    heads = browser.evaluate("Array.from(document.querySelectorAll('thead th')).map(c => c.innerText)")
    parts = {part for head in heads for word in head.split() for part in re.findall(r"[^-]+-?|-", word)}
    broken = {part for text in there for part in re.findall(r"[^-]+-?|-", text)}  # lines break after a hyphen
    assert parts - broken == set()
    feet = browser.evaluate("Array.from(document.querySelectorAll('tfoot')).length")
    assert there["total"] == feet


@pytest.mark.slow
def test_the_page_of_an_imagenet_network_is_small_and_quick(browser: Browser, tmp_path: Path) -> None:
    """HST-10-384 at 224 x 224: under 2 MB, loaded in under 2 s (the better of two, other tests may be running)."""
    import numpy as np
    import torch

    from qkf_deploy import api
    from qkf_deploy.models.builds import build
    from qkf_deploy.runs.gates import gate_nodes

    torch.manual_seed(0)
    model = build("qkformer-10-384", time_steps=1)
    graph = api.quantize(api.trace(model, image_size=224, time_steps=1, in_channels=3, preset="imagenet"), 8)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 224, 224), dtype=np.uint8)
    run = api.simulate(graph, image, record=gate_nodes(graph))
    path = tmp_path / "hst.html"
    write_page(path, stored(graph, run))
    assert path.stat().st_size < 2_000_000
    loaded = []
    for _ in range(2):
        browser.open(path)
        loaded.append(browser.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert 0 < min(loaded) < 2000, loaded
    assert browser.complaints() == []
    assert browser.evaluate("document.querySelectorAll('.nodeinfo').length") == len(graph.nodes)
    press(browser, "Open all")
    assert browser.evaluate("qkfGraph.cy.nodes().filter(n => !n.isParent()).length") == len(graph.nodes)
