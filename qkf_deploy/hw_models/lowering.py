"""Operations that a core cannot execute, done with neurons that it has: exactly, or not at all.

- Max pooling of spikes is an OR: one neuron per output that fires on any input and keeps no membrane.
- A product of spikes is a population count of ANDs: one neuron per pair, which fires when both its inputs do (threshold
  2, no membrane), and one that adds what they send.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from qkf_deploy.display.numbers import quantity
from qkf_deploy.hw_models.architecture.chip import Core
from qkf_deploy.hw_models.units import Unit, routing_kinds
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.values import Kind
from qkf_deploy.ops import MatMul, MaxPool

#: Memory of one AND neuron: a bit of state and two weights of one bit.
AND_BITS = 3
#: What a core must have for it.
_NEEDS = frozenset({"integer_neuron", "linear"})


@dataclass(frozen=True)
class Lowered:
    """A unit as a core executes it.

    Attributes:
        unit: with the neurons, weights and states that this takes.
        how: sentences: what is done instead of what.
        problems: what has no exact way.
    """

    unit: Unit
    how: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def lowered(graph: Graph, unit: Unit, core: Core) -> Lowered:
    """A unit on a kind of core: as it is where the core supports all of it."""
    missing = [graph[n] for n in unit.nodes if graph[n].op.kind not in core.supports | {"input", "output"}]
    how, inner = [], 0
    problems = [f"not supported: {kind}" for kind in routing_kinds(graph, unit) - core.supports]
    for node in missing:
        spikes = all(t.kind is Kind.SPIKE for t in graph.input_types(node))
        if not spikes or not core.supports >= _NEEDS or not isinstance(node.op, MatMul | MaxPool):
            problems.append(_problem(graph, node))
            continue
        if isinstance(node.op, MaxPool):
            how.append(f"{node.name}: max pooling of spikes as an OR, {quantity(node.type.size, 'neuron')}")
        else:
            inner += graph.input_types(node)[0].shape[-1]
            how.append(f"{node.name}: product of spikes as {node.type.size * inner:,} AND neurons and their sums")
    unit = replace(unit, neurons_per_output=1 + inner) if inner else unit
    return Lowered(unit, tuple(how), tuple(sorted(set(problems))))


def _problem(graph: Graph, node: Node) -> str:
    kinds = {t.kind for t in graph.input_types(node)}
    if isinstance(node.op, MaxPool) and Kind.DRIVE in kinds:
        return "not supported: max_pool (a maximum of drives is no OR)"
    if isinstance(node.op, MatMul) and kinds != {Kind.SPIKE}:
        return "not supported: matmul (of counts: no AND)"
    return f"not supported: {node.op.kind}"
