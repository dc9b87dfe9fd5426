"""Every block of code in the documentation runs, or says that it does not; its commands have the options they use."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click
import docs_code
import pytest
from docs_code import GENERATED, PAGES, code, execute, inside, names, prepare

from qkf_deploy.cli import group
from qkf_deploy.ir import Graph

WRITTEN = [page for page in PAGES if page.name not in GENERATED]
RUNNING = [page for page in WRITTEN if any(block.runs for block in code(page))]
NOTEBOOKS = sorted((docs_code.ROOT / "examples" / "notebooks").glob("*.ipynb"))


@pytest.fixture
def folder(digits_float: Graph, digits_int8: Graph, tmp_path: Path) -> Path:
    prepare(tmp_path, digits_float, digits_int8)
    return tmp_path


@pytest.mark.parametrize("page", RUNNING, ids=lambda p: p.stem)
def test_code_runs(page: Path, folder: Path) -> None:
    assert execute(page, folder) == [], "run tests/docs_code.py on the page"


def test_tutorials_run() -> None:
    """Nothing of a tutorial is left out, but what is a test elsewhere."""
    tutorials = [page for page in WRITTEN if page.parent.name == "tutorials"]
    assert len(tutorials) == 3
    assert all(sum(not block.runs for block in code(page)) <= 1 for page in tutorials)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.stem)
def test_commands_have_the_options_they_use(page: Path) -> None:
    """Every `qkf-deploy` line parses, also where it is not run."""
    problems = []
    for block in code(page):
        for line, _ in block.commands:
            words = [word for word in shlex.split(line.replace("...", "x"))[1:] if word != "…"]
            try:
                parse(words)
            except click.UsageError as error:
                problems.append(f"{page.name}:{block.line}: {line}: {error.format_message()}")
    assert problems == []


def parse(words: list[str]) -> None:
    if not words or words[0].startswith("-"):
        return
    command = group.get_command(click.Context(group), words[0])
    if command is None:
        raise click.UsageError(f"no command {words[0]}")
    given = [word for word in words[1:] if word not in ("--help", "-h")]
    if len(given) == len(words) - 1:
        command.make_context(words[0], given)


def test_a_wrong_option_is_found() -> None:
    with pytest.raises(click.UsageError):
        parse(["quantize", "net.qkf", "--bit", "8", "-o", "x.qkf"])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_run(notebook: Path, folder: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    space = names()
    with inside(folder):
        for cell in cells:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), space)
    assert any(cell["cell_type"] == "code" for cell in cells)
    assert all(not cell.get("outputs") for cell in cells), "notebooks are kept without outputs"
