"""Small hand-built networks that together use every operator, attribute and kind of view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qkf_deploy.ir import Graph, GraphBuilder, Operand, Preprocessing, View
from qkf_deploy.ops import (
    Add,
    BatchNorm,
    Conv,
    Input,
    Linear,
    Mask,
    MatMul,
    MaxPool,
    Neuron,
    Output,
    Readout,
    Scale,
    Sum,
    SumPool,
)

Build = Callable[[np.random.Generator], Graph]
CHANNELS, SIZE, HEADS, CLASSES = 8, 6, 2, 5
TOKENS, WIDTH = SIZE * SIZE, CHANNELS // HEADS
LIF = Neuron(2.0, 1.0, 0.0)
GATE = Neuron(2.0, 0.5, 0.0)
AS_TOKENS = View.of((CHANNELS, TOKENS), (0, 1), (CHANNELS, TOKENS))
AS_MAP = View.of((CHANNELS, SIZE, SIZE), (0, 1, 2), (CHANNELS, SIZE, SIZE))
SPLIT = View.of((HEADS, WIDTH, TOKENS), (0, 1, 2), (HEADS, WIDTH, TOKENS))
ROWS = View.of((HEADS, WIDTH, TOKENS), (0, 2, 1), (HEADS, TOKENS, WIDTH))
FROM_ROWS = View.of((HEADS, TOKENS, WIDTH), (0, 2, 1), (CHANNELS, TOKENS))


def weights(rng: np.random.Generator, *shape: int, gain: float = 2.0) -> np.ndarray:
    """Random weights on a grid of 1/64, so that float32 clients sum them exactly."""
    fan_in = int(np.prod(shape[1:]))
    return np.round(rng.normal(size=shape) * gain / np.sqrt(fan_in) * 64) / 64


def synapse(
    b: GraphBuilder,
    rng: np.random.Generator,
    name: str,
    source: Operand | str,
    shape: tuple[int, ...],
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    gain: float = 2.0,
) -> str:
    """A convolution with bias."""
    rank = len(shape) - 2
    op = Conv((stride,) * rank, (padding,) * rank, (dilation,) * rank, groups)
    params = {"weight": weights(rng, *shape, gain=gain), "bias": np.round(rng.normal(size=shape[0]) * 16) / 64}
    return b.add(name, op, [source], params)


def stem(b: GraphBuilder, rng: np.random.Generator, channels: int = 2) -> str:
    """Input, 3x3 convolution, LIF."""
    b.add("input", Input((channels, SIZE, SIZE)))
    synapse(b, rng, "stem.conv", "input", (CHANNELS, channels, 3, 3), padding=1)
    return b.add("stem.lif", LIF, ["stem.conv"])


def head(b: GraphBuilder, rng: np.random.Generator, source: Operand | str, time_steps: int = 4) -> Graph:
    """Token sum, readout, classifier."""
    b.add("pool", Sum((1,), role="readout"), [source if isinstance(source, Operand) else Operand(source, AS_TOKENS)])
    b.add("pool.scale", Scale(1.0 / TOKENS), ["pool"])
    b.add("readout", Readout(), ["pool.scale"])
    b.add("readout.scale", Scale(1.0 / time_steps), ["readout"])
    b.add(
        "head", Linear(), ["readout.scale"], {"weight": weights(rng, CLASSES, CHANNELS), "bias": weights(rng, CLASSES)}
    )
    b.add("output", Output(), ["head"])
    return with_pixels(b.build(time_steps=time_steps))


def with_pixels(graph: Graph) -> Graph:
    """The graph with a normalization for its channels."""
    channels = graph.input.type.shape[0]
    return replace(graph, preprocessing=Preprocessing((0.5,) * channels, (0.25,) * channels))


def convnet(rng: np.random.Generator) -> Graph:
    """Convolutions and LIF neurons."""
    b = GraphBuilder()
    stem(b, rng)
    synapse(b, rng, "conv", "stem.lif", (CHANNELS, CHANNELS, 3, 3), padding=1)
    return head(b, rng, b.add("lif", LIF, ["conv"]))


def residual(rng: np.random.Generator) -> Graph:
    """Two residual additions of spikes."""
    b = GraphBuilder()
    stem(b, rng)
    x = "stem.lif"
    for i in range(2):
        synapse(b, rng, f"b{i}.conv", x, (CHANNELS, CHANNELS, 3, 3), padding=1)
        b.add(f"b{i}.lif", LIF, [f"b{i}.conv"])
        x = b.add(f"b{i}.add", Add(), [x, f"b{i}.lif"])
    return head(b, rng, x)


def attention(b: GraphBuilder, rng: np.random.Generator, x: str, axis: int) -> str:
    """Q-K attention as the tracer writes it: token (axis 1: sum over a head's channels) or channel (axis 2)."""
    for name in "qk":
        synapse(b, rng, f"{name}.conv", Operand(x, AS_TOKENS), (CHANNELS, CHANNELS, 1))
        b.add(f"{name}.lif", LIF, [f"{name}.conv"])
    b.add("attn.sum", Sum((axis,), keepdims=True), [Operand("q.lif", SPLIT)])
    b.add("attn.lif", GATE, ["attn.sum"])
    b.add("attn.mask", Mask(), ["attn.lif", Operand("k.lif", SPLIT)])
    joined = View.of((HEADS, WIDTH, TOKENS), (0, 1, 2), (CHANNELS, TOKENS))
    synapse(b, rng, "proj.conv", Operand("attn.mask", joined), (CHANNELS, CHANNELS, 1), gain=4.0)
    b.add("proj.lif", LIF, [Operand("proj.conv", AS_MAP)])
    return b.add("attn.add", Add(), [x, "proj.lif"])


def token_attention(rng: np.random.Generator) -> Graph:
    """Q-K token attention with residual."""
    b = GraphBuilder()
    return head(b, rng, attention(b, rng, stem(b, rng), axis=1))


def channel_attention(rng: np.random.Generator) -> Graph:
    """Q-K channel attention with residual."""
    b = GraphBuilder()
    return head(b, rng, attention(b, rng, stem(b, rng), axis=2))


def self_attention(rng: np.random.Generator) -> Graph:
    """Spiking self-attention: q (k^T v) / 8 with transposed views, then a residual and a max pool of drives."""
    b = GraphBuilder()
    x = stem(b, rng)
    for name in "qkv":
        synapse(b, rng, f"{name}.conv", Operand(x, AS_TOKENS), (CHANNELS, CHANNELS, 1))
        b.add(f"{name}.lif", LIF, [f"{name}.conv"])
    b.add("kv", MatMul(), [Operand("k.lif", SPLIT), Operand("v.lif", ROWS)])
    b.add("qkv", MatMul(), [Operand("q.lif", ROWS), "kv"])
    b.add("attn.scale", Scale(0.125), ["qkv"])
    b.add("attn.lif", GATE, [Operand("attn.scale", FROM_ROWS)])
    synapse(b, rng, "proj.conv", "attn.lif", (CHANNELS, CHANNELS, 1), gain=4.0)
    b.add("proj.lif", LIF, ["proj.conv"])
    b.add("add", Add(), [Operand(x, AS_TOKENS), "proj.lif"])
    shape = View.of((CHANNELS, TOKENS), (0, 1), (CHANNELS, SIZE, SIZE))
    synapse(b, rng, "conv", Operand("add", shape), (CHANNELS, CHANNELS, 3, 3), padding=1)
    b.add("maxpool", MaxPool((3, 3), (1, 1), (1, 1)), ["conv"])
    return head(b, rng, b.add("lif", LIF, ["maxpool"]))


def spike_pooling(rng: np.random.Generator) -> Graph:
    """Max pooling of spikes (an OR) and sum pooling of spikes."""
    b = GraphBuilder()
    stem(b, rng)
    b.add("maxpool", MaxPool((3, 3), (1, 1), (1, 1)), ["stem.lif"])
    b.add("sumpool", SumPool((3, 3), (1, 1), (1, 1)), ["maxpool"])
    synapse(b, rng, "conv", "sumpool", (CHANNELS, CHANNELS, 1, 1))
    return head(b, rng, b.add("lif", LIF, ["conv"]))


def membrane_shortcut(rng: np.random.Generator) -> Graph:
    """Drives are added (pre-activation); soft reset, IF, a decay that is not dyadic, undecayed input."""
    b = GraphBuilder()
    b.add("input", Input((2, SIZE, SIZE)))
    synapse(b, rng, "stem", "input", (CHANNELS, 2, 3, 3), padding=1)
    x = "stem"
    for i, neuron in enumerate((Neuron(None, 1.0, 0.0), Neuron(2.0, 1.0, None), Neuron(3.0, 1.0, 0.0, False))):
        b.add(f"b{i}.lif", neuron, [x])
        synapse(b, rng, f"b{i}.conv", f"b{i}.lif", (CHANNELS, CHANNELS, 3, 3), padding=1)
        x = b.add(f"b{i}.add", Add(), [x, f"b{i}.conv"])
    return head(b, rng, b.add("head.lif", LIF, [x]))


def grouped(rng: np.random.Generator) -> Graph:
    """Grouped, dilated and strided convolutions, 1-d convolution, a slice of the channels, an inverted mask."""
    b = GraphBuilder()
    stem(b, rng)
    synapse(b, rng, "depthwise", "stem.lif", (CHANNELS, 1, 3, 3), padding=2, dilation=2, groups=CHANNELS)
    b.add("lif1", LIF, ["depthwise"])
    synapse(b, rng, "wide", Operand("lif1", AS_TOKENS), (2 * CHANNELS, CHANNELS // 2, 3), padding=1, groups=2)
    b.add("lif2", LIF, ["wide"])
    whole = View.of((2 * CHANNELS, TOKENS), (0, 1), (2 * CHANNELS, TOKENS))
    b.add("mask", Mask(invert=True), [Operand("lif2", whole.narrowed(0, 0, CHANNELS)),
                                      Operand("lif2", whole.narrowed(0, CHANNELS, 2 * CHANNELS))])  # fmt: skip
    back = View.of((CHANNELS, SIZE, SIZE), (0, 1, 2), (CHANNELS, SIZE, SIZE))
    synapse(b, rng, "strided", Operand("mask", back), (CHANNELS, CHANNELS, 3, 3), stride=2, padding=1)
    b.add("lif3", LIF, ["strided"])
    tokens = (SIZE // 2) ** 2
    return head(b, rng, Operand("lif3", View.of((CHANNELS, tokens), (0, 1), (CHANNELS, tokens))))


def normed(rng: np.random.Generator) -> Graph:
    """Batch norms, one of them behind no synapse."""
    b = GraphBuilder()
    b.add("input", Input((2, SIZE, SIZE)))
    synapse(b, rng, "conv", "input", (CHANNELS, 2, 3, 3), padding=1)
    for name, source in (("bn1", "conv"), ("bn2", "lif1")):
        params = {k: rng.uniform(0.5, 1.5, CHANNELS) for k in ("mean", "var", "weight", "bias")}
        b.add(name, BatchNorm(1e-5), [source], params)
        b.add(f"lif{name[-1]}", LIF, [name])
    return head(b, rng, "lif2")


def events(rng: np.random.Generator) -> Graph:
    """Event frames as input, no readout: one value per time step."""
    b = GraphBuilder()
    b.add("input", Input((2, SIZE, SIZE), format="frames", high=9))
    synapse(b, rng, "conv", "input", (CHANNELS, 2, 3, 3), padding=1, gain=0.5)
    b.add("lif", LIF, ["conv"])
    b.add("linear", Linear(), [Operand("lif", View.of((CHANNELS * TOKENS,), (0,), (CHANNELS * TOKENS,)))],
          {"weight": weights(rng, CLASSES, CHANNELS * TOKENS)})  # fmt: skip
    b.add("output", Output(), ["linear"])
    return b.build(time_steps=3, input_encoding="frames")


def odd_neurons(rng: np.random.Generator) -> Graph:
    """Initial membranes, τ, thresholds and reset voltages per channel or position, several spikes per step."""

    def eighths(low: int, high: int, *shape: int) -> np.ndarray:
        return rng.integers(low, high + 1, shape or (CHANNELS, 1, 1)) / 8

    threshold, tau, reset = eighths(4, 12), rng.choice([2.0, 4.0], (CHANNELS, 1, 1)), eighths(-8, 1)
    every = eighths(4, 12, CHANNELS, SIZE, SIZE)
    neurons = [
        (Neuron(float(tau.max()), float(threshold.max()), float(reset.max())),
         {"tau": tau, "v_threshold": threshold, "v_reset": reset, "initial": eighths(-16, 16)}),
        (Neuron(None, 0.5, None, False, max_spikes=None, v_min=-1.0), {"initial": eighths(-16, 16, 1)}),
        (Neuron(2.0, float(every.max()), 0.0, False, max_spikes=3), {"v_threshold": every}),
        (Neuron(4.0, 1.0, None), {"initial": eighths(0, 8, CHANNELS, SIZE, SIZE)}),
    ]  # fmt: skip
    b = GraphBuilder()
    b.add("input", Input((2, SIZE, SIZE)))
    x, channels = "input", 2
    for i, (op, params) in enumerate(neurons):
        synapse(b, rng, f"conv{i}", x, (CHANNELS, channels, 3, 3), padding=1)
        x, channels = b.add(f"lif{i}", op, [f"conv{i}"], params), CHANNELS
    return head(b, rng, x)


ZOO: dict[str, Build] = {
    f.__name__: f
    for f in (
        convnet, residual, token_attention, channel_attention, self_attention, spike_pooling, membrane_shortcut,
        grouped, normed, events, odd_neurons,
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
