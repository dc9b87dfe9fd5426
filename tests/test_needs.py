"""A float network where integers are needed, and an integer one where the float one is: one exit code everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from netbuild import small_transformer

import qkf_deploy as qd
from qkf_deploy.cli import run
from qkf_deploy.errors import UsageError

INTEGERS = (
    *(f"export float.qkf --to {to} -o out" for to in ("mem", "lava", "sana-fe")),
    "map float.qkf",
    "hardware float.qkf images.npy --chip fpga-array",
    "widths float.qkf",
    "simulate float.qkf images.npy --engine event",
    "evaluate float.qkf images.npy --engine event -o out.sqlite",
)
FLOATS = (
    "quantize net.qkf -o out.qkf",
    "calibrate net.qkf images.npy --bits 4 -o out.qkf",
    "sensitivity net.qkf images.npy",
    "evaluate net.qkf images.npy --bits 8,4 -o out.sqlite",
    "run net.qkf images.npy -o out",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("needs")
    graph = small_transformer()
    qd.save(graph, place / "float.qkf")
    qd.save(qd.quantize(graph, 8), place / "net.qkf")
    np.save(place / "images.npy", np.zeros((2, *graph.input.type.shape), np.uint8))
    return place


@pytest.mark.parametrize("words", [*INTEGERS, *FLOATS])
def test_the_other_arithmetic_is_a_wrong_choice(
    folder: Path, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert run(words.split()) == UsageError.exit_code
    err = capsys.readouterr().err
    assert "integer" in err or "proven widths" in err
    assert "\n  try: " in err
    assert sorted(folder.iterdir()) == before
