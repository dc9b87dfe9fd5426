"""The documentation: links lead somewhere, the ledger page lists every class, the graph built by hand builds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qkf_deploy.ledger import COUNT_CLASSES
from qkf_deploy.ops import OPERATORS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    assert [p.name for p in PAGES if p.name != "README.md" and f"({p.name})" not in index] == []


def test_the_ledger_page_lists_every_class() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", (DOCS / "ledger.md").read_text(), re.MULTILINE))
    assert listed == dict(COUNT_CLASSES)


def test_the_graph_page_lists_every_operator() -> None:
    table = (DOCS / "graph.md").read_text().split("## Operators")[1].split("## Views")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(OPERATORS)


def test_the_graph_built_by_hand() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "graph.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["graph"].time_steps == 4
    assert [n.name for n in names["graph"]] == ["input", "conv", "lif", "readout", "output"]
