"""`qkf-deploy export` and `import`: exit codes, what is written, what --check says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from zoo import ZOO

from qkf_deploy import bundle
from qkf_deploy.cli import run
from qkf_deploy.converters import export_check
from qkf_deploy.converters.export_check import CheckResult
from qkf_deploy.passes.quantize import QuantizeOptions, quantize


@pytest.fixture
def files(tmp_path):
    graph = ZOO["self_attention"](np.random.default_rng(0))
    bundle.save_graph(graph, tmp_path / "net.qkf")
    bundle.save_graph(quantize(graph, QuantizeOptions()), tmp_path / "int.qkf")
    bundle.save_graph(ZOO["token_attention"](np.random.default_rng(0)), tmp_path / "stock.qkf")
    return tmp_path


def test_onnx(files, capsys):
    assert run(["export", str(files / "int.qkf"), "--to", "onnx", "-o", str(files / "net.onnx"), "--check"]) == 0
    out = capsys.readouterr().out
    assert "onnxruntime (step)" in out
    assert (files / "net.onnx").stat().st_size > 1000


def test_portable_with_check_in_json(files, capsys):
    pytest.importorskip("spikingjelly")
    command = ["export", str(files / "stock.qkf"), "--to", "nir", "-o", str(files / "net.nir"), "--check"]
    assert run([*command, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert "spikingjelly" in json.dumps(rows)


def test_portable_refusal_writes_nothing(files, capsys):
    assert run(["export", str(files / "net.qkf"), "--to", "nir", "-o", str(files / "net.nir")]) == 3
    error = capsys.readouterr().err
    assert all(name in error for name in ("kv", "qkv", "maxpool", "--partitioned"))
    assert not (files / "net.nir").exists()


def test_annotated_round_trip(files):
    assert run(["export", str(files / "net.qkf"), "--to", "nir", "--annotated", "-o", str(files / "net.nir")]) == 0
    assert run(["import", str(files / "net.nir"), "-o", str(files / "again.qkf")]) == 0
    assert (files / "again.qkf").read_bytes() == (files / "net.qkf").read_bytes()


def test_partitioned(files):
    command = ["export", str(files / "net.qkf"), "--to", "nir", "--partitioned", "-o", str(files / "parts")]
    assert run([*command, "--check"]) == 0
    assert {p.name for p in (files / "parts").iterdir()} >= {"manifest.json", "network.qkf", "part000.nir"}
    assert run(command) == 3, "an existing directory with files is left alone"


def test_a_difference_is_exit_1(files, monkeypatch):
    monkeypatch.setattr(export_check, "check_onnx", lambda graph, images: [CheckResult("broken", 10, 1)])
    assert run(["export", str(files / "int.qkf"), "--to", "onnx", "-o", str(files / "net.onnx"), "--check"]) == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--to", "nir", "--annotated", "--partitioned"],
        ["--to", "onnx", "--annotated"],
        ["--to", "nir", "--annotated", "--check"],
        ["--to", "tflite"],
        [],
    ],
)
def test_contradictions_are_exit_2(files, options):
    assert run(["export", str(files / "net.qkf"), *options, "-o", str(files / "x")]) == 2
    assert not (files / "x").exists()


def test_places_that_cannot_be_written(files):
    for options in (["--to", "nir", "--annotated"], ["--to", "nir", "--partitioned"], ["--to", "onnx"]):
        assert run(["export", str(files / "net.qkf"), *options, "-o", str(files / "no" / "where")]) == 3


def test_import_of_something_else(files):
    assert run(["import", str(files / "net.qkf"), "-o", str(files / "x.qkf")]) == 3
    assert run(["import", str(files / "missing.nir"), "-o", str(files / "x.qkf")]) == 3
    assert not (files / "x.qkf").exists()
