"""Seeded random integer graphs: every operator alone, attention blocks, a small network. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from netbuild import Growing

from qkf_deploy import ops
from qkf_deploy.ir import Graph, Operand, View, identity
from qkf_deploy.passes.decay import approximate
from qkf_deploy.passes.widths import attach
from qkf_deploy.simulators.run import Run


@dataclass(frozen=True)
class Case:
    """A graph with inputs ``(T or 1, B, *shape)``."""

    name: str
    graph: Graph
    inputs: np.ndarray


def differing(a: Run, b: Run) -> list[str]:
    """What two runs disagree on; values must agree in type too."""
    out = [] if a.ledger.to_dict() == b.ledger.to_dict() else ["ledger"]
    for what in ("values", "membranes", "spikes"):
        left, right = getattr(a, what), getattr(b, what)
        out += [f"{what}: names"] if set(left) != set(right) else []
        out += [
            f"{what}: {name}"
            for name in left
            if name in right and not (np.array_equal(left[name], right[name]) and left[name].dtype == right[name].dtype)
        ]
    for what in ("logits", "raw_output"):
        if not np.array_equal(getattr(a, what), getattr(b, what)):
            out.append(what)
    return out


class Maker(Growing):
    """Grows an integer graph with random parameters."""

    def __init__(self, seed: int, shape: tuple[int, ...], form: str = "frames", high: int = 3, bits: int = 8) -> None:
        scale = {"scale": np.full((1,) * len(shape), 0.01)} if form == "fixed" else {}
        super().__init__(seed, ops.Input(shape, form, bits, high), **scale)  # type: ignore[arg-type]
        self.form = form

    def weights(self, *shape: int, bits: int = 8) -> np.ndarray:
        limit = 2 ** (bits - 1) - 1
        dtype = np.int8 if bits <= 8 else np.int16 if bits <= 16 else np.int32
        w = self.rng.integers(-limit, limit + 1, shape)
        w[self.rng.random(shape) < 0.2] = 0
        return w.astype(dtype)

    def conv(self, name: str, source: Operand | str, out: int, kernel: tuple[int, ...], **more: object) -> str:
        """Convolution; ``more``: its attributes, bits, bias (None, "channel", "cases")."""
        rank = len(kernel)
        wide = {k: more.get(k, (d,) * rank) for k, d in (("stride", 1), ("padding", 0), ("dilation", 1))}
        groups, bits, bias = more.get("groups", 1), more.get("bits", 8), more.get("bias", "channel")
        apart = {k: more[k] for k in ("spread", "tail") if k in more}
        op = ops.Conv(**wide, **apart, groups=groups, weight_bits=bits)  # type: ignore[arg-type]
        shape = self.read(source)
        weight = self.weights(out, shape[0] // groups, *kernel, bits=bits)  # type: ignore[operator,arg-type]
        params = {"weight": weight}
        cases = tuple(len(a.cases()[0]) for a in op.axes(shape, weight)) if bias == "cases" else ()
        if bias is not None:
            params["bias"] = self.rng.integers(-500, 501, (out, *cases))
        return self.add(name, op, source, **params)

    def neuron(self, name: str, source: Operand | str, theta: int, **more: object) -> str:
        """Neuron with a threshold per channel around ``theta``.

        ``more``: tau, soft, fraction, leftover (T), spikes (most per step), initial, lowest, decays (one per
        channel), rounding, strict, late (delayed reset), signed.
        """
        shape = self.read(source)
        decay = approximate(more.get("tau", 2.0), 12)  # type: ignore[arg-type]
        fraction = int(more.get("fraction", 0))  # type: ignore[call-overload]
        low, high = max(1, theta // 2), max(1, 2 * theta)
        thetas = self.rng.integers(low, high + 1, (shape[0], *[1] * (len(shape) - 1))) << fraction
        steps = more.get("leftover")
        params = {"theta": thetas}
        if steps:
            params["leftover"] = self.rng.integers(-high, high + 1, (steps, *shape))  # type: ignore[arg-type]
        if more.get("initial"):
            params["initial"] = self.rng.integers(-3 * high, 3 * high + 1, shape) << fraction
        if more.get("lowest"):
            params["lowest"] = -thetas
        multiplier, most = decay.multiplier, more.get("spikes", 1)
        if more.get("decays"):
            params["decay_multiplier"] = self.rng.integers(0, (1 << decay.shift) + 1, thetas.shape)
            multiplier = int(params["decay_multiplier"].max())
        op = ops.IntegerNeuron(
            multiplier, decay.shift, fraction, bool(more.get("soft")), "stored" if steps else "own",
            max_spikes=most,  # type: ignore[arg-type]
            rounding=more.get("rounding", "floor"),  # type: ignore[arg-type]
            strict=bool(more.get("strict")), reset_delay=bool(more.get("late")), signed=bool(more.get("signed")),
        )  # fmt: skip
        return self.add(name, op, source, **params)

    def case(self, name: str, steps: int, images: int, *, extreme: str = "") -> Case:
        """Finish with the output node and inputs; ``extreme``: zeros, low, high."""
        if "output" not in self.builder.nodes:
            self.add("output", ops.Output(), scale=np.array(0.25).reshape((1,) * len(self.shape(self.last))))
        encoding = "frames" if self.form == "frames" else "direct"
        graph = attach(self.builder.build(time_steps=steps, input_encoding=encoding, arithmetic="integer"))
        low, high = graph.input.type.low, graph.input.type.high
        shape = (steps if encoding == "frames" else 1, images, *self.op.shape)
        x = self.rng.integers(low, high + 1, shape)
        if encoding == "frames":
            x *= self.rng.random(shape) < 0.4
        fixed: Mapping[str, int | None] = {"zeros": 0, "low": low, "high": high}
        return Case(name, graph, np.full(shape, fixed[extreme], np.int64) if extreme else x.astype(np.int64))


def swapped(shape: tuple[int, ...]) -> View:
    """The last two axes exchanged."""
    order = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    return identity(shape).transposed(order)


def _conv_cases(seed: int) -> Iterator[Case]:
    settings: list[tuple[str, tuple[int, ...], str, tuple[int, ...], dict[str, object]]] = [
        ("conv 3x3 bytes border bias", (3, 7, 6), "bytes", (3, 3), {"padding": (1, 1), "bias": "cases"}),
        ("conv 2-d grouped stride", (4, 8, 7), "frames", (3, 2), {"stride": (2, 1), "padding": (1, 0), "groups": 2}),
        ("conv 2-d depthwise dilated", (4, 9, 9), "frames", (3, 3), {"dilation": (2, 2), "groups": 4, "bias": None}),
        ("conv transposed", (4, 5, 4), "frames", (3, 2), {"spread": (2, 3), "tail": (1, 0), "padding": (2, 1)}),
        ("conv 1-d", (5, 11), "frames", (3,), {"padding": (1,), "stride": (2,)}),
        ("conv 1-d pointwise", (6, 4), "frames", (1,), {"bias": None}),
        ("conv 24 bits fixed input", (2, 6, 6), "fixed", (5, 5), {"padding": (2, 2), "bits": 24, "bias": "cases"}),
    ]
    for index, (name, shape, form, kernel, more) in enumerate(settings):
        maker = Maker(seed + index, shape, form)
        maker.conv("op", "input", 4, kernel, **more)
        yield maker.case(name, 3, 2, extreme="low" if form == "fixed" and seed % 2 else "")


def _linear_cases(seed: int) -> Iterator[Case]:
    maker = Maker(seed, (3, 4, 5))
    view = View.of((3, 4, 5), (1, 2, 0), (20, 3))
    weight, bias = maker.weights(7, 3), maker.rng.integers(-99, 100, 7)
    maker.add("op", ops.Linear(8), Operand("input", view), weight=weight, bias=bias)
    yield maker.case("linear over a permuted view", 2, 2)
    maker = Maker(seed, (6,), "bytes")
    maker.add("op", ops.Linear(16), weight=maker.weights(3, 6, bits=16))
    yield maker.case("linear constant", 4, 2, extreme="high")


def neuron_case(seed: int, steps: int, **more: object) -> Case:
    """A neuron behind random drives of both signs."""
    maker = Maker(seed, (3, 4, 4))
    maker.conv("drive", "input", 5, (1, 1))
    maker.neuron("op", "drive", 120, **{**more, "leftover": steps if more.get("leftover") else 0})
    return maker.case(f"neuron T={steps} {more}", steps, 3)


def _neuron_cases(seed: int) -> Iterator[Case]:
    settings: list[tuple[int, dict[str, object]]] = [
        (1, {"tau": None}), (16, {"tau": 2.0}), (8, {"tau": 1.7, "fraction": 8}), (5, {"tau": 3.3, "soft": True}),
        (4, {"tau": 2.0, "leftover": True}), (9, {"tau": None, "soft": True, "fraction": 4}),
        (3, {"tau": 1.3, "soft": True, "fraction": 8, "leftover": True}),
        (5, {"tau": 2.0, "initial": True}), (6, {"tau": 4.0, "decays": True, "initial": True, "fraction": 2}),
        (5, {"tau": None, "soft": True, "spikes": 9, "lowest": True, "initial": True}),
        (4, {"tau": 1.7, "spikes": 2, "fraction": 3}),
        (4, {"tau": 4 / 3, "spikes": 4, "rounding": "half_even", "soft": True}),
        (3, {"tau": 2.0, "spikes": 4, "rounding": "half_up", "initial": True}),
        (5, {"tau": 2.0, "soft": True, "strict": True}), (5, {"tau": 2.0, "soft": True, "late": True}),
        (5, {"tau": None, "signed": True}), (4, {"tau": 2.0, "soft": True, "signed": True, "strict": True}),
        (4, {"tau": 1.7, "soft": True, "signed": True, "spikes": 3, "rounding": "half_up"}),
    ]  # fmt: skip
    for index, (steps, more) in enumerate(settings):
        yield neuron_case(seed + index, steps, **more)
    maker = Maker(seed, (2, 3, 3), "bytes")
    maker.conv("drive", "input", 3, (3, 3), padding=(1, 1))
    maker.neuron("op", "drive", 9000)
    yield maker.case("neuron with constant drive", 6, 2)


def _pool_cases(seed: int) -> Iterator[Case]:
    maker = Maker(seed, (3, 7, 7))
    maker.conv("drive", "input", 3, (1, 1))
    maker.add("op", ops.MaxPool((3, 3), (2, 2), (1, 1)), "drive")
    yield maker.case("max pool of negative drives", 3, 2)
    maker = Maker(seed, (2, 9))
    maker.add("op", ops.MaxPool((2,), (2,), (0,)))
    yield maker.case("max pool 1-d", 2, 2)
    maker = Maker(seed, (3, 6, 5))
    maker.add("op", ops.SumPool((3, 2), (2, 1), (1, 0)))
    yield maker.case("sum pool", 3, 2, extreme="high")


def _elementwise_cases(seed: int) -> Iterator[Case]:
    maker = Maker(seed, (2, 4, 4))
    maker.add("op", ops.Add(), "input", Operand("input", swapped((2, 4, 4))))
    yield maker.case("add of counts, one transposed", 3, 2)
    maker = Maker(seed, (2, 4, 4), "bytes")
    maker.conv("a", "input", 2, (1, 1))
    maker.neuron("n", "a", 5000)
    maker.add("op", ops.Add(), "a", "n")
    yield maker.case("add of a constant and a value per step", 4, 2)
    maker = Maker(seed, (2, 4, 4), "bytes")
    maker.conv("a", "input", 3, (1, 1))
    maker.neuron("n", "a", 5000)
    maker.add("op", ops.Concat(0), "a", "n")
    yield maker.case("concat of a constant and a value per step", 4, 2)
    for invert in (False, True):
        maker = Maker(seed, (2, 4, 6))
        view = View.of((2, 4, 6), (0, 1, 2), (8, 6))
        maker.add("sum", ops.Sum((0,), keepdims=True), Operand("input", view))
        maker.neuron("gate", "sum", 3)
        maker.add("op", ops.Mask(invert), "gate", Operand("input", view))
        yield maker.case(f"mask broadcast invert={invert}", 4, 2)


def _signed_cases(seed: int) -> Iterator[Case]:
    """Spikes of either polarity that gate, multiply, add up and drive."""
    for extreme in ("", "low"):
        maker = Maker(seed, (4, 5), "fixed")
        maker.conv("a", "input", 4, (1,))
        x = maker.neuron("x", "a", 900, signed=True)
        y = maker.neuron("y", "a", 400, signed=True, spikes=3, soft=True)
        maker.add("kv", ops.MatMul(), x, Operand(y, swapped((4, 5))))
        maker.add("qkv", ops.MatMul(), "kv", x)
        z = maker.neuron("z", "qkv", 4, signed=True)
        maker.add("mask", ops.Mask(), z, y)
        maker.add("add", ops.Add(), "mask", x)
        maker.add("sum", ops.Sum((0,), keepdims=True), "add")
        gate = maker.neuron("gate", "sum", 2, signed=True)
        maker.conv("b", "add", 4, (3,), padding=(1,))
        maker.add("turned", ops.Mask(), gate, "b")
        maker.add("readout", ops.Readout(), "turned")
        yield maker.case(f"signed events {extreme}", 4, 3, extreme=extreme)


def _shift_cases(seed: int) -> Iterator[Case]:
    for bits in ((3,), (0, 1, 5)):
        maker = Maker(seed, (2, 4, 4))
        maker.conv("drive", "input", 3, (1, 1))
        maker.add("op", ops.Shift(bits), "drive")
        yield maker.case(f"shift by {bits}", 3, 2)


def _reduce_cases(seed: int) -> Iterator[Case]:
    maker = Maker(seed, (2, 3, 5, 4))
    maker.add("op", ops.MatMul(), "input", Operand("input", swapped((2, 3, 5, 4))))
    yield maker.case("matmul of counts", 3, 2)
    maker = Maker(seed, (3, 4, 4))
    maker.conv("drive", "input", 3, (1, 1))
    maker.add("op", ops.MatMul(), "drive", Operand("input", swapped((3, 4, 4))))
    yield maker.case("matmul with drives", 2, 2)
    maker = Maker(seed, (3, 4, 4))
    maker.add("op", ops.Sum((1, 2)))
    yield maker.case("sum over positions", 3, 2, extreme="zeros")
    maker = Maker(seed, (6,))
    maker.add("op", ops.Sum((0,)))
    yield maker.case("sum to a scalar", 3, 2)
    maker = Maker(seed, (4, 3))
    maker.add("op", ops.Readout())
    yield maker.case("readout", 7, 3)
    maker = Maker(seed, (4, 3))
    maker.add("op", ops.Readout((3.0, 0.0, -70000.0)))
    yield maker.case("weighted readout", 3, 3)
    maker = Maker(seed, (4,), "bytes")
    maker.add("op", ops.Readout())
    yield maker.case("readout of a constant", 5, 2)
    maker = Maker(seed, (4, 3))
    maker.add("output", ops.Output(), Operand("input", swapped((4, 3))), scale=np.array([[0.5]]))
    yield maker.case("input to output, transposed", 2, 2)


FAMILIES: Mapping[str, Callable[[int], Iterator[Case]]] = {
    "conv": _conv_cases,
    "linear": _linear_cases,
    "neuron": _neuron_cases,
    "pool": _pool_cases,
    "elementwise": _elementwise_cases,
    "signed": _signed_cases,
    "shift": _shift_cases,
    "reduce": _reduce_cases,
}


def network_case(seed: int = 0, steps: int = 4, images: int = 3) -> Case:
    """Three convolutions with residual additions and a classifier on 3 x 8 x 8 pixels."""
    maker = Maker(seed, (3, 8, 8), "bytes")
    maker.conv("conv1", "input", 4, (3, 3), padding=(1, 1), bias="cases")
    maker.neuron("lif1", "conv1", 9000)
    maker.conv("conv2", "lif1", 4, (3, 3), padding=(1, 1))
    maker.neuron("lif2", "conv2", 150)
    maker.add("add1", ops.Add(), "lif1", "lif2")
    maker.conv("conv3", "add1", 4, (3, 3), padding=(1, 1), groups=2)
    maker.neuron("lif3", "conv3", 150, tau=1.7, fraction=8, soft=True)
    maker.add("add2", ops.Add(), "add1", "lif3")
    _head(maker, "add2", 10)
    return maker.case("network", steps, images)


def _head(maker: Maker, source: str, classes: int) -> None:
    axes = tuple(range(1, len(maker.shape(source))))
    maker.add("head.sum", ops.Sum(axes, role="readout"), source)
    maker.add("head.readout", ops.Readout())
    weight = maker.weights(classes, maker.shape(source)[0])
    maker.add("head", ops.Linear(8), weight=weight, bias=maker.rng.integers(-99, 100, classes))


def block_case(kind: str, dim: int, heads: int, side: int, steps: int = 4, images: int = 1, seed: int = 0) -> Case:
    """One QKFormer block (Eq. 3-8 of arXiv 2403.16552) on spikes: ``qkta``, ``qkca`` or ``ssa``, with its MLP."""
    maker = Maker(seed, (dim, side, side), high=1)
    tokens = View.of((dim, side, side), (0, 1, 2), (dim, side * side))
    attention = _ssa if kind == "ssa" else _qk
    mixed = attention(maker, kind, Operand("input", tokens), dim, heads, side * side)
    maker.conv("proj_conv", mixed, dim, (1,))
    maker.neuron("proj_lif", "proj_conv", _theta(dim, 0.1))
    maps = View.of((dim, side * side), (0, 1), (dim, side, side))
    maker.add("add1", ops.Add(), "input", Operand("proj_lif", maps))
    maker.conv("fc1_conv", "add1", 4 * dim, (1, 1))
    maker.neuron("fc1_lif", "fc1_conv", _theta(dim, 0.6))
    maker.conv("fc2_conv", "fc1_lif", dim, (1, 1))
    maker.neuron("fc2_lif", "fc2_conv", _theta(4 * dim, 0.2))
    maker.add("add2", ops.Add(), "add1", "fc2_lif")
    _head(maker, "add2", 10)
    return maker.case(kind, steps, images)


def _theta(fan_in: int, rate: float) -> int:
    """About one standard deviation of the drive: weights are uniform in ±127, inputs spike at ``rate``."""
    return int(127 / 3**0.5 * (fan_in * rate) ** 0.5)


def _branch(maker: Maker, name: str, source: Operand, dim: int) -> str:
    maker.conv(f"{name}_conv", source, dim, (1,))
    return maker.neuron(f"{name}_lif", f"{name}_conv", _theta(dim, 0.3))


def _qk(maker: Maker, kind: str, source: Operand, dim: int, heads: int, count: int) -> Operand:
    split = View.of((dim, count), (0, 1), (heads, dim // heads, count))
    q, k = (Operand(_branch(maker, name, source, dim), split) for name in "qk")
    axis = 1 if kind == "qkta" else 2
    maker.add("attn_sum", ops.Sum((axis,), keepdims=True), q)
    maker.neuron("attn_lif", "attn_sum", maker.shape("input")[0] // heads // 3)
    maker.add("mask", ops.Mask(), "attn_lif", k)
    return Operand("mask", View.of((heads, dim // heads, count), (0, 1, 2), (dim, count)))


def _ssa(maker: Maker, kind: str, source: Operand, dim: int, heads: int, count: int) -> Operand:
    width = dim // heads
    per_token = View.of((heads, width, count), (0, 2, 1), (heads, count, width))
    q, k, v = (_branch(maker, name, source, dim) for name in "qkv")
    transposed = View.of((heads, width, count), (0, 1, 2), (heads, width, count))
    maker.add("kv", ops.MatMul(), Operand(k, transposed), Operand(v, per_token))
    maker.add("qkv", ops.MatMul(), Operand(q, per_token), "kv")
    mixed = View.of((heads, count, width), (0, 2, 1), (dim, count))
    maker.neuron("attn_lif", Operand("qkv", mixed), max(1, width * count // 1000))
    return Operand("attn_lif")
