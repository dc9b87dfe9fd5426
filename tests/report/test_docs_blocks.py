"""The tables in the documentation are what the commands print today."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_blocks import DOCS, PAGES, blocks, output, prepare

from qkf_deploy.hw_models import profile_names
from qkf_deploy.hw_models.quantities import QUANTITIES
from qkf_deploy.ir import Graph


@pytest.fixture(scope="module")
def folder(digits_int8: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("docs")
    prepare(path, digits_int8)
    return path


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_current(page: str, folder: Path) -> None:
    found = list(blocks(DOCS / page))
    assert found, "a page without a single output"
    for line, text in found:
        assert output(folder, line) == text, f"run tests/report/docs_blocks.py: {line}"


def test_every_profile_and_quantity_is_documented() -> None:
    text = (DOCS / "profiles.md").read_text()
    assert [name for name in profile_names() if name not in text] == []
    assert [name for name in QUANTITIES if name not in text] == []
