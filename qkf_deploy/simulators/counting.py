"""Turns the arrays of one node into its ledger record. The operators hold the rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.operator import Arrays, Counts
from qkf_deploy.ir.values import Timing, ValueType
from qkf_deploy.ledger import LayerRecord, Ledger
from qkf_deploy.ops.exact import nonzero_per_image, per_image, signed_bits
from qkf_deploy.ops.synapse import FLOAT_BITS
from qkf_deploy.passes.fold import fold
from qkf_deploy.simulators.run import is_neuron


class Account:
    """Fills the ledger of a run, node by node.

    A float graph is counted as the network it folds to: nobody executes a batch norm or a divisor that its weights can
    hold. Spikes are the same in both, so the values of the graph that runs are counted, divided by the factors that
    folding moves.
    """

    def __init__(self, graph: Graph) -> None:
        self._given = graph
        self._graph = graph if graph.arithmetic == "integer" else fold(graph)
        self._layers: dict[str, LayerRecord] = {}
        self._moved = [n for n in self._graph if n.name not in graph.nodes]
        self._merged = {n.name: n.inputs[0] for n in self._graph if "weight" in n.params and self._reads_other(n)}
        self._kept: dict[str, np.ndarray] = {}

    def _reads_other(self, counted: Node) -> bool:
        """True for a synapse that folding merged with others: it reads what the first of them reads."""
        if self._graph is self._given:
            return False
        source = self._given[self._given[counted.name].inputs[0].node] if counted.name in self._given.nodes else None
        while source is not None and source.op.kind == "scale":
            source = self._given[source.inputs[0].node]
        return source is None or source.name != counted.inputs[0].node

    def enter(self, node: Node, inputs: Arrays, output: np.ndarray) -> None:
        """Count a node of the graph that runs: operands (views applied) and output, ``(T or 1, B, *shape)``."""
        if any(operand.node == node.name for operand in self._merged.values()):
            self._kept[node.name] = output
        counted = self._graph.nodes.get(node.name)
        if counted is None or node.op.kind == "input":
            return
        inputs, output = self._as_folded(node, counted, inputs, output)
        self._layers[node.name] = count_node(self._graph, counted, inputs, output)
        for scale in self._moved:  # a divisor that folding moved behind this node
            if scale.inputs[0].node == node.name:
                self._layers[scale.name] = count_node(self._graph, scale, [output], output)

    def _as_folded(
        self, node: Node, counted: Node, inputs: Arrays, output: np.ndarray
    ) -> tuple[Sequence[np.ndarray], np.ndarray]:
        if node.name in self._merged:
            operand = self._merged[node.name]
            value = self._kept[operand.node]
            inputs = [value if operand.view is None else operand.view.apply(value)]
            output = np.broadcast_to(np.zeros((), output.dtype), (*output.shape[:2], *counted.type.shape))
        given, folded = self._given.input_factors(node), self._graph.input_factors(counted)
        if given == folded:
            return inputs, output
        inputs = [np.rint(x / float(b / a)) if a != b else x for x, a, b in zip(inputs, given, folded, strict=True)]
        if "weight" not in counted.params:
            output = counted.op.run(inputs, counted.params, self._given.time_steps)
        return inputs, output

    def ledger(self, images: int) -> Ledger:
        """Everything entered, in the order of the network."""
        g = self._graph
        layers = tuple(self._layers[name] for name in g.nodes if name in self._layers)
        return Ledger(g.time_steps, images, g.arithmetic, g.input_encoding, layers, g.provenance)


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
    )


def count_node(graph: Graph, node: Node, inputs: Arrays, output: np.ndarray) -> LayerRecord:
    """Ledger record of a node from its operands (views applied) and its output, ``(T or 1, B, *shape)``."""
    return layer_record(graph, node, *node_counts(graph, node, inputs, output))


def node_counts(graph: Graph, node: Node, inputs: Arrays, output: np.ndarray) -> tuple[Counts, np.ndarray | None]:
    """(ledger classes, spikes per step if there are any) of :func:`count_node`."""
    types = graph.input_types(node)
    steps = graph.time_steps
    counts = dict(node.op.count(inputs, output, node.params, types, steps))
    entering = [_events(x, t, steps) for x, t in zip(inputs, types, strict=True) if t.is_events]
    if entering:
        counts["events_in_unary"] = np.sum([unary for unary, _ in entering], axis=0)
        counts["events_in_graded"] = np.sum([graded for _, graded in entering], axis=0)
    spikes = None
    if node.type.is_events and node.op.kind != "output":
        counts["events_out_unary"], counts["events_out_graded"] = _events(output, node.type, steps)
        if node.type.timing is Timing.STEP:
            spikes = output.sum(axis=tuple(range(2, output.ndim)), dtype=np.int64)
    if is_neuron(node.op.kind):
        counts["state_bytes"] = np.full(output.shape[1], 2 * node.type.size * steps * state_word(graph, node), np.int64)
    return counts, spikes


def _events(x: np.ndarray, type_: ValueType, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(unary, graded) events of a value per image; one constant over time arrives at every step."""
    repeat = steps if type_.timing is Timing.CONSTANT else 1
    return per_image(x) * repeat, nonzero_per_image(x) * repeat


def state_word(graph: Graph, node: Node) -> int:
    """Bytes of one stored membrane: the proven width rounded up to bytes, 4 in float graphs."""
    widths = graph.widths.get(node.name)
    if widths is None or widths.membrane is None:
        return FLOAT_BITS // 8
    return -(-signed_bits(*widths.membrane) // 8)
