"""The libraries that pages carry are those that were published, and their licences go with them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import qkf_deploy
from qkf_deploy.report.html import libraries

FOLDER = Path(qkf_deploy.__file__).parent / "report" / "vendor"


@pytest.mark.parametrize("library", libraries(), ids=lambda library: library["package"])
def test_is_as_published(library: dict[str, str]) -> None:
    code = (FOLDER / library["file"]).read_bytes()
    assert hashlib.sha256(code).hexdigest() == library["sha256"]
    assert library["version"] in library["url"]
    assert library["licence"] in ("MIT", "ISC")
    assert "copyright" in library["notice"].lower()
    assert b"\r" not in code  # an HTML parser would change it, and the page's hash would refuse it
    assert b"</script" not in code.lower()
    assert "*/" not in library["notice"]


def test_nothing_else_lies_there() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"vendor.json", *(library["file"] for library in libraries())}
