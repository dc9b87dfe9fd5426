"""Blocks of the documentation that commands made: ``python tests/report/docs_blocks.py`` writes them again.

A block stands between ``<!-- made by: qkf-deploy ... -->`` and ``<!-- end -->``. Commands run in a folder that holds
``net.int.qkf`` (the 8-bit digits network), ``images.npz`` (its first 20 held-out images), ``run.sqlite`` (their run).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qkf_deploy import api
from qkf_deploy.cli import run as command
from qkf_deploy.datasets.digits import load_digits
from qkf_deploy.ir import Graph
from qkf_deploy.runs.file import write_run
from qkf_deploy.runs.gates import gate_nodes

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("energy.md", "profiles.md", "mapping.md", "report.md", "paper-check.md", "evaluate.md")
CHECKPOINT = Path(__file__).parents[2] / "qkf_deploy" / "models" / "qkformer_digits.safetensors"
_BLOCK = re.compile(r"(<!-- made by: qkf-deploy (?P<command>.*?) -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL)


def prepare(folder: Path, graph: Graph) -> None:
    """Fill a folder with what the documented commands read."""
    data = load_digits()
    images, labels = data.test_images[:20], data.test_labels[:20]
    api.save(graph, folder / "net.int.qkf")
    np.savez(folder / "images.npz", images=images, labels=labels)
    write_run(folder / "run.sqlite", graph, api.simulate(graph, images, engine="reference", record=gate_nodes(graph)))


def output(folder: Path, line: str) -> str:
    """What a command prints, as it stands in the page."""
    stdout = io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(io.StringIO()):
            code = command(shlex.split(line))
    finally:
        os.chdir(before)
    if code != 0:
        raise RuntimeError(f"qkf-deploy {line} ended with {code}")
    text = stdout.getvalue().strip("\n")
    return f"{text}\n" if "--format md" in line else f"```\n{text}\n```\n"


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(command, text) of every block of a page."""
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield found["command"], found["text"]


def rewrite(page: Path, folder: Path) -> None:
    """Make every block of a page again."""
    text = page.read_text(encoding="utf-8")
    made = _BLOCK.sub(lambda m: m[1] + output(folder, m["command"]) + m[4], text)
    page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place), api.quantize(api.trace(CHECKPOINT), 8))
        for name in PAGES:
            rewrite(DOCS / name, Path(place))
