"""Helpers of the exact engines' tests: comparison with the reference engine, random integer graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from qkf_deploy.ir import Graph, GraphBuilder, Operand, View
from qkf_deploy.ops import Add, Concat, Conv, Input, IntegerNeuron, Linear, Mask, MatMul, MaxPool, Output, Readout, Sum
from qkf_deploy.passes.widths import attach
from qkf_deploy.simulators import event, reference
from qkf_deploy.simulators import torch as torch_engine
from qkf_deploy.simulators.event import cpu
from qkf_deploy.simulators.event.engine import Engine
from qkf_deploy.simulators.run import Record, Run

TIERS = cpu.available_tiers()
#: Every set of kernels that can run here; the portable one stands in for CPUs without AVX2.
ISAS = [cpu.PLAIN, cpu.PORTABLE, cpu.select("vector")] + ([cpu.VNNI] if "vnni" in TIERS else [])
_LIF = IntegerNeuron(1, 1)


def neurons(graph: Graph) -> list[str]:
    """Names of all neurons."""
    return [n.name for n in graph if n.op.kind == "integer_neuron"]


def assert_equal(ours: Run, wanted: Run) -> None:
    """Every recorded array, the output and every count are the same."""
    assert np.array_equal(ours.raw_output, wanted.raw_output)
    assert np.array_equal(ours.logits, wanted.logits)
    for what in ("values", "membranes", "spikes"):
        mine, theirs = getattr(ours, what), getattr(wanted, what)
        assert set(mine) == set(theirs)
        for name in theirs:
            assert mine[name].shape == theirs[name].shape, name
            assert np.array_equal(mine[name], theirs[name]), (what, name)
    for a, b in zip(ours.ledger, wanted.ledger, strict=True):
        assert a.to_dict() == b.to_dict(), a.name


def check(graph: Graph, inputs: np.ndarray, tier: str | None = None, threads: int = 1) -> None:
    """Fused (neurons seen), and with every value and membrane seen, the event engine equals the reference.

    So does the torch engine, with every value and membrane.
    """
    fused, everything = Record.of(graph, neurons(graph)), Record.of(graph, "all", "all")
    wanted = reference.run(graph, inputs, everything)
    ours = event.run(graph, inputs, everything, tier=tier, threads=threads)
    assert_equal(ours, wanted)
    assert_equal(torch_engine.run(graph, inputs, everything), wanted)
    seen = {n: wanted.values[n] for n in fused.values}
    expected = Run(wanted.logits, wanted.raw_output, wanted.ledger, seen, seen, {})
    assert_equal(event.run(graph, inputs, fused, tier=tier, threads=threads), expected)


def check_isa(graph: Graph, inputs: np.ndarray, *isas: cpu.Isa) -> None:
    """:func:`check` for some instruction sets, neurons seen only."""
    seen = Record.of(graph, neurons(graph))
    wanted = reference.run(graph, inputs, seen)
    for isa in isas:
        assert_equal(Engine(graph, seen, isa).run(inputs), wanted)


def spike_copies(b: GraphBuilder, channels: int, tokens: int, names: str) -> None:
    """An input of as many groups of channels as there are names, and a neuron that repeats each group."""
    count = len(names)
    b.add("input", Input((count * channels, tokens), "frames", high=1))
    every = np.eye(count * channels, dtype=np.int8)
    for i, name in enumerate(names):
        weight = every[i * channels : (i + 1) * channels, :, None]
        b.add(f"{name}_conv", Conv((1,), (0,), (1,), weight_bits=8), ["input"], {"weight": weight})
        b.add(name, _LIF, [f"{name}_conv"], {"theta": np.ones((channels, 1), np.int64)})


def gated(heads: int, dim: int, tokens: int, neuron: IntegerNeuron = _LIF, theta: int = 1, steps: int = 2) -> Graph:
    """q gates k (Q-K token attention), then a projection; the input's channels are q and k."""
    c = heads * dim
    b = GraphBuilder()
    spike_copies(b, c, tokens, "qk")
    split = View.of((heads, dim, tokens), (0, 1, 2), (heads, dim, tokens))
    b.add("sum", Sum((1,), keepdims=True), [Operand("q", split)])
    b.add("gate", neuron, ["sum"], {"theta": np.full((1, 1, 1), theta, np.int64)})
    b.add("mask", Mask(), ["gate", Operand("k", split)])
    merged = View.of((heads, dim, tokens), (0, 1, 2), (c, tokens))
    weight = np.random.default_rng(0).integers(-9, 9, (c, c, 1)).astype(np.int8)
    b.add("proj", Conv((1,), (0,), (1,), weight_bits=8), [Operand("mask", merged)], {"weight": weight})
    b.add("out", _LIF, ["proj"], {"theta": np.full((c, 1), 5)})
    b.add("output", Output(), ["out"])
    return attach(b.build(time_steps=steps, input_encoding="frames", arithmetic="integer"))


def self_attention(heads: int, dim: int, tokens: int, neuron: IntegerNeuron, theta: int, steps: int = 4) -> Graph:
    """q (k^T v) and a neuron; the input's channels are q, k and v."""
    c = heads * dim
    b = GraphBuilder()
    spike_copies(b, c, tokens, "qkv")
    split = View.of((heads, dim, tokens), (0, 1, 2), (heads, dim, tokens))
    by_token = View.of((heads, dim, tokens), (0, 2, 1), (heads, tokens, dim))
    merged = View.of((heads, tokens, dim), (0, 2, 1), (c, tokens))
    b.add("context", MatMul(), [Operand("k", split), Operand("v", by_token)])
    b.add("mixed", MatMul(), [Operand("q", by_token), Operand("context")])
    b.add("lif", neuron, [Operand("mixed", merged)], {"theta": np.full((c, 1), theta, np.int64)})
    b.add("output", Output(), ["lif"])
    return attach(b.build(time_steps=steps, input_encoding="frames", arithmetic="integer"))


@dataclass(frozen=True)
class Case:
    """A random network and a batch for it."""

    graph: Graph
    inputs: np.ndarray


class _Draw:
    """Builds one random network."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        self.builder = GraphBuilder()
        self.bits = data.draw(st.sampled_from([2, 3, 4, 5, 6, 7, 8, 16]))
        self.index = 0

    def pick(self, *options: Any) -> Any:
        return self.data.draw(st.sampled_from(options))

    def name(self, kind: str) -> str:
        self.index += 1
        return f"{kind}{self.index}"

    def shape(self, node: str) -> tuple[int, ...]:
        return self.builder.nodes[node].type.shape

    def weights(self, shape: tuple[int, ...]) -> np.ndarray:
        top = 2 ** (self.bits - 1) - 1
        spread = self.pick("extreme", "positive", "uniform", "sparse")
        if spread == "extreme":
            w = self.rng.choice([-top, top], shape)
        elif spread == "positive":
            w = np.full(shape, top)
        else:
            w = self.rng.integers(-top, top + 1, shape) * (self.rng.random(shape) < (0.3 if spread == "sparse" else 1))
        return w.astype(np.int8 if self.bits <= 8 else np.int16)

    def conv(self, source: str, out: int | None = None, stride: int | None = None) -> str:
        channels, height, width = self.shape(source)
        kernel = self.pick(*[k for k in (1, 2, 3) if k <= min(height, width)])
        dilation = self.pick(1, 2) if kernel > 1 and kernel * 2 <= min(height, width) else 1
        padding = self.pick(*range(kernel))
        stride = stride or self.pick(1, 2)
        spread = self.pick((), (), (), (2, 2), (1, 3)) if stride != 1 else ()
        groups = self.pick(1, 1, 1, *([2] if channels % 2 == 0 else []))
        out = out or groups * self.pick(1, 5, 16, 33, 65)
        op = Conv((stride,) * 2, (padding,) * 2, (dilation,) * 2, groups, self.bits, spread)
        params = {"weight": self.weights((out, channels // groups, kernel, kernel))}
        bias = self.pick("none", "channel", "border")
        if bias == "channel":
            params["bias"] = self.rng.integers(-300, 300, out)
        elif bias == "border":
            cases = [len(a.cases()[0]) for a in op.axes(self.shape(source), params["weight"])]
            params["bias"] = self.rng.integers(-300, 300, (out, *cases))
        return self.builder.add(self.name("conv"), op, [source], params)

    def neuron(self, source: str) -> str:
        shape = self.shape(source)
        shift = self.pick(0, 1, 1, 1, 4, 12)
        multiplier = self.pick(*{1, max(2**shift - 1, 1), 2**shift})
        op = IntegerNeuron(multiplier, shift, self.pick(0, 0, 3), self.pick(False, False, True))
        scale = self.pick(1, 50, 2000, 10**6)
        theta = self.rng.integers(-scale // 4, scale + 1, (shape[0], 1, 1))
        if self.pick(0, 0, 0, 1):
            theta = self.rng.integers(1, scale + 1, shape)
        return self.builder.add(self.name("lif"), op, [source], {"theta": theta.astype(np.int64)})

    def layer(self, source: str) -> str:
        conv = self.conv(source)
        if min(self.shape(conv)[1:]) >= 3 and self.pick(0, 0, 1):
            conv = self.builder.add(self.name("pool"), MaxPool((3, 3), (2, 2), (1, 1)), [conv])
        x = self.neuron(conv)
        if not self.pick(0, 1):
            return x
        other = self.neuron(conv)
        op = self.pick(Add(), Add(), Concat(0), Concat(2))
        return self.builder.add(self.name("both"), op, [x, other])

    def network(self) -> Case:
        frames = self.pick(True, False)
        steps = self.pick(1, 2, 3, 4, 5, 8, 16)
        shape = (self.pick(1, 2, 3, 33), self.pick(1, 4, 7), self.pick(3, 5, 8))
        high = self.pick(1, 3, 255)
        op = Input(shape, "frames", high=high) if frames else Input(shape, "bytes")
        x = self.builder.add("input", op)
        for _ in range(self.pick(1, 2, 3)):
            x = self.layer(x)
        axes = tuple(range(1, len(self.shape(x))))
        total = self.builder.add("total", Sum(axes, role="readout"), [x])
        rate = self.builder.add("rate", Readout(), [total])
        weight = self.weights((4, self.shape(x)[0]))
        head = self.builder.add("head", Linear(self.bits), [rate], {"weight": weight})
        self.builder.add("output", Output(), [head], {"scale": np.ones(4)})
        encoding = "frames" if frames else "direct"
        graph = self.builder.build(time_steps=steps, input_encoding=encoding, arithmetic="integer")
        return Case(attach(graph), self.inputs(graph, high))

    def inputs(self, graph: Graph, high: int) -> np.ndarray:
        batch = self.pick(1, 3)
        if graph.input_encoding == "direct":
            return self.rng.integers(0, 256, (1, batch, *graph.input.type.shape)).astype(np.int64)
        density = self.pick(0.0, 0.05, 0.5, 1.0)
        shape = (graph.time_steps, batch, *graph.input.type.shape)
        values = self.rng.integers(1, high + 1, shape) if self.pick(0, 1) else np.full(shape, high)
        return (values * (self.rng.random(shape) < density)).astype(np.int64)


@st.composite
def cases(draw: Any) -> Case:
    """Random integer networks with proven widths."""

    class _Data:
        @staticmethod
        def draw(strategy: Any) -> Any:
            return draw(strategy)

    return _Draw(_Data).network()
