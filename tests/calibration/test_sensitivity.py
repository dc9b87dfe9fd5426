"""Sensitivity of layers, and bits under a budget: the solver against all assignments there are."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from netbuild import small_transformer

import qkf_deploy as qd
from qkf_deploy.calibration.assignment import assign
from qkf_deploy.calibration.sensitivity import mixed
from qkf_deploy.cli import run as command
from qkf_deploy.datasets.images import Images
from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph


@pytest.mark.parametrize("seed", range(6))
def test_the_assignment_is_the_best_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = (8, 4, 2)
    names = [f"layer{i}" for i in range(5)]
    size = 10.0 ** rng.integers(0, 6)  # costs and losses of any magnitude
    costs = {n: {b: float(rng.integers(1, 50)) * b * size for b in bits} for n in names}
    losses = {n: {b: float(rng.exponential(1e-3)) / b for b in bits} for n in names}
    every = [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(bits, repeat=len(names))]

    def total(table: dict[str, dict[int, float]], chosen: dict[str, int]) -> float:
        return sum(table[n][b] for n, b in chosen.items())

    totals = sorted(total(costs, chosen) for chosen in every)
    for budget in (totals[0], totals[7], totals[100], totals[-1]):
        found = assign(losses, costs, budget)
        assert total(costs, found) <= budget
        best = min(total(losses, chosen) for chosen in every if total(costs, chosen) <= budget)
        assert total(losses, found) == pytest.approx(best, rel=1e-6)
    with pytest.raises(UsageError, match="below"):
        assign(losses, costs, totals[0] * 0.999)


@pytest.fixture(scope="module")
def net() -> Graph:
    return qd.fold(small_transformer(2, time_steps=2))


@pytest.fixture(scope="module")
def images(net: Graph) -> Images:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (10, *net.input.type.shape)).astype(np.uint8)
    return Images(array, [str(i) for i in range(10)], rng.integers(0, 4, 10))


def test_memory(net: Graph, images: Images) -> None:
    weights = {n.name: n.params["weight"].size for n in net if "weight" in n.params}
    least, most = (sum(weights.values()) * b / 8 for b in (2, 8))
    budget = (least + most) / 3
    found = qd.sensitivity(net, images, budget=f"{budget:.3f}B", candidates=(2, 4, 8), sample=8)
    report = found.report
    assert {layer.name: layer.weights for layer in report.layers} == weights
    assert all(layer.costs == {b: layer.weights * b / 8 for b in (8, 4, 2)} for layer in report.layers)
    assert [p.budget for p in report.curve] == pytest.approx(np.linspace(least, most, 8).tolist())
    assert all(p.cost <= p.budget * (1 + 1e-9) for p in report.curve)
    predicted = [p.predicted for p in report.curve]
    assert predicted == sorted(predicted, reverse=True)
    assert report.chosen is not None
    assert found.graph is not None
    bits = {n.name: n.op.weight_bits for n in found.graph if "weight" in n.params}  # type: ignore[attr-defined]
    assert bits == report.chosen.bits == {layer.name: layer.bits for layer in report.layers}
    assert sum(weights[n] * b / 8 for n, b in bits.items()) <= budget
    assert predicted[-1] == pytest.approx(sum(min(layer.losses.values()) for layer in report.layers))
    # one layer by hand: it alone at 2 bits
    name = report.layers[3].name
    drawn = images.array[np.sort(np.random.default_rng(0).permutation(10)[:8])]
    whole = qd.simulate(mixed(net, {**dict.fromkeys(weights, 8), name: 2}), drawn).outputs
    real = qd.simulate(net, drawn).outputs
    loss = np.square(whole - real).mean() / np.square(real - real.mean(0)).mean()
    assert report.layers[3].losses[2] == pytest.approx(loss)
    assert report.layers[3].losses[2] > report.layers[3].losses[8] > 0


def test_energy(net: Graph, images: Images) -> None:
    found = qd.sensitivity(net, images, profile="exact-fp32", budget="1mJ", candidates=(4, 8), sample=4).report
    assert found.unit == "pJ"
    whole = qd.simulate(qd.quantize(net, 8, layer_bits={n.name: 8 for n in net if "weight" in n.params}), images.array)
    assert found.chosen is not None
    assert 0 < found.chosen.cost < 1e9
    assert whole.ledger.images == 10


def test_command(net: Graph, images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qd.save(net, tmp_path / "net.qkf")
    np.savez(tmp_path / "val.npz", images=images.array, labels=images.labels)
    words = ["sensitivity", str(tmp_path / "net.qkf"), str(tmp_path / "val.npz"), "--bits", "8,3", "--sample", "4"]
    out = tmp_path / "mixed.qkf"
    assert command([*words, "--budget", "1MB", "-o", str(out), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chosen"]["bits"] == {row["name"]: row["bits"] for row in found["layers"]}
    assert qd.load(out).arithmetic == "integer"
    assert command(words) == 0
    assert "Mixed bits under a budget (B)" in capsys.readouterr().out
    for wrong in (
        ["-o", str(tmp_path / "x.qkf")],
        ["--budget", "1B"],
        ["--budget", "soon"],
        ["--budget", "2uJ"],
        ["--bits", "4"],
    ):
        assert command([*words, *wrong]) == 2, wrong
        assert capsys.readouterr().err.count("rror: ") == 1


def test_scipy_is_loaded_when_it_is_needed() -> None:
    code = "import sys, qkf_deploy.calibration.assignment; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
