"""`qkf-deploy export` and `import`: exit codes, what is written, what --check says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nir
import numpy as np
import pytest
from zoo import ZOO

from qkf_deploy import bundle
from qkf_deploy.cli import run
from qkf_deploy.converters import export_check
from qkf_deploy.converters.export_check import CheckResult
from qkf_deploy.converters.nir import clients
from qkf_deploy.errors import MissingComponent
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


def test_chains(files):
    command = ["export", str(files / "net.qkf"), "--to", "nir", "--chains", "-o", str(files / "chains")]
    assert run([*command, "--check"]) == 0
    for part in (files / "chains").glob("*.nir"):
        targets = [target for _, target in nir.read(part).edges]
        assert len(targets) == len(set(targets)), "values meet inside a part"


def test_partitioned(files):
    command = ["export", str(files / "net.qkf"), "--to", "nir", "--partitioned", "-o", str(files / "parts")]
    assert run([*command, "--check"]) == 0
    assert {p.name for p in (files / "parts").iterdir()} >= {"manifest.json", "network.qkf", "part000.nir"}
    assert run(command) == 3, "an existing directory with files is left alone"


@pytest.fixture
def absent(monkeypatch):
    """Makes packages look as if they were not installed; what was imported with them is imported anew."""

    def hide(*names):
        for module in [m for m in sys.modules if m.split(".")[0] in names or m.startswith("qkf_deploy.converters.nir")]:
            monkeypatch.delitem(sys.modules, module)
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delattr("qkf_deploy.converters.nir", raising=False)

    return hide


@pytest.mark.parametrize("package", ["h5py", "nir"])
def test_nir_without_its_packages_is_exit_4(files, package, absent, capsys):
    absent(package)
    assert run(["export", str(files / "stock.qkf"), "--to", "nir", "-o", str(files / "net.nir")]) == 4
    assert f"{package} is not installed" in (error := capsys.readouterr().err)
    assert "pip install 'qkf-deploy[nir]'" in error
    assert not (files / "net.nir").exists()


def test_import_without_h5py_is_exit_4(files, absent, capsys):
    (files / "net.nir").write_bytes(b"")
    absent("h5py")
    assert run(["import", str(files / "net.nir"), "-o", str(files / "x.qkf")]) == 4
    assert "pip install 'qkf-deploy[nir]'" in capsys.readouterr().err


PORTABLE_CHECK = ("--to", "nir", "--check")


def test_a_check_without_clients_is_exit_4(files, monkeypatch, capsys):
    monkeypatch.setattr(export_check, "CLIENTS", {})
    assert run(["export", str(files / "stock.qkf"), *PORTABLE_CHECK, "-o", str(files / "net.nir")]) == 4
    assert "no client is installed" in (error := capsys.readouterr().err)
    assert "pip install" in error


def test_a_check_says_what_a_client_lacks(files, monkeypatch, capsys):
    def lacks(path, x):
        raise MissingComponent("nirtorch is not installed")

    monkeypatch.setattr(export_check, "CLIENTS", {"spikingjelly": lacks})
    monkeypatch.setattr(export_check, "installed", lambda known: ["spikingjelly"])
    command = ["export", str(files / "stock.qkf"), "-o", str(files / "net.nir"), *PORTABLE_CHECK]
    assert run(command) == 4
    assert "spikingjelly: nirtorch is not installed" in capsys.readouterr().err


def test_the_missing_package_is_the_one_named(monkeypatch):
    """SpikingJelly's own importer needs nirtorch; it is nirtorch that is missing then."""
    pytest.importorskip("spikingjelly")
    for module in [m for m in sys.modules if m.startswith(("nirtorch", "spikingjelly.activation_based.nir_exchange"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "nirtorch", None)
    with pytest.raises(MissingComponent, match="nirtorch is not installed") as caught:
        clients.spikingjelly(Path("net.nir"), np.zeros((1, 1, 1), np.float32))
    assert caught.value.hint == "pip install 'qkf-deploy[torch]'"


def test_a_check_that_every_client_refuses_is_exit_1(files, monkeypatch, capsys):
    monkeypatch.setattr(export_check, "check_portable", lambda graph, images: [CheckResult("picky", refused="not me")])
    assert run(["export", str(files / "stock.qkf"), *PORTABLE_CHECK, "-o", str(files / "net.nir")]) == 1
    assert "picky: not me" in capsys.readouterr().err


def test_a_difference_is_exit_1(files, monkeypatch):
    monkeypatch.setattr(export_check, "check_onnx", lambda graph, images: [CheckResult("broken", 10, 1)])
    assert run(["export", str(files / "int.qkf"), "--to", "onnx", "-o", str(files / "net.onnx"), "--check"]) == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--to", "nir", "--annotated", "--partitioned"],
        ["--to", "nir", "--annotated", "--chains"],
        ["--to", "onnx", "--chains"],
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
