"""Turns the arrays of one node into its ledger record. The operators hold the rules."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from qkf_deploy.ir import Graph, Node, Operand
from qkf_deploy.ir.operator import Counts
from qkf_deploy.ir.values import Timing, ValueType
from qkf_deploy.ledger import Connections, LayerRecord, Ledger
from qkf_deploy.ops import Conv, IntegerNeuron, Linear, Neuron
from qkf_deploy.ops.activity import magnitude, negative, nonzero_per_image, per_image, per_step
from qkf_deploy.ops.exact import signed_bits
from qkf_deploy.ops.synapse import FLOAT_BITS
from qkf_deploy.passes.fold import fold
from qkf_deploy.simulators.run import is_neuron


class Arrays:
    """What counting does with values besides asking the operators: here on numpy arrays."""

    def read(self, value: Any, operand: Operand) -> Any:
        """The value as an operand sees it."""
        return value if operand.view is None else operand.view.apply(value)

    def divided(self, value: Any, factor: float) -> Any:
        """The whole numbers that ``value`` is ``factor`` times of."""
        return np.rint(value / factor)

    def shaped(self, value: Any, shape: tuple[int, ...]) -> Any:
        """Something with the time steps and images of ``value``, and that per-step shape; nothing is asked of it."""
        return np.broadcast_to(np.zeros((), value.dtype), (*value.shape[:2], *shape))

    def run(self, node: Node, inputs: Sequence[Any], time_steps: int) -> Any:
        """The node's own output."""
        return node.op.run(inputs, node.params, time_steps)

    def counted(self, layers: Sequence[NodeCounts]) -> Sequence[NodeCounts]:
        """Counts as int64 arrays."""
        return layers


NodeCounts = tuple[Counts, "np.ndarray | None"]
_NUMPY = Arrays()


class CountedGraph:
    """What a graph is counted as.

    A float graph is counted as the network it folds to: nobody executes a batch norm or a divisor that its weights can
    hold. Spikes are the same in both, so the values of the graph that runs are counted, divided by the factors that
    folding moves.
    """

    def __init__(self, graph: Graph) -> None:
        self.given = graph
        self.graph = graph if graph.arithmetic == "integer" else fold(graph)
        self.moved = [n for n in self.graph if n.name not in graph.nodes]
        self.merged = {n.name: n.inputs[0] for n in self.graph if "weight" in n.params and self._reads_other(n)}
        self.records = {n.name: layer_record(self.graph, n, {}, None) for n in self.graph if n.op.kind != "input"}

    def _reads_other(self, counted: Node) -> bool:
        """True for a synapse that folding merged with others: it reads what the first of them reads."""
        if self.graph is self.given:
            return False
        source = self.given[self.given[counted.name].inputs[0].node] if counted.name in self.given.nodes else None
        while source is not None and source.op.kind == "scale":
            source = self.given[source.inputs[0].node]
        return source is None or source.name != counted.inputs[0].node


class Account:
    """Fills the ledger of a run, node by node.

    Args:
        graph: what runs, or what it is counted as.
        arrays: what is done with values.
        steps: time steps of the run, where they are not all of the graph's.
    """

    def __init__(self, graph: Graph | CountedGraph, arrays: Arrays = _NUMPY, steps: int | None = None) -> None:
        self._rules = graph if isinstance(graph, CountedGraph) else CountedGraph(graph)
        self._arrays, self._steps = arrays, steps or self._rules.graph.time_steps
        self._layers: dict[str, NodeCounts] = {}
        self._kept: dict[str, Any] = {}

    def enter(self, node: Node, inputs: Sequence[Any], output: Any) -> None:
        """Count a node of the graph that runs: operands (views applied) and output, ``(T or 1, B, *shape)``."""
        rules = self._rules
        if any(operand.node == node.name for operand in rules.merged.values()):
            self._kept[node.name] = output
        counted = rules.graph.nodes.get(node.name)
        if counted is None or node.op.kind == "input":
            return
        inputs, output = self._as_folded(node, counted, inputs, output)
        self._layers[node.name] = self._counts(counted, inputs, output)
        for scale in rules.moved:  # a divisor that folding moved behind this node, or drives that it puts side by side
            if scale.inputs[0].node == node.name:
                self._layers[scale.name] = self._counts(scale, [output] * len(scale.inputs), output)

    def _counts(self, node: Node, inputs: Sequence[Any], output: Any) -> NodeCounts:
        return node_counts(self._rules.graph, node, inputs, output, self._steps)

    def _as_folded(self, node: Node, counted: Node, inputs: Sequence[Any], output: Any) -> tuple[Sequence[Any], Any]:
        rules, arrays = self._rules, self._arrays
        if len(counted.inputs) != len(node.inputs):  # drives side by side in the place of their norm: nothing counts
            return [output] * len(counted.inputs), output
        if node.name in rules.merged:
            operand = rules.merged[node.name]
            inputs = [arrays.read(self._kept[operand.node], operand)]
            output = arrays.shaped(output, counted.type.shape)
        given, folded = rules.given.input_factors(node), rules.graph.input_factors(counted)
        if given == folded:
            return inputs, output
        inputs = [
            arrays.divided(x, float(b / a)) if a != b else x for x, a, b in zip(inputs, given, folded, strict=True)
        ]
        if "weight" not in counted.params:
            output = arrays.run(counted, inputs, self._steps)
        return inputs, output

    def ledger(self, images: int) -> Ledger:
        """Everything entered, in the order of the network."""
        g = self._rules.graph
        names = [name for name in g.nodes if name in self._layers]
        counts = self._arrays.counted([self._layers[name] for name in names])
        layers = tuple(self._rules.records[n].with_counts(*c) for n, c in zip(names, counts, strict=True))
        return Ledger(self._steps, images, g.arithmetic, g.input_encoding, layers, g.provenance)


def empty_ledger(graph: Graph) -> Ledger:
    """The ledger of no image: what is static about every layer that a run of the network counts."""
    counted = graph if graph.arithmetic == "integer" else fold(graph)
    layers = tuple(layer_record(counted, node, {}, None) for node in counted if node.op.kind != "input")
    return Ledger(counted.time_steps, 0, counted.arithmetic, counted.input_encoding, layers, counted.provenance)


def layer_record(graph: Graph, node: Node, counts: Counts, spikes_per_step: np.ndarray | None) -> LayerRecord:
    """Ledger record of a node: its static description and the given counts."""
    types = graph.input_types(node)
    cost = node.op.static_cost(types, node.params)
    widths = graph.widths.get(node.name)
    weight_bits = 0
    if "weight" in node.params and node.op.kind in ("conv", "linear"):
        weight_bits = getattr(node.op, "weight_bits", None) or FLOAT_BITS
    return LayerRecord(
        name=node.name,
        op=node.op.kind,
        input_kinds=tuple(t.kind.value for t in types),
        input_sizes=tuple(t.size for t in types),
        output_kind=node.type.kind.value,
        output_size=node.type.size,
        timing=(types[0] if types else node.type).timing.value,
        dense_macs=cost.dense_macs,
        border_exact_macs=cost.border_exact_macs,
        weight_bits=weight_bits,
        accumulator_bits=signed_bits(*widths.partial) if widths else 0,
        membrane_bits=signed_bits(*widths.membrane) if widths and widths.membrane else 0,
        parameters=sum(p.size for p in node.params.values()),
        counts=counts,
        spikes_per_step=spikes_per_step,
        input_factors=graph.input_factors(node),
        connections=_connections(node),
        leaky=_leaks(node),
        leftovers=_leftovers(node),
    )


def _connections(node: Node) -> Connections | None:
    op = node.op
    if not isinstance(op, Conv | Linear):
        return None
    outputs, inputs, *kernel = node.params["weight"].shape
    if isinstance(op, Linear):
        return Connections(inputs, outputs)
    return Connections(inputs * op.groups, outputs, op.groups, tuple(kernel), op.stride)


def _leaks(node: Node) -> bool:
    """True for LIF and PLIF: a step keeps less than the whole membrane."""
    if isinstance(node.op, Neuron):
        return node.op.tau is not None or node.op.decay not in (None, 1.0)
    return isinstance(node.op, IntegerNeuron) and node.op.decay_multiplier != 1 << node.op.decay_shift


def node_counts(
    graph: Graph, node: Node, inputs: Sequence[Any], output: Any, time_steps: int | None = None
) -> NodeCounts:
    """(ledger classes, spikes per step if there are any) of a node from its operands and output.

    Args:
        graph: the graph that is counted.
        node: of it.
        inputs: operands, views applied, ``(T or 1, B, *shape)``: arrays, or what :mod:`qkf_deploy.ops.activity` knows.
        output: its value.
        time_steps: of these values, where they are not all of the graph's.
    """
    types = graph.input_types(node)
    steps = time_steps or graph.time_steps
    counts = dict(node.op.count(inputs, output, node.params, types, steps))
    entering = [_events(x, t, steps) for x, t in zip(inputs, types, strict=True) if t.is_events]
    if entering:
        counts["events_in_unary"], counts["events_in_graded"] = (
            functools.reduce(operator.add, column) for column in zip(*entering, strict=True)
        )
    spikes = None
    signed = [negatives(x, t, steps) for x, t in zip(inputs, types, strict=True) if t.is_signed]
    if signed:
        counts["events_in_negative"] = functools.reduce(operator.add, signed)
    if node.type.is_events and node.op.kind != "output":
        counts["events_out_unary"], counts["events_out_graded"] = _events(output, node.type, steps)
        if node.type.is_signed:
            counts["events_out_negative"] = negatives(output, node.type, steps)
        if node.type.timing is Timing.STEP:
            spikes = per_step(magnitude(output) if node.type.is_signed else output)
    if is_neuron(node.op.kind):
        accesses = (1 if _leftovers(node) else 2) * node.type.size * steps  # a leftover is never written
        counts["state_bytes"] = np.full(output.shape[1], accesses * state_word(graph, node), np.int64)
    return counts, spikes


def _leftovers(node: Node) -> int:
    """Stored membranes of a neuron, all steps."""
    return node.params["leftover"].size if "leftover" in node.params else 0


def _events(x: Any, type_: ValueType, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(unary, graded) events of a value per image; one constant over time arrives at every step."""
    repeat = steps if type_.timing is Timing.CONSTANT else 1
    return per_image(magnitude(x) if type_.is_signed else x) * repeat, nonzero_per_image(x) * repeat


def negatives(x: Any, type_: ValueType, steps: int) -> np.ndarray:
    """Spikes of negative polarity per image, as :func:`_events` counts spikes."""
    return per_image(negative(x)) * (steps if type_.timing is Timing.CONSTANT else 1)


def state_word(graph: Graph, node: Node) -> int:
    """Bytes of one stored membrane: the proven width, or the leftovers', rounded up to bytes; 4 in float graphs."""
    widths, left = graph.widths.get(node.name), node.params.get("leftover")
    if widths is None or widths.membrane is None:
        return FLOAT_BITS // 8
    if left is not None:
        return -(-signed_bits(int(left.min()), int(left.max())) // 8)
    return -(-signed_bits(*widths.membrane) // 8)
