"""The documentation as a site: builds without a warning, every page has a place, links and anchors lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def build():
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'qkf-deploy[docs]'")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install 'qkf-deploy[docs]'")

    def run(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)]
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return run


def test_builds_without_warnings(build, tmp_path: Path) -> None:
    done = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    modules = (tmp_path / "site" / "modules" / "index.html").read_text()
    assert "decay_multiplier" in modules, "docstrings are not on the page"
    assert (tmp_path / "site" / "tutorials" / "nir" / "index.html").is_file()


def test_a_dead_link_stops_the_build(build, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "README.md").write_text("# A\n\n[b](b.md) [c](#nowhere)\n")
    config = (ROOT / "mkdocs.yml").read_text().split("nav:\n  -")[0]
    (tmp_path / "mkdocs.yml").write_text(re.sub(r"docs_dir: docs", f"docs_dir: {docs}", config))
    assert build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode != 0
