"""Writes docs/api.md from the functions themselves: `python tools/api_reference.py`. A test keeps it current."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from qkf_deploy import api

DOCS = Path(__file__).parents[1] / "docs" / "api.md"
_INTRODUCTION = """# Python functions

Made by `python tools/api_reference.py` from the functions themselves; a test keeps it current.

`import qkf_deploy as qd` imports nothing else until one of these is used. Commands of the
[command line](cli.md) call the same functions, and its options are the same keyword arguments. A keyword that does not
exist is a `KeywordError` (a `TypeError` too) that names the nearest. Every error a user can cause is a `QkfError`, with
the place and the next step.
"""
_WIDTH = 96


def reference() -> str:
    """The whole page."""
    names = sorted(api.__all__, key=lambda name: (not inspect.isfunction(getattr(api, name)), name))
    return "\n".join([_INTRODUCTION, *(_section(name, getattr(api, name)) for name in names)])


def _section(name: str, thing: Any) -> str:
    text = inspect.cleandoc(thing.__doc__ or "")
    heading = f"## `{name}`\n\n" + (
        f"```python\n{_signature(name, thing)}\n```\n\n" if inspect.isfunction(thing) else ""
    )
    return heading + _markdown(text) + "\n"


def _signature(name: str, function: Any) -> str:
    """One line, or a line per argument where it is long."""
    signature = inspect.signature(function)
    arguments: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in arguments:
            arguments.append("*")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        arguments.append(f"{parameter.name}: {_type(parameter.annotation)}{default}")
    result = f" -> {_type(signature.return_annotation)}"
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) <= _WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){result}"


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text).replace("NoneType", "None")


def _markdown(text: str) -> str:
    """A docstring as Markdown: its sections as lists."""
    text = re.sub(r":\w+:`(?:qkf_deploy\.)?([\w.]+)`", r"`\1`", text).replace("``", "`")
    out: list[str] = []
    for block in text.split("\n\n"):
        head, _, body = block.partition(":\n")
        if head not in ("Args", "Returns", "Raises", "Attributes"):
            out.append(block)
            continue
        items = re.sub(r"\n        +", " ", "\n" + body).strip("\n").splitlines()
        lines = (re.sub(r"^    ([\w, ]+): ", r"- `\1`: ", item) for item in items)
        bullets = (line if line.startswith("- ") else f"- {line.strip()}" for line in lines)
        out.append(f"{head}:\n\n" + "\n".join(bullets))
    return "\n\n".join(out) + "\n"


if __name__ == "__main__":
    DOCS.write_text(reference())
