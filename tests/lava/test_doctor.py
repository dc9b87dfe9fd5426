"""`qkf-deploy doctor`: what it finds, and that it notices what does not work."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest

from qkf_deploy import cli, doctor
from qkf_deploy.simulators import engines, reference
from qkf_deploy.simulators.lava.environment import LavaEnvironment


def by_name(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {f"{f.area} {f.name}": f for f in findings}


def test_the_self_test_network_is_not_trivial() -> None:
    graph = doctor.small_network()
    run = reference.run(graph, doctor.small_images(), doctor.Record.of(graph, "all"))
    assert all(0 < spikes.mean() < 1 for spikes in run.spikes.values())
    assert (run.logits[0] != run.logits[1]).all()


def test_findings_here() -> None:
    found = by_name(doctor.examine(lava=False))
    assert found["engine reference"].status == "ok"
    assert "engine lava" not in found
    assert found["extra report"].status in ("ok", "missing")


@pytest.mark.lava
def test_lava_is_tried(lava: LavaEnvironment) -> None:
    finding = by_name(doctor.examine())["engine lava"]
    assert (finding.status, finding.hint) == ("ok", "")
    assert f"lava-nc {lava.lava}" in finding.detail


def test_packages_are_compared_with_their_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = ["alpha<3,>=2", 'beta>=1; extra == "event"', 'gamma>=1; extra == "onnx"', 'old; python_version < "3"']
    versions = {"alpha": "3.1", "beta": "1.5"}
    monkeypatch.setattr(metadata, "requires", lambda name: requires)
    monkeypatch.setattr(doctor, "_version", versions.get)
    found = by_name(list(doctor._packages()))
    assert found["core qkf-deploy"].status == "failed"
    assert found["core qkf-deploy"].detail == "alpha 3.1 (needs <3,>=2)"
    assert (found["extra event"].status, found["extra event"].detail) == ("ok", "beta 1.5")
    assert (found["extra onnx"].status, found["extra onnx"].detail) == ("missing", "gamma not installed")
    assert found["extra onnx"].hint == "pip install 'qkf-deploy[onnx]'"


def test_an_engine_that_differs_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_one(graph, inputs, record, progress):
        run = reference.run(graph, inputs, record)
        return replace(run, raw_output=run.raw_output + np.int64(1))

    monkeypatch.setattr(engines, "get", lambda name, graph, options: off_by_one)
    found = by_name(doctor.examine(lava=False))
    assert found["engine event"].status == "failed"
    assert found["engine event"].detail == "differs from the reference"


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    good = doctor.Finding("engine", "reference", "ok", "fine")
    bad = doctor.Finding("core", "numpy", "failed", "numpy 0.1", "pip install --upgrade qkf-deploy")
    monkeypatch.setattr(doctor, "examine", lambda lava: [good])
    assert cli.run(["doctor", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["detail"] == "fine"
    monkeypatch.setattr(doctor, "examine", lambda lava: [good, bad])
    assert cli.run(["doctor"]) == 1
    streams = capsys.readouterr()
    assert "numpy 0.1" in streams.out
    assert "does not work: numpy" in streams.err
