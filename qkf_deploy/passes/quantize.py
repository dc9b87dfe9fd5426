"""Float graph to integer graph: per-channel weights, integer thresholds, byte input, proven widths.

The semantics are in docs/integer-semantics.md.

Every value of the integer graph is an integer times a positive scale. Spikes and counts have scale 1; a synapse sets
the scale of its drive per channel; a neuron absorbs it into its thresholds, which ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import UnsupportedError, UsageError
from qkf_deploy.ir import Graph, GraphBuilder, Node, Operand, compose
from qkf_deploy.ir.needs import need_floats
from qkf_deploy.ops import (
    Add,
    Concat,
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
    Shift,
    Sum,
    SumPool,
)  # fmt: skip
from qkf_deploy.options import BITS, QuantizeOptions
from qkf_deploy.passes.fold import fold
from qkf_deploy.passes.grid import is_own_grid
from qkf_deploy.passes.lift import lift_events
from qkf_deploy.passes.neurons import default_fraction_bits, integer_neuron
from qkf_deploy.passes.pixels import fold_normalization
from qkf_deploy.passes.reach import reaches
from qkf_deploy.passes.scales import (
    ScaleRules,
    Scales,
    computes_events,
    drive_scales,
    effective_weight,
    joined,
    seen_scale,
    shifts,
    step_unit,
    synapse_axis,
)
from qkf_deploy.passes.widths import attach, bound_spikes, lower_unreachable

#: A bias of this many bits is resolved as float64 resolves it.
_FLOAT64_BITS = 53
#: What an integer graph has as it is.
_UNCHANGED = (Add, Concat, Mask, MatMul, MaxPool, SumPool, Sum, Readout)


def check(options: QuantizeOptions, graph: Graph) -> None:
    """Raises UsageError for widths that do not exist and names of layers without weights."""
    for what, bits in (("bits", options.bits), ("first_bits", options.first_bits), *options.layer_bits.items()):
        if bits is not None and bits not in BITS:
            raise UsageError(f"{what}: {bits} bits per weight", hint=f"use one of {', '.join(map(str, BITS))}")
    for name in options.layer_bits:
        if "weight" not in graph[name].params:
            raise UsageError("has no weights to quantize", where=name)


def bits_of(options: QuantizeOptions, graph: Graph, node: Node) -> int:
    """Bits per weight of one synapse."""
    first = any(graph[o.node].op.kind == "input" for o in node.inputs)
    default = (options.first_bits or max(options.bits, 8)) if first else options.bits
    return options.layer_bits.get(node.name, default)


def quantize(graph: Graph, options: QuantizeOptions) -> Graph:
    """Integer graph with width proofs.

    Raises:
        UsageError: impossible options.
        UnsupportedError: values with different scales meet where they cannot be unified.
        ProofError: a sum could pass 62 bits.
    """
    need_floats(graph, "quantize")
    builder = _Quantizer(prepare(graph, options), options)
    return attach(bound_spikes(lower_unreachable(builder.run())))


@dataclass(frozen=True)
class Prepared:
    """A float graph on the way to integers.

    Attributes:
        graph: folded; reads integers.
        bits: per weight of every synapse.
        scale: real value of one unit of every value, broadcastable to its per-step shape.
        shift: bits by which the result of a synapse is shifted to that unit, ``(O,)``; absent: none.
    """

    graph: Graph
    bits: Mapping[str, int]
    scale: Scales
    shift: Mapping[str, np.ndarray]

    def unit(self, node: Node) -> np.ndarray:
        """Real value of one unit of a synapse's sum, before its shift, ``(O,)``."""
        axis = synapse_axis(node)
        others = tuple(i for i in range(len(node.type.shape)) if i != axis)
        out = np.broadcast_to(self.scale[node.name], node.type.shape).max(axis=others)
        return np.asarray(out / 2.0 ** self.shift.get(node.name, np.zeros(1)))


def prepare(graph: Graph, options: QuantizeOptions) -> Prepared:
    """Everything that is decided before numbers are rounded; raises what :func:`quantize` raises."""
    graph = fold(graph)
    check(options, graph)
    prepared, input_scale = _prepare_input(graph, options)
    rules = _rules(prepared, options, input_scale)
    prepared = fold(lift_events(prepared, drive_scales(prepared, rules, input_scale, unify=False)))
    rules = replace(_rules(prepared, options, input_scale), joined=joined(prepared))
    scale = drive_scales(prepared, rules, input_scale)
    return Prepared(prepared, rules.bits, scale, shifts(prepared, rules, scale))


_BYTE = 8  # bits


def _prepare_input(graph: Graph, options: QuantizeOptions) -> tuple[Graph, np.ndarray]:
    """The float graph reading integers, and the scale of its input."""
    if options.input == "bytes" and (options.input_bits != _BYTE or options.input_max is not None):
        raise UsageError("input_bits and input_max are of a fixed input", hint="use them with input='fixed'")
    one = np.ones((1,) * len(graph.input.type.shape))
    if graph.input_encoding == "frames":
        return graph, one
    if options.input == "bytes":
        return fold_normalization(graph), one
    op = graph.input.op
    pre = graph.preprocessing
    reach = options.input_max
    if reach is None:
        ends = [(edge - m) / s for m, s in zip(pre.mean, pre.std, strict=True) for edge in (0.0, 1.0)] if pre else [1.0]
        reach = max(abs(e) for e in ends)
    if not reach > 0 or not isinstance(op, Input):
        raise UsageError(f"input_max: {reach}", hint="give the largest magnitude of the normalized input")
    scale = one * (reach / (2 ** (options.input_bits - 1) - 1))
    return graph, scale


def _rules(graph: Graph, options: QuantizeOptions, input_scale: np.ndarray) -> ScaleRules:
    """What the scales must allow: the bits asked, and biases whose sum over time leaves room below 62 bits."""
    bits = {n.name: bits_of(options, graph, n) for n in graph if isinstance(n.op, Conv | Linear)}
    fraction = options.fraction_bits
    if fraction is None:
        fraction = max(
            (default_fraction_bits(n, n.op, options.decay_bits) for n in graph if isinstance(n.op, Neuron)), default=0
        )
    high = graph.input.type.high or 2 ** (options.input_bits - 1)
    reach = reaches(graph, high * float(input_scale.max()))
    room = 61 - fraction - graph.time_steps.bit_length()
    return ScaleRules(bits, options.scales == "keep", min(room, _FLOAT64_BITS), reach)


class _Quantizer:
    """One walk over the float graph; ``scale`` holds the scale of every integer value."""

    def __init__(self, prepared: Prepared, options: QuantizeOptions) -> None:
        self.prepared = prepared
        self.graph, self.bits, self.scale, self.shift = prepared.graph, prepared.bits, prepared.scale, prepared.shift
        self.options = options
        self.builder = GraphBuilder()
        self.alias: dict[str, Operand] = {}
        self.notices = list(self.graph.notices)
        self.on_grid: list[str] = []

    def run(self) -> Graph:
        for node in self.graph:
            self._node(node)
        if self.on_grid:
            self.notices.append(f"weights that lie on a grid keep it: {', '.join(self.on_grid)}")
        spec = f"bits={self.options.bits} first_bits={self.options.first_bits or max(self.options.bits, 8)}"
        if self.options.layer_bits:
            spec += " " + " ".join(f"{k}={v}" for k, v in sorted(self.options.layer_bits.items()))
        if self.options.scales != "keep":
            spec += f" scales={self.options.scales}"
        return replace(
            self.graph,
            nodes=dict(self.builder.nodes),
            arithmetic="integer",
            notices=tuple(dict.fromkeys(self.notices)),
            provenance={**self.graph.provenance, "quantize": spec},
        ).verify()

    def _node(self, node: Node) -> None:
        inputs = tuple(self._follow(o) for o in node.inputs)
        op = node.op
        if isinstance(op, Conv | Linear):
            self._synapse(node, replace(op, weight_bits=self.bits[node.name]), inputs)
        elif isinstance(op, Neuron):
            self._neuron(node, op, inputs)
        elif isinstance(op, Scale):
            self.alias[node.name] = inputs[0]
        elif isinstance(op, Input):
            self._input(node, op)
        elif isinstance(op, Output):
            self.builder.add(node.name, op, inputs, {"scale": self.scale[node.name]}, node.source)
        elif isinstance(op, Readout) and op.weights:
            whole = tuple(float(round(w / step_unit(op))) for w in op.weights)
            self.builder.add(node.name, replace(op, weights=whole), inputs, {}, node.source)
        elif isinstance(op, _UNCHANGED) or computes_events(self.graph, node):
            self.builder.add(node.name, op, inputs, {}, node.source)
        else:
            raise UnsupportedError(f"{op.kind} has no integer form", where=node.name)

    def _follow(self, operand: Operand) -> Operand:
        target = self.alias.get(operand.node)
        return operand if target is None else Operand(target.node, compose(target.view, operand.view))

    def _input(self, node: Node, op: Input) -> None:
        if op.format == "real":
            op = replace(op, format="fixed", bits=self.options.input_bits)
            self.builder.add(node.name, op, (), {"scale": self.scale[node.name]}, node.source)
        else:
            self.builder.add(node.name, op, (), {}, node.source)

    def _synapse(self, node: Node, op: Conv | Linear, inputs: tuple[Operand, ...]) -> None:
        self.builder.add(node.name, op, inputs, self._weights(node), node.source)
        if node.name in self.shift:
            bits = Shift(tuple(int(b) for b in self.shift[node.name]), synapse_axis(node))
            self.alias[node.name] = Operand(self.builder.add(f"{node.name}.shift", bits, [node.name], {}, node.source))

    def _weights(self, node: Node) -> dict[str, np.ndarray]:
        """Integer weights and bias: w_q = round(w s_in / s), b_q = round(b / s), s = s_out / 2^shift."""
        weight = effective_weight(self.graph, node, self.scale)
        per_channel = self.prepared.unit(node)
        limit = 2 ** (self.bits[node.name] - 1) - 1
        scaled = weight / per_channel.reshape(-1, *[1] * (weight.ndim - 1))
        if "scale" in node.params:
            _check_fits(node, scaled, limit)
        integers = np.clip(np.rint(scaled), -limit, limit).astype(_storage(self.bits[node.name]))
        self._note_weights(node, scaled, integers, limit)
        params = {"weight": integers}
        if "bias" in node.params:
            bias = node.params["bias"].astype(np.float64)
            params["bias"] = np.rint(bias / per_channel.reshape(-1, *[1] * (bias.ndim - 1))).astype(np.int64)
        return params

    def _note_weights(self, node: Node, scaled: np.ndarray, integers: np.ndarray, limit: int) -> None:
        """Remember which synapses keep a grid, and say which channels have fewer bits than asked."""
        exact = np.abs(scaled - integers) <= 2.0**-22 * np.abs(scaled)
        known = "scale" in node.params or is_own_grid(integers)
        if exact.all() and known and not (node.params["weight"] == 1).all():
            self.on_grid.append(node.name)
        largest = np.abs(integers.astype(np.int64)).reshape(len(integers), -1).max(axis=1)
        rounded = ~exact.reshape(len(exact), -1).all(axis=1)
        fewer = rounded & (2 * largest + 1 < limit)
        if fewer.any():
            kept = int(largest[fewer].min()).bit_length()
            self.notices.append(
                f"{node.name}: {int(fewer.sum())} of {quantity(len(fewer), 'channel')} keep "
                f"{kept + 1 if kept else 0} of {self.bits[node.name]} bits at least, "
                "so small are their weights beside their bias"
            )

    def _neuron(self, node: Node, op: Neuron, inputs: tuple[Operand, ...]) -> None:
        scale = seen_scale(self.graph, node.inputs[0], self.scale)
        made = integer_neuron(node, op, scale, self.options.fraction_bits, self.options.decay_bits)
        self.notices += [f"{node.name}: {decay.notice(self.graph.time_steps)}" for decay in made.rounded]
        self.builder.add(node.name, made.op, inputs, made.params, node.source)


def _check_fits(node: Node, scaled: np.ndarray, limit: int) -> None:
    """Raises UsageError where integers of more bits than asked would be cut off; a scale may cut off real weights."""
    integers = np.rint(scaled)
    largest = int(np.abs(integers).max())
    if largest > limit and bool((np.abs(scaled - integers) <= 2.0**-20 * np.abs(scaled)).all()):
        bits = largest.bit_length() + 1
        raise UsageError(
            f"its weights are integers of {bits} bits and keep their scale",
            where=node.name,
            hint=f"--layer-bits {node.name}={bits}, or --bits {bits}",
        )


def _storage(bits: int) -> type[np.signedinteger]:
    """Smallest integer type for weights of this many bits."""
    if bits <= 8:
        return np.int8
    return np.int16 if bits <= 16 else np.int32
