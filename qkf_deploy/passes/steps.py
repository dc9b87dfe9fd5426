"""Another number of time steps for a network that shows one image at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import UnsupportedError, UsageError
from qkf_deploy.ir import Graph, GraphBuilder, Node, Operand
from qkf_deploy.ops import Readout, Scale, Sum, SumPool
from qkf_deploy.passes.fold import as_fraction, fold


def with_time_steps(graph: Graph, time_steps: int) -> Graph:
    """The folded float network for another number of steps T: what its model computes when its T is set to it.

    A mean over time stays a mean: the factor behind it follows T. A sum over time stays a sum. Neurons, synapses and
    attention work step by step and know nothing of T.

    Whether the network answers as well as at the T it was trained with is another matter: its weights and batch norms
    were fitted to that one.

    Args:
        graph: float graph with direct input, folded or not.
        time_steps: T.

    Raises:
        UsageError: an integer graph, or no possible T.
        UnsupportedError: T is part of the network: event frames, a membrane stored for every step, or a factor behind
            the sum over time that may or may not have T in it.
    """
    if time_steps < 1:
        raise UsageError(f"time_steps: {time_steps}", hint="use 1 or more")
    if graph.arithmetic != "float":
        raise UsageError("the integers of a quantized network belong to its T", hint="give the float network")
    folded = fold(graph)
    if time_steps == graph.time_steps:
        return folded
    _check(graph)
    weighted = [n.name for n in folded if isinstance(n.op, Readout) and n.op.weights]
    if weighted:
        raise UnsupportedError(
            "gives each time step a weight of its own", where=weighted[0], hint="trace the model with the other T"
        )
    means = [node.name for node in folded if isinstance(node.op, Readout) and _is_mean(folded, node)]
    told = [f"runs {quantity(time_steps, 'time step')}, the network was made with {graph.time_steps}"]
    if means and graph.time_steps == 1:
        told.append("made with one time step, where the sum and the mean over time are the same: taken as the mean")
    out = replace(
        _rescaled(graph, means, Fraction(graph.time_steps, time_steps)),
        time_steps=time_steps,
        assumptions=tuple(a for a in graph.assumptions if a.name != "T"),
        notices=(*graph.notices, *told),
        provenance={**graph.provenance, "steps": f"{time_steps} instead of {graph.time_steps}"},
    )
    return fold(out)


def means_over_time(graph: Graph, after: Sequence[Node]) -> frozenset[str]:
    """Sums over time that stand for a mean; where nothing behind them adds a bias, none: that changes no answer.

    Args:
        graph: float or integer.
        after: its nodes behind the sums.

    Raises:
        UnsupportedError: whether one is a mean cannot be told.
    """
    if not any("bias" in node.params for node in after):
        return frozenset()
    plain = [n for n in after if isinstance(n.op, Readout) and not n.op.weights]
    return frozenset(node.name for node in plain if _is_mean(graph, node))


def _check(graph: Graph) -> None:
    """Raises UnsupportedError where T is part of the input or of the parameters."""
    if graph.input_encoding != "direct":
        raise UnsupportedError(
            f"T is a property of the input: {graph.time_steps} event frames of every recording",
            hint="make the frames for another T, and trace the model with that T",
        )
    for node in graph:
        if node.op.steps_awaited > 1:
            raise UnsupportedError(
                f"attends over chunks of {node.op.steps_awaited} of {graph.time_steps} time steps: whether the chunks "
                "grow with T is not known",
                where=node.name,
                hint="trace the model with the other T",
            )
        if getattr(node.op, "carry", "own") == "stored":
            raise UnsupportedError(
                f"starts each of its {graph.time_steps} steps from a membrane stored for it",
                where=node.name,
                hint="choose T before carry='stored'",
            )


def _is_mean(graph: Graph, readout: Node) -> bool:
    """Whether the model averages over time where a folded graph sums: what it multiplies with says so.

    Raises:
        UnsupportedError: that fits neither a sum nor a mean, or both.
    """
    steps, before = graph.time_steps, graph.input_factors(readout)[0]
    after, behind = _follow(graph, readout)
    # A mean over time and tokens at once has the number of tokens in the factor behind it too.
    terms = {Fraction(1), Fraction(behind), *(behind * before * n for n in _summed_before(graph, readout))}
    mean = any(after / before * n * steps == 1 for n in terms)
    total = any(after / before * n == 1 for n in terms)
    if mean == total and (steps > 1 or not mean):
        raise UnsupportedError(
            f"the sum over time is multiplied by {after / before}: whether T = {steps} is part of that is not known",
            where=readout.name,
            hint="trace the model with the other T",
        )
    return mean


def _follow(graph: Graph, readout: Node) -> tuple[Fraction, int]:
    """The factor at what reads a sum over time in the end, and how many terms are added up on the way there."""
    node, scales, terms = readout, Fraction(1), 1
    while True:
        users = graph.consumers()[node.name]
        user = users[0]
        if len(users) > 1 or not isinstance(user.op, Scale | Sum | SumPool):
            index = [o.node for o in user.inputs].index(node.name)
            return scales * graph.input_factors(user)[index], terms
        scales *= as_fraction(user.op.factor) if isinstance(user.op, Scale) else 1
        terms *= _terms(graph, user)
        node = user


def _summed_before(graph: Graph, readout: Node) -> list[int]:
    """How many terms the last, the last two ... sums in front of a sum over time add up."""
    found, node = [1], graph[readout.inputs[0].node]
    while isinstance(node.op, Sum | SumPool):
        found.append(found[-1] * _terms(graph, node))
        node = graph[node.inputs[0].node]
    return found


def _terms(graph: Graph, node: Node) -> int:
    """How many elements one output of a sum adds up."""
    if isinstance(node.op, SumPool):
        return math.prod(node.op.kernel)
    return graph.input_types(node)[0].size // node.type.size if isinstance(node.op, Sum) else 1


def _rescaled(graph: Graph, means: list[str], ratio: Fraction) -> Graph:
    """The graph with a factor behind some of its nodes: in the scale that follows, else in a scale of its own."""
    consumers, builder = graph.consumers(), GraphBuilder()
    renamed: dict[str, str] = {}
    for node in graph:
        op = node.op
        if isinstance(op, Scale) and node.inputs[0].node in means and len(consumers[node.inputs[0].node]) == 1:
            op = Scale(float(as_fraction(op.factor) * ratio))
        inputs = tuple(Operand(renamed.get(o.node, o.node), o.view) for o in node.inputs)
        builder.add(node.name, op, inputs, node.params, node.source)
        alone = len(consumers[node.name]) == 1 and isinstance(consumers[node.name][0].op, Scale)
        if node.name in means and not alone:
            renamed[node.name] = builder.add(f"{node.name}.steps", Scale(float(ratio)), [node.name])
    return replace(graph, nodes=dict(builder.nodes))
