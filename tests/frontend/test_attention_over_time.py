"""Attention over chunks of time steps (arXiv 2409.19764): torch's spikes, every engine, what a chip must wait for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from frontend_networks import assert_sound, traced
from spikingjelly.activation_based import neuron
from torch import nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.passes.audit import audit
from qkf_deploy.passes.steps import with_time_steps


def lif(threshold: float = 1.0) -> nn.Module:
    return neuron.LIFNode(v_threshold=threshold, step_mode="m")


class ChunkAttention(nn.Module):
    """Tokens of all steps of a chunk attend to each other; ``order`` says how the product is written."""

    def __init__(self, chunk: int, order: str, dim: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.chunk, self.order, self.heads = chunk, order, heads
        self.convs = nn.ModuleList(nn.Conv2d(dim, dim, 1, bias=False) for _ in "qkv")
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in "qkv")
        self.lifs = nn.ModuleList(lif() for _ in "qkv")
        self.attn_lif = lif(0.5)

    def parted(self, x: torch.Tensor, index: int) -> torch.Tensor:
        steps, batch, dim, height, width = x.shape
        y = self.norms[index](self.convs[index](x.flatten(0, 1))).reshape(x.shape)
        y = self.lifs[index](y).flatten(3).reshape(steps, batch, self.heads, dim // self.heads, height * width)
        y = y.transpose(-1, -2)
        if self.order == "strided":  # the steps of a chunk do not follow each other
            y = y.reshape(self.chunk, steps // self.chunk, *y.shape[1:]).transpose(0, 1)
        else:
            y = y.reshape(steps // self.chunk, self.chunk, *y.shape[1:])
        return y.permute(0, 2, 3, 1, 4, 5).flatten(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, batch, dim, height, width = x.shape
        q, k, v = (self.parted(x, index) for index in range(3))
        if self.order == "map":
            y = (q @ k.transpose(-1, -2)) @ v
        elif self.order == "transposed":
            y = (((v.transpose(-1, -2) @ k) * 0.25) @ q.transpose(-1, -2)).transpose(-1, -2)
        else:
            y = q @ ((k.transpose(-1, -2) @ v) * 0.25)
        y = y.reshape(steps // self.chunk, batch, self.heads, self.chunk, height * width, dim // self.heads)
        y = y.permute(0, 3, 1, 2, 5, 4).reshape(steps, batch, dim, height, width)
        return x + self.attn_lif(y)


class Network(nn.Module):
    """Stem, attention over time, classifier."""

    def __init__(self, steps: int, chunk: int, order: str = "kv") -> None:
        super().__init__()
        self.steps = steps
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.lif = lif()
        self.attn = ChunkAttention(chunk, order)
        self.out = nn.Conv2d(8, 8, 1)
        self.out_bn, self.out_lif = nn.BatchNorm2d(8), lif()
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.attn(self.lif(self.stem(x).unsqueeze(0).repeat(self.steps, 1, 1, 1, 1)))
        z = self.out_bn(self.out(y.flatten(0, 1))).reshape(y.shape)
        return self.head(self.out_lif(z).flatten(3).mean(3).mean(0))


@pytest.mark.parametrize(
    ("steps", "chunk", "order"), [(4, 2, "kv"), (4, 4, "kv"), (6, 3, "transposed"), (4, 4, "transposed")]
)
def test_torch_and_every_engine(steps: int, chunk: int, order: str) -> None:
    """The model's spikes in float64; the same integers and counts in both engines; dense products counted once."""
    net = traced(Network(steps, chunk, order), image_size=8)
    products = [n.op.steps_awaited for n in net.graph if n.op.kind == "matmul"]
    assert products == [chunk, 1]
    assert_sound(net)
    assert any("not causal" in notice for notice in net.graph.notices)


def test_chunks_of_one_step_are_attention_within_steps() -> None:
    net = traced(Network(4, 1), image_size=8)
    assert net.graph.not_causal == {}
    assert not any("causal" in notice for notice in net.graph.notices)
    assert_sound(net)


@pytest.mark.parametrize(
    ("order", "reason"), [("map", "every time step against every other"), ("strided", "do not follow each other")]
)
def test_what_has_no_form_is_refused_with_the_reason(order: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        traced(Network(4, 2, order), image_size=8)


def test_the_graph_and_the_audit_say_what_is_not_causal() -> None:
    graph = traced(Network(4, 2), image_size=8).graph
    late = graph.not_causal
    assert late["attn.matmul"] == late["attn.matmul#2"] == late["attn.attn_lif"] == late["out"] == late["out_lif"] == 2
    assert not {"stem.0", "lif", "attn.lifs.0", "attn.convs.1"} & set(late)
    assert "readout" not in late
    assert "not causal, waits for later time steps: attn.matmul (chunks of 2)" in str(graph)
    assert graph.to_dict()["not_causal"] == late
    with pytest.raises(UnsupportedError, match="work cannot be told by steps"):
        qd.measure_activity(qd.quantize(graph), np.zeros((1, *graph.input.type.shape)), engine="reference")
    (finding,) = (f for f in audit(graph) if f.node == "attn.matmul")
    assert finding.severity == "warning"
    assert "must wait for all 2 time steps of a chunk" in finding.text
    with pytest.raises(UnsupportedError, match="chunks of 2 of 4 time steps"):
        with_time_steps(graph, 8)


def test_engines_of_one_step_refuse_it(tmp_path) -> None:
    """Lava and the single-step ONNX form know no later step; the sequence form equals the reference."""
    net = traced(Network(4, 2), image_size=8)
    integer = qd.quantize(net.graph, 8)
    wanted = qd.simulate(integer, net.images, engine="reference")
    found = qd.simulate(integer, net.images, engine="onnx", form="sequence")
    assert found.raw_output.tolist() == wanted.raw_output.tolist()
    with pytest.raises(UnsupportedError, match="not causal") as refused:
        qd.simulate(integer, net.images, engine="onnx", form="step")
    assert "attn.matmul" in str(refused.value)
    with pytest.raises(UnsupportedError, match=r"attn.matmul: not causal"):
        qd.simulate(integer, net.images, engine="lava")
    with pytest.raises(UnsupportedError, match=r"attn.matmul: not causal"):
        qd.export_lava(integer, tmp_path / "lava")
