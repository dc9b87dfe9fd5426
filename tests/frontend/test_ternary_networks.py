"""Networks of ternary spikes (arXiv 2312.06372), attention by signed products, in own words: told, traced, exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph
from qkf_deploy.ir.values import Kind
from qkf_deploy.passes.audit import audit

SIZE = 8
MODEL = """
import torch
from torch import nn


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, theta):
        return torch.gt(u, theta).to(u) - torch.lt(u, -theta).to(u)


class Ternary(nn.Module):
    def __init__(self, theta=0.75):
        super().__init__()
        self.theta = theta

    def forward(self, x):
        u, out = torch.zeros_like(x[0]), []
        for drive in x:
            u = 0.25 * u + drive
            s = Fire.apply(u, self.theta)
            out.append(s)
            u = u * (1 - s.abs())
        return torch.stack(out)


class Net(nn.Module):
    def __init__(self, shiftmax=False):
        super().__init__()
        self.shiftmax = shiftmax
        self.stem, self.bn = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.first = Ternary()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(4))
        self.fires = nn.ModuleList(Ternary(t) for t in (0.25, 0.25, 0.25, 0.5))
        self.attn, self.out = Ternary(1.0), Ternary(0.5)
        self.head = nn.Linear(8, 5)

    def branch(self, x, i):
        return self.fires[i](self.convs[i](x.flatten(0, 1)).reshape(x.shape)).flatten(3)

    def forward(self, x):
        x = self.first(self.bn(self.stem(x))[None].repeat(4, 1, 1, 1, 1))
        q, k, v, gate = (self.branch(x, i) for i in range(4))
        a = q.transpose(-1, -2) @ k
        if self.shiftmax:
            a = torch.exp2(a - torch.ceil(torch.log2(torch.exp2(a).sum(-1, keepdim=True))))
        y = self.attn((v @ a.transpose(-1, -2)) * 0.125)
        y = (gate * y).reshape(x.shape) + x
        return self.head(self.out(y).mean((3, 4))).mean(0)


def build(shiftmax=False):
    torch.manual_seed(1)
    net = Net(shiftmax)
    for p in net.convs.parameters():
        p.data *= 2
    return net
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path / "model.py"


def told(place: Path) -> dict[str, str]:
    return {f"{place}:Ternary": "decay=0.25, v_threshold=.theta, strict=true, signed=true"}


def traced(place: Path) -> Graph:
    return qd.trace(f"{place}:build", image_size=SIZE, in_channels=3, neurons=told(place))


def images() -> np.ndarray:
    x = np.random.default_rng(0).integers(0, 256, (4, 3, SIZE, SIZE)).astype(np.uint8)
    x[0], x[1] = 0, 255
    return x


def test_the_model_and_every_engine(place: Path) -> None:
    """0 spikes differ from torch in float64; the integers and counts are the same everywhere."""
    graph = traced(place)
    integer = qd.quantize(graph, 8)
    agreement, _ = qd.verify(integer, images(), f"{place}:build", image_size=SIZE, neurons=told(place))
    assert (agreement.differ_free, agreement.differ_forced) == (0, 0)
    assert agreement.outputs == 4 * 7 * 4 * 8 * 16
    wanted = qd.simulate(integer, images(), engine="reference", record="events")
    assert [v.min() for v in wanted.spikes.values()].count(-1) >= 6
    assert all(v.max() == 1 for v in wanted.spikes.values())
    for engine in ("event", "torch", "onnx"):
        found = qd.simulate(integer, images(), engine=engine, record="events")
        assert found.ledger == wanted.ledger, engine
        assert found.raw_output.tolist() == wanted.raw_output.tolist(), engine
        assert all(np.array_equal(found.values[name], v) for name, v in wanted.values.items()), engine


def test_kinds_and_audit(place: Path) -> None:
    graph = qd.fold(traced(place))
    kinds = {n.op.kind: n.type.kind for n in graph if n.op.kind in ("neuron", "matmul", "add")}
    assert set(kinds.values()) == {Kind.SIGNED}
    found = {f.node: f for f in audit(graph)}
    products = [found[n.name] for n in graph if n.op.kind == "matmul"]
    assert [p.text for p in products] == [
        "input ternary x ternary: additions and subtractions only",
        "input ternary x signed up to 8: additions and subtractions only",
    ]
    assert all(f.severity != "warning" for f in found.values())


def test_recorded_events_keep_their_sign(place: Path, tmp_path: Path) -> None:
    run = qd.simulate(qd.quantize(traced(place), 8), images(), record="events")
    for fmt in ("npz", "aer"):
        qd.export_events(run, tmp_path / fmt, fmt)
        read = qd.converters.event_streams.read_events(tmp_path / fmt)
        assert all(np.array_equal(read[name], value) for name, value in run.values.items())


def test_untold_it_is_the_same_network(place: Path) -> None:
    """The neurons are found by their arithmetic."""
    found = qd.trace(f"{place}:build", image_size=SIZE, in_channels=3)
    told_so = traced(place)
    numbers = [int(n.split()[0]) for n in found.notices if "found in model.py:" in n and "strict, either polarity" in n]
    assert sum(numbers) == 7
    neurons = {n.name: n.op for n in told_so if n.op.kind == "neuron"}
    assert {n.name: n.op.signed for n in found if n.op.kind == "neuron"} == dict.fromkeys(neurons, True)  # type: ignore[attr-defined]
    wanted, got = (qd.simulate(g, images(), engine="reference", record="events") for g in (told_so, found))
    assert np.array_equal(wanted.logits, got.logits)
    assert all(np.array_equal(got.spikes[name], wanted.spikes[name]) for name in neurons)


def test_normalization_by_shifts_is_refused_with_the_reason(place: Path) -> None:
    with pytest.raises(UnsupportedError, match="exp2 has no spiking or integer form") as refused:
        qd.trace(
            f"{place}:build", image_size=SIZE, in_channels=3, neurons=told(place), factory_arguments={"shiftmax": True}
        )
    assert "has no unit" in str(refused.value.hint)
