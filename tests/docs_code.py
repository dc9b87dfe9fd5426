"""Code in the documentation: what is executed, what says that it is not, and why.

A block is code if its fence says ``python`` or ``console``, or if a line of it starts as a command does. Above code
that is not executed stands ``<!-- not run: why -->``. The rest runs page by page, in a folder with what the demo writes
(``digits.qkf``, ``digits.int.qkf``, ``held_out.npz``), the same as ``net.qkf``, ``net.int.qkf`` and
``images.npz``, and ``checkpoint.pth``. Python blocks of a page share their names; in a console block the lines behind
``$ qkf-deploy ...`` are what the command prints, ``...`` standing for lines left out at the end.

``python tests/docs_code.py PAGE...`` writes the output of console blocks again.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.datasets.digits import load_digits
from qkf_deploy.ir import Graph

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]
#: Pages that are generated, with tests of their own.
GENERATED = ("cli.md", "api.md")
CHECKPOINT = ROOT / "qkf_deploy" / "models" / "qkformer_digits.safetensors"
IMAGES = 4
_NOT_RUN = re.compile(r"<!-- not run: .{4,} -->")
_MADE = re.compile(r"<!-- made by")
_STARTS = re.compile(
    r"(\$ )?((qkf-deploy|pip|python3?(\.\d+)?|make|cd|torchrun|dask|sqlite3|git|apt-get|import|from|QKF_\w+=\S*) |\./)"
)


def _joined(found: re.Match[str]) -> str:
    return found[1] + ("\n" if found[0].endswith("&& ") else " ")


@dataclass(frozen=True)
class Block:
    """Code of a page.

    Attributes:
        line: of its first line, from 1.
        language: of the fence, or ``indented``.
        lines: without fence and indentation.
        runs: it is not marked as not run.
    """

    line: int
    language: str
    lines: tuple[str, ...]
    runs: bool

    @property
    def commands(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each ``qkf-deploy`` command with the lines below it; continued lines are joined, comments cut off."""
        text, before = "\n".join(self.lines), ""
        while text != before:
            before, text = text, re.sub(r"^(.*qkf-deploy .*?) *(?:\\\n *| && )", _joined, text, flags=re.MULTILINE)
        found = re.split(r"^(?:\$ )?(?:[A-Z_]+=\S+ )?(qkf-deploy .*)$", text, flags=re.MULTILINE)
        for line, below in zip(found[1::2], found[2::2], strict=True):
            yield re.split(r" +(?:#|> \S)", line)[0], tuple(below.strip("\n").splitlines())


def code(page: Path) -> list[Block]:
    """The code of a page, in order."""
    lines, found, at = page.read_text(encoding="utf-8").splitlines(), [], 0
    while at < len(lines):
        fence = re.fullmatch(r"( *)`{3,}(\w*)[^`]*", lines[at])
        indented = lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip())
        if not fence and not indented:
            at += 1
            continue
        above = next((line for line in reversed(lines[:at]) if line.strip()), "")
        start = at + 1 if fence else at
        end = start
        if fence:
            while not lines[end].startswith(f"{fence[1]}```"):
                end += 1
        else:
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
        body = tuple(line.removeprefix(fence[1] if fence else "    ") for line in lines[start:end])
        language = fence[2] if fence else "indented"
        if language in ("python", "console") or any(_STARTS.match(line) for line in body):
            marked = bool(_NOT_RUN.fullmatch(above.strip()) or _MADE.match(above))
            found.append(Block(start + 1, language, tuple("\n".join(body).rstrip().split("\n")), not marked))
        at = end + bool(fence)
    return found


def prepare(folder: Path, traced: Graph, integer: Graph) -> None:
    """Fill a folder with what executed blocks read."""
    data = load_digits()
    graph = qd.fold(traced)
    for name in ("net", "digits"):
        qd.save(graph, folder / f"{name}.qkf")
        qd.save(integer, folder / f"{name}.int.qkf")
    for name in ("images.npz", "held_out.npz"):
        np.savez(folder / name, images=data.test_images[:IMAGES], labels=data.test_labels[:IMAGES])
    for name in ("checkpoint.pth", CHECKPOINT.name):
        (folder / name).write_bytes(CHECKPOINT.read_bytes())


def names() -> dict[str, object]:
    """What Python blocks may use without saying where it comes from."""
    data = load_digits()
    return {"images": data.test_images[:IMAGES], "labels": data.test_labels[:IMAGES]}


def printed(line: str) -> list[str]:
    """What a command prints on 80 columns.

    Raises:
        RuntimeError: it does not end with 0.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command(shlex.split(line)[1:])
    if code:
        raise RuntimeError(f"{line} ended with {code}: {err.getvalue()[-300:]}")
    return [text.rstrip() for text in out.getvalue().strip("\n").splitlines()]


def execute(page: Path, folder: Path) -> list[str]:
    """Run the code of a page in a folder; what does not fit, by line."""
    space, problems = names(), []
    for block in code(page):
        if not block.runs:
            continue
        if block.language == "python":
            with inside(folder), contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n" * (block.line - 1) + "\n".join(block.lines), str(page), "exec"), space)
            continue
        for line, said in block.commands:
            with inside(folder):
                found = printed(line)
            short = said[: said.index("...")] if "..." in said else said
            if said and list(short) != (found[: len(short)] if "..." in said else found):
                problems.append(f"{page.name}:{block.line}: {line} prints\n" + "\n".join(found))
    return problems


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def rewrite(page: Path, folder: Path) -> None:
    """Put what commands print into the console blocks of a page."""
    text = page.read_text(encoding="utf-8")
    space = names()
    for block in code(page):
        if block.runs and block.language == "python":
            with inside(folder):
                exec("\n".join(block.lines), space)
        if block.runs and block.language == "console":
            new = []
            for line, said in block.commands:
                with inside(folder):
                    found = printed(line)
                cut = len(said) - 1 if "..." in said else len(found)
                new += [f"$ {line}", *found[:cut], *(["..."] if "..." in said else [])]
            text = text.replace("\n".join(block.lines), "\n".join(new))
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    traced = qd.trace(CHECKPOINT)
    for argument in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as place:
            prepare(Path(place), traced, qd.quantize(traced, 8))
            rewrite(Path(argument).resolve(), Path(place))
