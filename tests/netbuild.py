"""Small networks built by hand, and brute-force arithmetic, for the tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qkf_deploy import ops
from qkf_deploy.ir import Graph, GraphBuilder, Interval, Operand, Preprocessing, View
from qkf_deploy.ir.operator import Operator
from qkf_deploy.ir.values import Kind, Timing, ValueType

LIF = ops.Neuron(tau=2.0, v_threshold=1.0, v_reset=0.0)
SQUARE = dict(stride=(1, 1), padding=(1, 1), dilation=(1, 1))


class Growing:
    """A graph that grows node by node; random numbers for its parameters.

    Args:
        rng: random numbers, or a seed.
        op: the input.
        params: of the input.
    """

    def __init__(self, rng: np.random.Generator | int, op: ops.Input, **params: np.ndarray) -> None:
        self.rng = np.random.default_rng(rng)
        self.builder = GraphBuilder()
        self.op = op
        self.last = self.builder.add("input", op, (), params)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.builder.nodes[name].type.shape

    def read(self, source: Operand | str) -> tuple[int, ...]:
        """Shape of what a node gets from a source."""
        if isinstance(source, Operand):
            return source.view.shape if source.view else self.shape(source.node)
        return self.shape(source)

    def add(self, name: str, op: Operator, *inputs: Operand | str, **params: np.ndarray) -> str:
        """A node; without inputs it reads the one before."""
        self.last = self.builder.add(name, op, inputs or (self.last,), params)
        return self.last


def window(rank: int, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1, **more) -> ops.Conv:
    """A convolution that is the same along every axis; ``spread`` and ``tail`` have an entry for each."""
    return ops.Conv((stride,) * rank, (padding,) * rank, (dilation,) * rank, groups, **more)


class Net(Growing):
    """A float network with seeded random parameters."""

    def __init__(self, seed: int, shape: tuple[int, ...], frames: bool = False) -> None:
        super().__init__(seed, ops.Input(shape, "frames" if frames else "real"))
        self.frames = frames
        self.channels = shape[0]

    def conv(self, name: str, source: Operand | str, out: int, kernel: int = 3, bias: bool = True, **attrs) -> str:
        """A convolution with weights that make a LIF neuron fire now and then."""
        shape = self.read(source)
        rank = len(shape) - 1
        op = window(rank, **{"padding": kernel // 2, **attrs})
        fan_in = shape[0] // op.groups
        weight = self.rng.normal(0.15, 1.5, (out, fan_in, *[kernel] * rank)) / np.sqrt(fan_in * kernel**rank)
        params = {"weight": weight} | ({"bias": self.rng.normal(0.2, 0.4, out)} if bias else {})
        return self.add(name, op, source, **params)

    def bn(self, name: str, source: str) -> str:
        n = self.shape(source)[0]
        return self.add(
            name, ops.BatchNorm(1e-5), source,
            mean=self.rng.normal(0, 0.3, n), var=self.rng.uniform(0.3, 2, n),
            weight=self.rng.uniform(0.8, 2, n) * self.rng.choice([-1, 1], n, p=[0.2, 0.8]),
            bias=self.rng.uniform(0, 1, n),
        )  # fmt: skip

    def lif(self, name: str, source: Operand | str, **fields) -> str:
        return self.add(name, replace(LIF, **fields), source)

    def head(self, source: str, classes: int = 4, time_steps: int = 4) -> None:
        """Readout over positions and time, classifier, output."""
        axes = tuple(range(1, len(self.shape(source))))
        tokens = int(np.prod(self.shape(source)[1:]))
        if axes:
            source = self.add("head_sum", ops.Sum(axes, role="readout"), source)
        source = self.add("readout", ops.Readout(), source)
        source = self.add("head_scale", ops.Scale(1.0 / (tokens * time_steps)), source)
        fan_in = self.shape(source)[-1]
        source = self.add(
            "head",
            ops.Linear(),
            source,
            weight=self.rng.normal(0, 1, (classes, fan_in)),
            bias=self.rng.normal(0, 1, classes),
        )
        self.add("output", ops.Output(), source)

    def build(self, time_steps: int = 4) -> Graph:
        encoding = "frames" if self.frames else "direct"
        graph = self.builder.build(time_steps=time_steps, input_encoding=encoding)
        if self.frames:
            return graph
        mean = tuple(self.rng.uniform(0.05, 0.95, self.channels))
        std = tuple(self.rng.uniform(0.05, 0.9, self.channels))
        return replace(graph, preprocessing=Preprocessing(mean, std))


def small_transformer(seed: int = 0, frames: bool = False, norms: bool = True, time_steps: int = 4) -> Graph:
    """Every operator of a QKFormer on 9 x 7 pixels: patch embedding with shortcut, Q-K token attention, SSA, MLP."""
    net = Net(seed, (3, 9, 7), frames)

    def block(name: str, source: Operand | str, out: int, kernel: int, **attrs) -> str:
        conv = net.conv(f"{name}_conv", source, out, kernel, **attrs)
        return net.lif(f"{name}_lif", net.bn(f"{name}_bn", conv) if norms else conv)

    x = block("embed", "input", 8, 3, stride=2)
    drive = net.bn("pool_bn", net.conv("pool_conv", x, 8, 3))
    deep = net.lif("pool_lif", net.add("pool", ops.MaxPool((3, 3), (2, 2), (1, 1)), drive))
    short = block("short", x, 8, 1, stride=2, padding=0)
    x = net.add("embed_add", ops.Add(), deep, short)
    c, h, w = net.shape(x)
    tokens = View.of((c, h, w), (0, 1, 2), (c, h * w))
    heads = View.of((2, c // 2, h * w), (0, 1, 2), (2, c // 2, h * w))
    q, k = (block(f"qk_{b}", Operand(x, tokens), c, 1) for b in "qk")
    total = net.add("qk_sum", ops.Sum((1,), keepdims=True), Operand(q, heads))
    gate = net.lif("qk_gate", total, v_threshold=0.5)
    masked = net.add("qk_mask", ops.Mask(), gate, Operand(k, heads))
    proj = block("qk_proj", Operand(masked, View.of((2, c // 2, h * w), (0, 1, 2), (c, h * w))), c, 1)
    flat = View.of((c, h * w), (0, 1), (c, h, w))
    x = net.add("qk_add", ops.Add(), x, Operand(proj, flat))
    q, k, v = (block(f"ssa_{b}", Operand(x, tokens), c, 1) for b in "qkv")
    per_token = View.of((2, c // 2, h * w), (0, 2, 1), (2, h * w, c // 2))
    kv = net.add("ssa_kv", ops.MatMul(), Operand(k, heads), Operand(v, per_token))
    y = net.add("ssa_q", ops.MatMul(), Operand(q, per_token), kv)
    y = net.add("ssa_scale", ops.Scale(0.125), y)
    y = net.lif("ssa_lif", Operand(y, View.of((2, h * w, c // 2), (0, 2, 1), (c, h * w))), v_threshold=0.5)
    y = block("ssa_proj", y, c, 1)
    x = net.add("ssa_add", ops.Add(), x, Operand(y, flat))
    y = block("mlp1", x, 12, 3, groups=4, dilation=2, padding=2)
    net.head(net.add("mlp_pool", ops.SumPool((2, 1), (1, 1), (1, 0)), y), time_steps=time_steps)
    return net.build(time_steps)


def signed_network(seed: int, channels: int = 4, size: int = 3) -> Graph:
    """Signed spikes into a convolution, both products, a sum over channels, a pool and a residual."""
    net = Net(seed, (2, size, size))
    x = net.add("x", ops.Neuron(None, 0.75, None, max_spikes=2, signed=True), net.conv("stem", "input", channels))
    y = net.add("y", ops.Neuron(None, 0.5, 0.0, signed=True), net.conv("conv", x, channels, stride=1))
    flat = View.of((channels, size * size), (0, 1), (channels, size * size))
    turned = View.of((channels, size * size), (1, 0), (size * size, channels))
    kv = net.add("kv", ops.MatMul(), Operand(x, flat), Operand(y, turned))
    z = net.add("z", ops.Neuron(None, 2.0, 0.0, signed=True), net.add("qkv", ops.MatMul(), kv, Operand(y, flat)))
    total = net.add("total", ops.Sum((0,), keepdims=True), z)
    gate = net.add("gate", ops.Neuron(None, 1.0, 0.0, signed=True), total)
    masked = net.add("mask", ops.Mask(), gate, z)
    net.add("add", ops.Add(), Operand(masked, View.of((channels, size, size), (0, 1, 2), (channels, size, size))), x)
    net.head(net.add("pool", ops.SumPool((2, 2), (1, 1), (1, 0)), "add"))
    return net.build()


def random_pixels(seed: int, shape: Sequence[int], batch: int = 3) -> np.ndarray:
    """Byte images; the first is black, the second white, the others noise."""
    images = np.random.default_rng(seed).integers(0, 256, (batch, *shape)).astype(np.uint8)
    images[0] = 0
    images[1:2] = 255
    return images


def spike_type(shape: Sequence[int], high: int = 1, timing: Timing = Timing.STEP) -> ValueType:
    """Spikes, or counts up to ``high``."""
    return ValueType.events(tuple(shape), high, timing)


def drive_type(shape: Sequence[int]) -> ValueType:
    return ValueType.drive(tuple(shape), Timing.STEP)


def real_type(shape: Sequence[int], timing: Timing = Timing.CONSTANT) -> ValueType:
    return ValueType(tuple(shape), Kind.REAL, timing)


def interval(low, high, rank: int) -> Interval:
    """Bounds as the operators take them; scalars, or one value per channel."""
    return Interval(*(np.asarray(v, np.int64).reshape(-1, *[1] * (rank - 1)) for v in (low, high)))


def conv_taps(op: ops.Conv, shape: Sequence[int], weight: np.ndarray):
    """Every (output index, input index, weight index) of a convolution whose input element exists."""
    spread, tail = op.spread or (1,) * len(op.stride), op.tail or (0,) * len(op.stride)
    places = [(n - 1) * r + 1 + t for n, r, t in zip(shape[1:], spread, tail, strict=True)]
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(places, op.padding, op.dilation, weight.shape[2:], op.stride, strict=True)
    ]
    per_group = weight.shape[0] // op.groups
    for o in range(weight.shape[0]):
        for place in itertools.product(*map(range, sizes)):
            for i in range(weight.shape[1]):
                for tap in itertools.product(*map(range, weight.shape[2:])):
                    where = [
                        a * s - p + t * d
                        for a, s, p, t, d in zip(place, op.stride, op.padding, tap, op.dilation, strict=True)
                    ]
                    if any(w % r for w, r in zip(where, spread, strict=True)):
                        continue
                    source = [w // r for w, r in zip(where, spread, strict=True)]
                    if all(0 <= w < n for w, n in zip(source, shape[1:], strict=True)):
                        yield (o, *place), (o // per_group * weight.shape[1] + i, *source), (o, i, *tap)
