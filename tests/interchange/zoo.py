"""Small hand-built networks that together use every operator, attribute and kind of view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from netbuild import Growing, window

from qkf_deploy import ops
from qkf_deploy.ir import Graph, Operand, Preprocessing, View

Build = Callable[[np.random.Generator], Graph]
CHANNELS, SIZE, HEADS, CLASSES = 8, 6, 2, 5
TOKENS, WIDTH = SIZE * SIZE, CHANNELS // HEADS
LIF = ops.Neuron(2.0, 1.0, 0.0)
GATE = ops.Neuron(2.0, 0.5, 0.0)
AS_TOKENS = View.of((CHANNELS, TOKENS), (0, 1), (CHANNELS, TOKENS))
AS_MAP_OF_TOKENS = View.of((CHANNELS, TOKENS), (0, 1), (CHANNELS, SIZE, SIZE))
AS_MAP = View.of((CHANNELS, SIZE, SIZE), (0, 1, 2), (CHANNELS, SIZE, SIZE))
SPLIT = View.of((HEADS, WIDTH, TOKENS), (0, 1, 2), (HEADS, WIDTH, TOKENS))
ROWS = View.of((HEADS, WIDTH, TOKENS), (0, 2, 1), (HEADS, TOKENS, WIDTH))
FROM_ROWS = View.of((HEADS, TOKENS, WIDTH), (0, 2, 1), (CHANNELS, TOKENS))


def weights(rng: np.random.Generator, *shape: int, gain: float = 2.0) -> np.ndarray:
    """Random weights on a grid of 1/64, so that float32 clients sum them exactly."""
    fan_in = int(np.prod(shape[1:]))
    return np.round(rng.normal(size=shape) * gain / np.sqrt(fan_in) * 64) / 64


class Grid(Growing):
    """A network whose weights lie on a grid."""

    def synapse(
        self, name: str, source: Operand | str, shape: tuple[int, ...], *, gain: float = 2.0, **attrs: int
    ) -> str:
        """A convolution with bias; ``shape`` of its weight."""
        bias = {
            "weight": weights(self.rng, *shape, gain=gain),
            "bias": np.round(self.rng.normal(size=shape[0]) * 16) / 64,
        }
        return self.add(name, window(len(shape) - 2, **attrs), source, **bias)

    def head(self, source: Operand | str, time_steps: int = 4) -> Graph:
        """Token sum, readout, classifier."""
        tokens = source if isinstance(source, Operand) else Operand(source, AS_TOKENS)
        self.add("pool", ops.Sum((1,), role="readout"), tokens)
        self.add("pool.scale", ops.Scale(1.0 / TOKENS))
        self.add("readout", ops.Readout())
        self.add("readout.scale", ops.Scale(1.0 / time_steps))
        params = {"weight": weights(self.rng, CLASSES, CHANNELS), "bias": weights(self.rng, CLASSES)}
        self.add("head", ops.Linear(), **params)
        self.add("output", ops.Output())
        return with_pixels(self.builder.build(time_steps=time_steps))


def pixels(rng: np.random.Generator) -> Grid:
    """Two channels of pixels."""
    return Grid(rng, ops.Input((2, SIZE, SIZE)))


def stem(rng: np.random.Generator) -> Grid:
    """Input, 3x3 convolution, LIF."""
    b = pixels(rng)
    b.synapse("stem.conv", "input", (CHANNELS, 2, 3, 3), padding=1)
    b.add("stem.lif", LIF)
    return b


def with_pixels(graph: Graph) -> Graph:
    """The graph with a normalization for its channels."""
    channels = graph.input.type.shape[0]
    return replace(graph, preprocessing=Preprocessing((0.5,) * channels, (0.25,) * channels))


def convnet(rng: np.random.Generator) -> Graph:
    """Convolutions and LIF neurons."""
    b = stem(rng)
    b.synapse("conv", "stem.lif", (CHANNELS, CHANNELS, 3, 3), padding=1)
    return b.head(b.add("lif", LIF, "conv"))


def residual(rng: np.random.Generator) -> Graph:
    """Two residual additions of spikes."""
    b = stem(rng)
    x = "stem.lif"
    for i in range(2):
        b.synapse(f"b{i}.conv", x, (CHANNELS, CHANNELS, 3, 3), padding=1)
        b.add(f"b{i}.lif", LIF, f"b{i}.conv")
        x = b.add(f"b{i}.add", ops.Add(), x, f"b{i}.lif")
    return b.head(x)


def attention(b: Grid, x: str, axis: int) -> str:
    """Q-K attention as the tracer writes it: token (axis 1: sum over a head's channels) or channel (axis 2)."""
    for name in "qk":
        b.synapse(f"{name}.conv", Operand(x, AS_TOKENS), (CHANNELS, CHANNELS, 1))
        b.add(f"{name}.lif", LIF, f"{name}.conv")
    b.add("attn.sum", ops.Sum((axis,), keepdims=True), Operand("q.lif", SPLIT))
    b.add("attn.lif", GATE, "attn.sum")
    b.add("attn.mask", ops.Mask(), "attn.lif", Operand("k.lif", SPLIT))
    joined = View.of((HEADS, WIDTH, TOKENS), (0, 1, 2), (CHANNELS, TOKENS))
    b.synapse("proj.conv", Operand("attn.mask", joined), (CHANNELS, CHANNELS, 1), gain=4.0)
    b.add("proj.lif", LIF, Operand("proj.conv", AS_MAP))
    return b.add("attn.add", ops.Add(), x, "proj.lif")


def token_attention(rng: np.random.Generator) -> Graph:
    """Q-K token attention with residual."""
    b = stem(rng)
    return b.head(attention(b, b.last, axis=1))


def channel_attention(rng: np.random.Generator) -> Graph:
    """Q-K channel attention with residual."""
    b = stem(rng)
    return b.head(attention(b, b.last, axis=2))


def self_attention(rng: np.random.Generator, chunk: int = 1) -> Graph:
    """Spiking self-attention: q (k^T v) / 8 with transposed views, then a residual and a max pool of drives."""
    b = stem(rng)
    x = b.last
    for name in "qkv":
        b.synapse(f"{name}.conv", Operand(x, AS_TOKENS), (CHANNELS, CHANNELS, 1))
        b.add(f"{name}.lif", LIF, f"{name}.conv")
    b.add("kv", ops.MatMul(chunk), Operand("k.lif", SPLIT), Operand("v.lif", ROWS))
    b.add("qkv", ops.MatMul(), Operand("q.lif", ROWS), "kv")
    b.add("attn.scale", ops.Scale(0.125), "qkv")
    b.add("attn.lif", GATE, Operand("attn.scale", FROM_ROWS))
    b.synapse("proj.conv", "attn.lif", (CHANNELS, CHANNELS, 1), gain=4.0)
    b.add("proj.lif", LIF, "proj.conv")
    b.add("add", ops.Add(), Operand(x, AS_TOKENS), "proj.lif")
    shape = View.of((CHANNELS, TOKENS), (0, 1), (CHANNELS, SIZE, SIZE))
    b.synapse("conv", Operand("add", shape), (CHANNELS, CHANNELS, 3, 3), padding=1)
    b.add("maxpool", ops.MaxPool((3, 3), (1, 1), (1, 1)), "conv")
    return b.head(b.add("lif", LIF, "maxpool"))


def attention_over_time(rng: np.random.Generator) -> Graph:
    """Self-attention over chunks of two time steps: not causal."""
    return self_attention(rng, 2)


def spike_pooling(rng: np.random.Generator) -> Graph:
    """Max pooling of spikes (an OR) and sum pooling of spikes."""
    b = stem(rng)
    b.add("maxpool", ops.MaxPool((3, 3), (1, 1), (1, 1)), "stem.lif")
    b.add("sumpool", ops.SumPool((3, 3), (1, 1), (1, 1)), "maxpool")
    b.synapse("conv", "sumpool", (CHANNELS, CHANNELS, 1, 1))
    return b.head(b.add("lif", LIF, "conv"))


def membrane_shortcut(rng: np.random.Generator) -> Graph:
    """Drives are added (pre-activation); soft reset, IF, a decay that is not dyadic, undecayed input."""
    b = pixels(rng)
    b.synapse("stem", "input", (CHANNELS, 2, 3, 3), padding=1)
    x = "stem"
    for i, neuron in enumerate(
        (ops.Neuron(None, 1.0, 0.0), ops.Neuron(2.0, 1.0, None), ops.Neuron(3.0, 1.0, 0.0, False))
    ):
        b.add(f"b{i}.lif", neuron, x)
        b.synapse(f"b{i}.conv", f"b{i}.lif", (CHANNELS, CHANNELS, 3, 3), padding=1)
        x = b.add(f"b{i}.add", ops.Add(), x, f"b{i}.conv")
    return b.head(b.add("head.lif", LIF, x))


def grouped(rng: np.random.Generator) -> Graph:
    """Grouped, dilated and strided convolutions, 1-d convolution, a slice of the channels, an inverted mask."""
    b = stem(rng)
    b.synapse("depthwise", "stem.lif", (CHANNELS, 1, 3, 3), padding=2, dilation=2, groups=CHANNELS)
    b.add("lif1", LIF, "depthwise")
    b.synapse("wide", Operand("lif1", AS_TOKENS), (2 * CHANNELS, CHANNELS // 2, 3), padding=1, groups=2)
    b.add("lif2", LIF, "wide")
    whole = View.of((2 * CHANNELS, TOKENS), (0, 1), (2 * CHANNELS, TOKENS))
    gate, gated = (Operand("lif2", whole.narrowed(0, i * CHANNELS, (i + 1) * CHANNELS)) for i in range(2))
    b.add("mask", ops.Mask(invert=True), gate, gated)
    back = View.of((CHANNELS, SIZE, SIZE), (0, 1, 2), (CHANNELS, SIZE, SIZE))
    b.synapse("strided", Operand("mask", back), (CHANNELS, CHANNELS, 3, 3), stride=2, padding=1)
    b.add("lif3", LIF, "strided")
    tokens = (SIZE // 2) ** 2
    return b.head(Operand("lif3", View.of((CHANNELS, tokens), (0, 1), (CHANNELS, tokens))))


def decoder(rng: np.random.Generator) -> Graph:
    """Maps side by side, a transposed convolution."""
    b = stem(rng)
    b.synapse("down", "stem.lif", (CHANNELS, CHANNELS, 2, 2), stride=2)
    b.add("down.lif", LIF)
    bias = {"weight": weights(b.rng, CHANNELS, CHANNELS, 4, 4, gain=4.0), "bias": weights(b.rng, CHANNELS)}
    b.add("up", window(2, padding=2, spread=(2, 2)), "down.lif", **bias)
    b.add("up.lif", LIF)
    b.add("cat", ops.Concat(0), "up.lif", "stem.lif")
    b.synapse("conv", "cat", (CHANNELS, 2 * CHANNELS, 3, 3), padding=1)
    return b.head(b.add("lif", LIF))


def normed(rng: np.random.Generator) -> Graph:
    """Batch norms, one of them behind no synapse."""
    b = pixels(rng)
    b.synapse("conv", "input", (CHANNELS, 2, 3, 3), padding=1)
    for name, source in (("bn1", "conv"), ("bn2", "lif1")):
        params = {k: rng.uniform(0.5, 1.5, CHANNELS) for k in ("mean", "var", "weight", "bias")}
        b.add(name, ops.BatchNorm(1e-5), source, **params)
        b.add(f"lif{name[-1]}", LIF, name)
    return b.head("lif2")


def events(rng: np.random.Generator) -> Graph:
    """Event frames as input, no readout: one value per time step."""
    b = Grid(rng, ops.Input((2, SIZE, SIZE), format="frames", high=9))
    b.synapse("conv", "input", (CHANNELS, 2, 3, 3), padding=1, gain=0.5)
    b.add("lif", LIF, "conv")
    flat = View.of((CHANNELS * TOKENS,), (0,), (CHANNELS * TOKENS,))
    b.add("linear", ops.Linear(), Operand("lif", flat), weight=weights(b.rng, CLASSES, CHANNELS * TOKENS))
    b.add("output", ops.Output(), "linear")
    return b.builder.build(time_steps=3, input_encoding="frames")


def odd_neurons(rng: np.random.Generator) -> Graph:
    """Initial membranes, τ, thresholds and reset voltages per channel or position, several spikes per step, rounding,
    strict thresholds, delayed resets."""

    def eighths(low: int, high: int, *shape: int) -> np.ndarray:
        return rng.integers(low, high + 1, shape or (CHANNELS, 1, 1)) / 8

    threshold, tau, reset = eighths(4, 12), rng.choice([2.0, 4.0], (CHANNELS, 1, 1)), eighths(-8, 1)
    every = eighths(4, 12, CHANNELS, SIZE, SIZE)
    neurons = [
        (ops.Neuron(float(tau.max()), float(threshold.max()), float(reset.max())),
         {"tau": tau, "v_threshold": threshold, "v_reset": reset, "initial": eighths(-16, 16)}),
        (ops.Neuron(None, 0.5, None, False, max_spikes=None, v_min=-1.0), {"initial": eighths(-16, 16, 1)}),
        (ops.Neuron(2.0, float(every.max()), 0.0, False, max_spikes=3), {"v_threshold": every}),
        (ops.Neuron(4.0, 1.0, None), {"initial": eighths(0, 8, CHANNELS, SIZE, SIZE)}),
        (ops.Neuron(4 / 3, 0.5, None, False, max_spikes=4, rounding="half_even"), {}),
        (ops.Neuron(None, 0.5, None, max_spikes=8, rounding="half_up", decay=0.0), {}),
        (ops.Neuron(None, 0.5, None, strict=True, decay=0.25), {"initial": eighths(-16, 16, 1)}),
        (ops.Neuron(None, 0.25, None, reset_delay=True, strict=True, decay=0.75), {}),
        (ops.Neuron(None, 0.5, 0.25, strict=True, decay=0.5), {"initial": eighths(-16, 16, 1)}),
        (ops.Neuron(None, 0.5, 0.0, strict=True, decay=0.5), {}),
    ]  # fmt: skip
    b = pixels(rng)
    x, channels = "input", 2
    for i, (op, params) in enumerate(neurons):
        b.synapse(f"conv{i}", x, (CHANNELS, channels, 3, 3), padding=1)
        x, channels = b.add(f"lif{i}", op, **params), CHANNELS
    return b.head(x)


def ternary(rng: np.random.Generator) -> Graph:
    """Spikes of either polarity: through synapses, a gate, both products, sums, pools, a residual, a drive."""
    fires = ops.Neuron(None, 0.5, 0.0, signed=True)
    b = pixels(rng)
    b.synapse("stem.conv", "input", (CHANNELS, 2, 3, 3), padding=1)
    x = b.add("stem.lif", ops.Neuron(2.0, 0.75, None, strict=True, signed=True))
    for name in "qkvg":
        b.synapse(f"{name}.conv", Operand(x, AS_TOKENS), (CHANNELS, CHANNELS, 1))
        b.add(f"{name}.lif", fires if name != "v" else ops.Neuron(None, 0.5, None, max_spikes=3, signed=True))
    b.add("kv", ops.MatMul(), Operand("k.lif", SPLIT), Operand("v.lif", ROWS))
    b.add("qkv", ops.MatMul(), Operand("q.lif", ROWS), "kv")
    b.add("attn.scale", ops.Scale(0.0625), "qkv")
    b.add("attn.lif", fires, Operand("attn.scale", FROM_ROWS))
    b.add("mask", ops.Mask(), "g.lif", "attn.lif")
    b.add("add", ops.Add(), Operand(x, AS_TOKENS), "mask")
    b.add("maxpool", ops.MaxPool((3, 3), (1, 1), (1, 1)), Operand("add", AS_MAP_OF_TOKENS))
    b.add("sumpool", ops.SumPool((3, 3), (1, 1), (1, 1)), "maxpool")
    b.synapse("conv", "sumpool", (CHANNELS, CHANNELS, 1, 1))
    b.add("gated", ops.Mask(), Operand("g.lif", AS_MAP_OF_TOKENS), "conv")
    b.add("rounded", ops.Neuron(None, 0.5, None, max_spikes=4, rounding="half_even", signed=True), "gated")
    b.add("total", ops.Sum((0,), keepdims=True), "rounded")
    b.add("gate", ops.Neuron(None, 1.5, 0.0, signed=True), "total")
    return b.head(b.add("turned", ops.Mask(), "gate", "rounded"))


ZOO: dict[str, Build] = {
    f.__name__: f
    for f in (
        convnet, residual, token_attention, channel_attention, self_attention, attention_over_time, spike_pooling,
        membrane_shortcut, grouped, decoder, normed, events, odd_neurons, ternary,
    )
}  # fmt: skip


def images(graph: Graph, rng: np.random.Generator, batch: int = 3) -> np.ndarray:
    """Random pixels, all-black and all-white images among them; for event graphs random frames."""
    shape = graph.input.type.shape
    if graph.input_encoding == "frames":
        return rng.integers(0, 10, (batch, graph.time_steps, *shape)).astype(np.uint8)
    x = rng.integers(0, 256, (batch, *shape), dtype=np.uint8)
    x[0], x[1] = 0, 255
    return x
