"""Networks converted from rate-coded ANNs: IF neurons from half a threshold, soft reset, thousands of time steps."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from frontend_networks import Traced, assert_exact, assert_faithful, traced
from spikingjelly.activation_based import ann2snn, functional
from spikingjelly.activation_based.neuron import IFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.cli import group
from qkf_deploy.converters.torch.run import _tensor
from qkf_deploy.errors import InputError, UnsupportedError, UsageError
from qkf_deploy.simulators import chunks
from qkf_deploy.simulators.inputs import encode

SIZE = 8


def ann() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


def converted(half: bool = True) -> nn.Module:
    """SpikingJelly's own conversion, thresholds from random images."""
    images = [(torch.rand(8, 3, SIZE, SIZE), torch.zeros(8)) for _ in range(2)]
    recipe = ann2snn.RateCodingRecipe(images, mode="Max", channel_wise=half, half_threshold=half)
    return ann2snn.FXConverter(recipe).convert(ann())


class Quantized(nn.Module):
    """As QCFS networks run (Bu et al., ICLR 2022): thresholds learned, membranes from half of them; spikes times θ."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)
        self.fire = IFNode(v_threshold=0.7, v_reset=None)
        functional.reset_net(self)
        self.fire.set_reset_value("v", 0.35)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(0.7 * self.fire(self.conv(x)).mean((2, 3)))


class Charged(nn.Module):
    """The same, the half threshold being given to the neuron in front of the first step; ``every``: of each step."""

    def __init__(self, steps: int = 0, every: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)
        self.fire, self.begun, self.steps, self.every = IFNode(v_threshold=0.7, v_reset=None), False, steps, every

    def forward(self, x: Tensor) -> Tensor:
        if self.steps:  # a loop of its own
            self.begun = False
            return sum(self.step(x) for _ in range(self.steps)) / self.steps
        return self.step(x)

    def step(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.every or not self.begun:
            self.fire(torch.full_like(x, 0.7) * 0.5)
        self.begun = True
        return self.fc(0.7 * self.fire(x).mean((2, 3)))


class BehindTheMean(nn.Module):
    """A classifier with a bias behind the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)
        self.fire = IFNode(v_threshold=0.7, v_reset=None, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fire(self.conv(x)[None].repeat(12, 1, 1, 1, 1)).mean((3, 4)).mean(0))


def net(name: str, steps: int = 12) -> Traced:
    model = {"ann2snn": converted, "quantized": Quantized, "behind": BehindTheMean}[name]()
    options = {} if name == "behind" else {"time_steps": steps, "input": "step"}
    return traced(model, image_size=SIZE, **options)


@pytest.mark.parametrize("steps", [0, 12], ids=["step", "loop"])
def test_membranes_charged_before_the_first_step(steps: int) -> None:
    """A neuron given a constant in front of its first step starts from there, as if the membrane had been set."""
    options = {} if steps else {"time_steps": 12, "input": "step"}
    found = traced(Charged(steps), image_size=SIZE, **options)
    assert found.graph["fire"].params["initial"] == 0.7 * 0.5
    assert any("charged by a constant" in text for text in found.graph.notices)
    assert_faithful(found)
    assert_exact(found.graph, found.images)
    plain = net("quantized")
    runs = [qd.simulate(n.graph, plain.images, engine="reference", record=["fire"]) for n in (found, plain)]
    assert np.array_equal(*(run.spikes["fire"] for run in runs))


def test_membranes_charged_at_every_step_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="fire: charges its membrane by a constant, and not"):
        traced(Charged(every=True), image_size=SIZE, time_steps=12, input="step")


@pytest.mark.parametrize("name", ["ann2snn", "quantized"])
def test_converted_networks(name: str) -> None:
    """The model's own spikes in float64, the same integers in every engine."""
    found = net(name)
    assert_faithful(found)
    neurons = [n for n in found.graph if n.op.kind == "neuron"]
    assert all(n.op.v_reset is None and n.op.tau is None for n in neurons)  # type: ignore[attr-defined]
    assert all((2 * n.params["initial"] == n.op.v_threshold).all() for n in neurons)  # type: ignore[attr-defined]
    integer = assert_exact(found.graph, found.images)
    wanted = qd.simulate(integer, found.images, engine="reference")
    for engine in ("torch", "onnx"):
        assert np.array_equal(qd.simulate(integer, found.images, engine=engine).raw_output, wanted.raw_output)


@pytest.mark.parametrize("name", ["ann2snn", "quantized", "behind"])
@pytest.mark.parametrize("integer", [False, True])
def test_every_chunk_gives_the_whole_run(name: str, integer: bool) -> None:
    found = net(name)
    graph = qd.quantize(found.graph, 8) if integer else found.graph
    inputs, _ = encode(graph, found.images)
    wanted = qd.simulate(graph, found.images, engine="reference")
    for chunk in (1, 5, 12, 100):
        got = chunks.run(graph, inputs, chunk)
        if integer:
            assert np.array_equal(got.raw_output, wanted.raw_output)
        assert np.abs(got.logits - wanted.logits).max() < 1e-12
        assert np.array_equal(got.largest[-1], wanted.predicted)


@pytest.mark.parametrize("name", ["ann2snn", "quantized", "behind"])
def test_after_t_steps_it_is_the_network_of_t_steps(name: str) -> None:
    found = net(name)
    run = qd.over_time(found.graph, found.images, [1, 3], chunk=5)
    for t in range(1, 13):
        shorter = qd.simulate(qd.with_time_steps(found.graph, t), found.images, engine="reference")
        assert np.array_equal(run.predicted[t - 1], shorter.predicted)
        assert run.accuracy[t - 1] == shorter.accuracy([1, 3])


def test_accuracy_over_time_is_the_models() -> None:
    """The torch model, called once per step, its results added up."""
    found = net("ann2snn", 40)
    model = found.source.model.double()
    functional.reset_net(model)
    x, total, answers = _tensor(found.images, found.source), 0, []
    with torch.no_grad():
        for _ in range(40):
            total = total + model(x)
            answers.append(total.argmax(1).numpy())  # type: ignore[attr-defined]
    assert np.array_equal(qd.over_time(found.graph, found.images, chunk=7).predicted, np.stack(answers))


def peak(graph: qd.Graph, images: np.ndarray) -> int:
    tracemalloc.start()
    qd.over_time(graph, images, chunk=16)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    found = net("quantized")
    few, many = (peak(qd.with_time_steps(found.graph, t), found.images) for t in (64, 2048))
    assert many < 1.2 * few + 8 * 2 * 2048 * 4  # the answers themselves


def test_the_command_shows_a_table(tmp_path: Path) -> None:
    found = net("quantized", 6)
    qd.save(qd.quantize(found.graph, 8), tmp_path / "net.qkf")
    np.savez(tmp_path / "x.npz", images=found.images, labels=[0, 1])
    arguments = ["simulate", str(tmp_path / "net.qkf"), str(tmp_path / "x.npz"), "--every-step"]
    shown = CliRunner().invoke(group, [*arguments, "--format", "csv"])
    assert shown.exit_code == 0, shown.output
    assert [row.split(",")[0] for row in shown.stdout.splitlines()] == ["time_steps", "1", "2", "4", "6"]
    asked = ["--save", "--engine", "--precision", "--threads", "--device", "--timeout", "--top", "--event-format"]
    for option, value in zip(asked, ["out.npz", "auto", "float32", "1", "cpu", "3", "5", "npz"], strict=True):
        refused = CliRunner().invoke(group, [*arguments, option, value])
        assert isinstance(refused.exception, UsageError), option
        assert option in str(refused.exception)
    described = CliRunner().invoke(group, ["simulate", "--help"]).output
    assert "1, 2, 4, 8" in described
    assert "after each time step" not in described


def test_refused() -> None:
    found = net("quantized")
    with pytest.raises(UsageError, match="chunk: 0"):
        qd.over_time(found.graph, found.images, chunk=0)
    with pytest.raises(InputError, match="labels of shape"):
        qd.over_time(found.graph, found.images, [1])
    with pytest.raises(InputError, match="accuracy needs labels"):
        _ = qd.over_time(found.graph, found.images).accuracy
    nodes = {
        n.name: replace(n, op=replace(n.op, carry="official", time_merged_with_batch=True))
        if n.op.kind == "neuron"
        else n
        for n in found.graph
    }
    with pytest.raises(UnsupportedError, match="from image to image"):
        qd.over_time(replace(found.graph, nodes=nodes), found.images)
