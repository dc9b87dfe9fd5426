"""Networks whose output is no vector of classes: maps, single numbers, vectors with axes of size 1."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph, GraphBuilder, Operand, View
from qkf_deploy.ops import Conv, Input, Linear, Neuron, Output, Readout, Sum

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 2, 4, 4), dtype=np.uint8)


def network(form: str) -> Graph:
    build = GraphBuilder()
    build.add("input", Input((2, 4, 4)))
    build.add("conv", Conv((1, 1), (1, 1), (1, 1)), ["input"], {"weight": RNG.normal(size=(3, 2, 3, 3))})
    value = build.add("lif", Neuron(2.0, 0.3, 0.0), ["conv"])
    if form != "every step":
        value = build.add("readout", Readout(), [value])
    if form in ("one number", "vector with an axis of size 1"):
        outputs = 1 if form == "one number" else 6
        value = build.add("total", Sum((1, 2)), [value])
        read = Operand(value, View.of((3,), (0,), (1, 3))) if outputs > 1 else Operand(value)
        value = build.add("fc", Linear(), [read], {"weight": RNG.normal(size=(outputs, 3))})
    if form == "scalar":
        value = build.add("total", Sum((0, 1, 2)), [value])
    build.add("output", Output(), [value])
    return build.build(time_steps=3)


SHAPES = {
    "map": (3, 4, 4),
    "every step": (3, 4, 4),
    "one number": (1,),
    "scalar": (),
    "vector with an axis of size 1": (1, 6),
}


@pytest.mark.parametrize("form", SHAPES)
@pytest.mark.parametrize("integer", [False, True])
def test_runs(form: str, integer: bool) -> None:
    graph = network(form)
    graph = qd.quantize(graph, 8) if integer else qd.fold(graph)
    whole = qd.simulate(graph, PIXELS, engine="reference")
    assert whole.output_shape == SHAPES[form]
    assert whole.outputs.shape == (5, *SHAPES[form])
    for batch in (1, 2):  # batches are joined along the images, whatever the shape
        parts = qd.simulate(graph, PIXELS, engine="reference", batch=batch)
        np.testing.assert_array_equal(parts.logits, whole.logits)
        np.testing.assert_array_equal(parts.raw_output, whole.raw_output)
    if form.startswith("vector"):
        np.testing.assert_array_equal(whole.predicted, whole.outputs[:, 0].argmax(-1))
    else:
        assert not whole.classifies
        with pytest.raises(InputError, match="not one number per class"):
            _ = whole.predicted
        with pytest.raises(InputError):
            whole.accuracy([0] * 5)
    assert "output" in str(whole)
    if integer:
        for engine in ("event", "onnx"):
            other = qd.simulate(graph, PIXELS, engine=engine)
            np.testing.assert_array_equal(other.raw_output, whole.raw_output)
            np.testing.assert_array_equal(other.logits, whole.logits)


@pytest.mark.parametrize("form", SHAPES)
def test_commands(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    graph = network(form)
    qd.save(graph, "float.qkf")
    np.savez("x.npz", images=PIXELS, labels=np.zeros(5, np.int64))
    assert command(["quantize", "float.qkf", "-o", "net.qkf"]) == 0
    capsys.readouterr()
    assert command(["simulate", "net.qkf", "x.npz", "-o", "run.sqlite", "--save", "run.npz"]) == 0
    shown = capsys.readouterr().out
    vector = form.startswith("vector")
    assert ("accuracy: not defined" in shown) != vector
    assert ("correct" in shown or " of 5 (" in shown) == vector
    with np.load("run.npz") as saved:
        assert saved["logits"].shape == qd.simulate(qd.load("net.qkf"), PIXELS).logits.shape
    predicted = qd.load_run("run.sqlite").predictions
    assert sum(p is not None for p in predicted) == (5 if vector else 0)
    assert command(["simulate", "net.qkf", "x.npz", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 5
    if not vector:
        outputs = qd.simulate(qd.load("net.qkf"), PIXELS).outputs
        assert [r["largest"] for r in rows] == [float(y.max()) for y in outputs]
    for line in (["energy", "run.sqlite"], ["report", "run.sqlite", "-o", "page.html"], ["inspect", "net.qkf"],
                 ["widths", "net.qkf"],
                 ["export", "net.qkf", "--to", "onnx", "-o", "net.onnx", "--check"]):  # fmt: skip
        assert command(line) in (0, 3), line
        assert "internal error" not in capsys.readouterr().err
    agreement = qd.compare(qd.load("net.qkf"), qd.fold(graph), PIXELS)
    assert agreement.predicted.shape == (5,)
