"""Where in a model something is: paths of its modules, lines of its own code; and what that code raised."""

from __future__ import annotations

import re

import torch


def named_modules(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules by path; characters that cannot be printed or written to a file are escaped, as in the graph's names."""
    return {escaped(path): module for path, module in model.named_modules()}


def escaped(path: str) -> str:
    """A path whose every character can be printed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path)


def place_of(model: torch.nn.Module, error: BaseException) -> str | None:
    """``module path (file:line)`` of the last frame in the model's own code."""
    paths = {id(module): path for path, module in named_modules(model).items()}
    place, path = None, ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        path = paths.get(id(trace.tb_frame.f_locals.get("self")), path)
        if not is_library(code.co_filename):
            place = f"{path or '<model>'} ({basename(code.co_filename)}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


def raised(error: BaseException) -> str:
    """What the user's own code raised: its type, and its text in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def is_library(filename: str) -> bool:
    """True for a file of Python, of what is installed, or of the tracer."""
    return bool(
        re.search(
            r"[/\\](site-packages|dist-packages|lib[/\\]python[^/\\]*)[/\\]|qkf_deploy[/\\]converters|^<", filename
        )
    )


def basename(filename: str) -> str:
    """Name of a file, of whichever system."""
    return re.split(r"[/\\]", filename)[-1]
