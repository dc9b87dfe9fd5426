"""Width proofs: for every accumulator, partial sum and membrane, a range that no input can leave."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import replace

import numpy as np

from qkf_deploy.errors import ProofError
from qkf_deploy.ir import Graph, GraphBuilder, Interval, Node, Widths, freeze
from qkf_deploy.ops import Conv, IntegerNeuron, Linear, Sum
from qkf_deploy.passes.compact import viewed

#: No membrane gets here: width proofs stop at 62 bits. The threshold of a channel of vanishing weights.
UNREACHABLE = 2**62


def intervals(graph: Graph) -> dict[str, Interval]:
    """Range of every value of an integer graph, from the weights and the input format alone."""
    out: dict[str, Interval] = {}
    for node in graph:
        with _named(node):
            operands = _operands(graph, node, out)
            out[node.name] = node.op.interval(operands, node.params, graph.input_types(node), graph.time_steps)
    return out


@contextlib.contextmanager
def _named(node: Node) -> Generator[None]:
    """A proof that fails names the node."""
    try:
        yield
    except ProofError as error:
        raise ProofError(error.message, where=error.where or node.name, hint=error.hint) from error


def prove(graph: Graph) -> dict[str, Widths]:
    """Widths of every node of an integer graph.

    Soundness: interval arithmetic per channel over the actual integer weights, border cases and thresholds. A synapse's
    bound is reached by the input that is at its extreme wherever the weight has the matching sign, so it is tight for
    each layer taken alone; correlations between layers are not used.

    Raises:
        ProofError: a sum or membrane could pass 62 bits.
    """
    values = intervals(graph)
    out: dict[str, Widths] = {}
    for node in graph:
        with _named(node):
            out[node.name] = _widths(graph, node, values)
    return out


def attach(graph: Graph) -> Graph:
    """The graph with its proven widths."""
    return replace(graph, widths=prove(graph)).verify()


def lower_unreachable(graph: Graph) -> Graph:
    """The graph with thresholds of :data:`UNREACHABLE` lowered to the smallest that is still never reached."""
    values = intervals(graph)
    nodes = dict(graph.nodes)
    for node in graph:
        if isinstance(node.op, IntegerNeuron) and (node.params["theta"] == UNREACHABLE).any():
            theta = node.params["theta"]
            reach = _highest_membrane(graph, node, node.op, _operands(graph, node, values))
            above = np.maximum(reach, 0) + 1  # of a neuron that rounds, half the threshold must not be reached
            above = above if node.op.rounding == "floor" else 2 * above
            lowered = np.where(theta == UNREACHABLE, above, theta)
            nodes[node.name] = replace(node, params=freeze({**node.params, "theta": lowered}))
    return replace(graph, nodes=nodes)


def _highest_membrane(graph: Graph, node: Node, op: IntegerNeuron, operands: list[Interval]) -> np.ndarray:
    """What no membrane passes; where the model merged time with the batch, whatever its carry becomes."""
    reach = _furthest(op, op.membrane_interval(operands, node.params, graph.time_steps))
    if op.time_merged_with_batch:
        with contextlib.suppress(ProofError):  # no bound: then no carry but this one can be proven
            chained, params = replace(op, carry="official"), {k: v for k, v in node.params.items() if k != "leftover"}
            chain = chained.membrane_interval(operands, params, graph.time_steps)
            reach = np.maximum(reach, _furthest(op, chain))
    return reach


def _furthest(op: IntegerNeuron, membrane: Interval) -> np.ndarray:
    """How far a membrane goes towards a threshold, of a signed neuron in either direction."""
    return np.maximum(membrane.high, -membrane.low) if op.signed else membrane.high


def bound_spikes(graph: Graph) -> Graph:
    """The graph with the proven maximum in every neuron whose spikes per step have no limit."""
    if not any(isinstance(node.op, IntegerNeuron) and node.op.max_spikes is None for node in graph):
        return graph
    builder = GraphBuilder()
    values: dict[str, Interval] = {}
    for node in graph:
        operands, op = _operands(graph, node, values), node.op
        values[node.name] = op.interval(operands, node.params, graph.input_types(node), graph.time_steps)
        if isinstance(op, IntegerNeuron) and op.max_spikes is None:
            most = max(int(values[node.name].high.max()), -int(values[node.name].low.min()))
            op = replace(op, max_spikes=max(1, most))
        builder.add(node.name, op, node.inputs, node.params, node.source)
    return replace(graph, nodes=dict(builder.nodes)).verify()


def proven(graph: Graph) -> Mapping[str, Widths]:
    """Widths that hold for the graph's actual weights; none for a float graph.

    Raises:
        ProofError: the graph carries widths that are narrower than what its weights can reach.
    """
    if graph.arithmetic == "float":
        return {}
    if not graph.widths:
        return prove(graph)
    check(graph)
    return graph.widths


def check(graph: Graph) -> None:
    """Prove again and compare with the stored widths.

    Raises:
        ProofError: a stored range is missing or narrower than what the weights can reach.
    """
    for name, proven in prove(graph).items():
        stored = graph.widths.get(name)
        if stored is None:
            raise ProofError("the file carries no width proof for this node", where=name, hint="quantize again")
        pairs: tuple[tuple[tuple[int, int] | None, tuple[int, int] | None], ...] = (
            (stored.value, proven.value),
            (stored.partial, proven.partial),
            (stored.membrane, proven.membrane),
        )
        if not all(_covers(a, b) for a, b in pairs):
            raise ProofError(
                f"the stored widths {stored} are narrower than the proven {proven}",
                where=name,
                hint="the file was altered; quantize the float network again",
            )


def _covers(stored: tuple[int, int] | None, proven: tuple[int, int] | None) -> bool:
    if proven is None:
        return True
    return stored is not None and stored[0] <= proven[0] and stored[1] >= proven[1]


def _operands(graph: Graph, node: Node, known: Mapping[str, Interval]) -> list[Interval]:
    """Ranges of the operands, views applied."""
    out: list[Interval] = []
    for operand in node.inputs:
        interval = known[operand.node]
        if operand.view is not None and interval.low.size == interval.high.size == 1:
            ones = (1,) * len(operand.view.shape)
            interval = Interval(interval.low.reshape(ones), interval.high.reshape(ones))
        elif operand.view is not None:
            shape = graph[operand.node].type.shape
            interval = Interval(*(viewed(v, shape, operand.view) for v in (interval.low, interval.high)))
        out.append(interval)
    return out


def _widths(graph: Graph, node: Node, values: Mapping[str, Interval]) -> Widths:
    value = _extremes(values[node.name])
    operands = _operands(graph, node, values)
    if isinstance(node.op, Conv | Linear):
        partial = node.op.partial_interval(operands, node.params, graph.input_types(node))
        return Widths(value, _extremes(partial))
    if isinstance(node.op, IntegerNeuron):
        return Widths(value, value, _extremes(node.op.membrane_interval(operands, node.params, graph.time_steps)))
    if isinstance(node.op, Sum):  # terms of either sign may come first
        (x,) = operands
        signed = Interval(np.minimum(x.low, 0), np.maximum(x.high, 0))
        return Widths(
            value, _extremes(node.op.interval([signed], node.params, graph.input_types(node), graph.time_steps))
        )
    return Widths(value, (min(value[0], 0), max(value[1], 0)))


def _extremes(interval: Interval) -> tuple[int, int]:
    return int(interval.low.min()), int(interval.high.max())
