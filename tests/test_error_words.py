"""What users are told of a file that a library refused: its reason, or plain words, never names of Python's types."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import qkf_deploy
from qkf_deploy.errors import InputError, told

#: Texts about the user's own Python code say what it raised; a bug says what it is; the rest is not shown.
NAMES_TYPES = {
    "cli/__init__.py", "converters/torch/trace/capture.py", "converters/torch/trace/places.py",
    "simulators/lava/failures.py",
}  # fmt: skip

SAID: list[tuple[BaseException, str]] = [
    (FileNotFoundError(2, "No such file or directory", "/some/where"), "No such file or directory"),
    (KeyError("scale"), "'scale' is missing"),
    (IndexError("list index out of range"), "a part of it has another type or length"),
    (TypeError("'NoneType' object is not iterable"), "a part of it has another type or length"),
    (ZeroDivisionError("division by zero"), "a part of it has another type or length"),
    (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
    (EOFError(), "it gives no reason"),
    (ValueError("the header\n  is cut"), "the header is cut"),
    (ValueError("x" * 500), "x" * 197 + "..."),
]


@pytest.mark.parametrize(("error", "text"), SAID, ids=[type(error).__name__ for error, _ in SAID])
def test_told(error: BaseException, text: str) -> None:
    assert told(error) == text


def test_no_other_message_names_a_type() -> None:
    root = Path(qkf_deploy.__file__).parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"type\((error|exc|err|e|reason)\)\.__name__|\{(error|exc|err)!r\}", path.read_text())
    }
    assert found == NAMES_TYPES


def test_a_client_that_stumbles() -> None:
    clients = pytest.importorskip("qkf_deploy.converters.nir.clients")

    def stumble() -> None:
        raise IndexError("list index out of range")

    with pytest.raises(InputError) as refused:
        clients.imported("snntorch", stumble)
    assert refused.value.message == "snntorch refuses the file: a part of it has another type or length"
