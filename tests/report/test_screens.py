"""The page at the widths of a desk, a tablet and a telephone, light and dark: nothing cut, nothing too small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import BINARY, Browser
from digits_network import DigitsNetwork

from qkf_deploy.report.page import write_page
from qkf_deploy.runs.content import stored

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BINARY is None, reason="Chromium is not installed (apt-get install chromium)"),
]

#: Elements that reach beyond the screen, but for those in boxes that scroll.
OUTSIDE = """Array.from(document.querySelectorAll('main *, header *')).filter(e => {
  const b = e.getBoundingClientRect();
  return (b.right > innerWidth + 1 || b.left < -1) && !e.closest('.scroll, .box');
}).map(e => e.outerHTML.slice(0, 80))"""
#: Text of charts beyond their edge.
CUT = """Array.from(document.querySelectorAll('.chart-svg')).flatMap(s => {
  const room = s.getBoundingClientRect();
  const outside = (b) => b.left < room.left - 1 || b.right > room.right + 1 || b.top < room.top - 2
    || b.bottom > room.bottom + 2;
  return Array.from(s.querySelectorAll('text'))
    .filter(t => t.textContent && outside(t.getBoundingClientRect()))
    .map(t => s.getAttribute('aria-label') + ': ' + t.textContent);
})"""
SIZES = "Array.from(document.querySelectorAll('.chart-svg text')).map(t => parseFloat(getComputedStyle(t).fontSize))"
#: How many labels the curve has, and whether none lies on another.
LABELS = """(() => {
  const boxes = Array.from(document.querySelectorAll('#chart-accuracy-over-energy .apart text'))
    .map(t => t.getBoundingClientRect());
  const clear = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 3 || b.bottom <= a.top + 3;
  return [boxes.length, boxes.every((a, i) => boxes.every((b, k) => i >= k || clear(a, b)))];
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    made = Browser()
    yield made
    made.close()


@pytest.fixture(scope="module")
def page(network: DigitsNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with labels beside two others that lie on it."""
    run = stored(network.integer_graph, network.run)
    run = replace(run, labels=tuple((p or 0) if i % 3 else 0 for i, p in enumerate(run.predictions)))
    path = tmp_path_factory.mktemp("screens") / "page.html"
    write_page(path, run, beside={"the same again": run, "once more": run})
    return path


@pytest.mark.parametrize("width", [1400, 800, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.media(prefers_color_scheme=scheme)
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.open(page)
    browser.evaluate("document.querySelectorAll('section').forEach(s => { s.style.contentVisibility = 'visible'; })")
    assert browser.evaluate(OUTSIDE) == []
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.evaluate(CUT) == []
    assert min(browser.evaluate(SIZES)) >= 10
    assert browser.evaluate(LABELS) == [3, True]
    assert browser.complaints() == []
