"""Chains of linear maps without a neuron between them become one synapse where that is exact and no dearer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from qkf_deploy.ir import Graph, GraphBuilder, Node, Operand, Params, freeze
from qkf_deploy.ir import compose as compose_views
from qkf_deploy.ops import Conv, Linear, SumPool
from qkf_deploy.passes.compose import Synapse, affine_params, as_synapse, compose, per_channel

#: Price of one operation in additions driven by events, with 0.9 pJ per addition, 4.6 pJ per multiply-accumulate
#: (Horowitz, ISSCC 2014, 45 nm) and one neuron in five firing: what reads a drive works on every element at every step.
_EVENT_ADD, _DENSE_ADD, _DENSE_MAC = 1, 5, 25
#: A merged kernel with more weights than this multiple of those it replaces is not worth its memory.
_MOST_WEIGHTS = 8


def merge(graph: Graph, *, borders: bool = True) -> Graph:
    """The float graph with every chain of synapses merged where one synapse does the same, and does it at no more cost.

    A synapse that reads the drive of another one multiplies where the first one, reading spikes, only adds; it also
    needs the bits of both. Re-parameterized blocks (1×1, batch norm, depthwise 3×3, 1×1, batch norm) are one 3×3
    convolution; a norm in front of a convolution is a factor and a bias, which depends on the border where it pads.

    Args:
        graph: folded float graph.
        borders: False leaves chains whose merged bias would depend on the border.
    """
    return _merge_chains(_absorb_affine(graph, borders), borders)


def _absorb_affine(graph: Graph, borders: bool) -> Graph:
    """Depthwise 1×1 convolutions that only synapses read go into them."""
    consumers = graph.consumers()
    nodes = dict(graph.nodes)
    factors = dict(graph.factors)
    for name in graph.nodes:
        readers = [nodes[user.name] for user in consumers[name]]
        absorbed = [_absorbed(nodes[name], reader, borders) for reader in readers]
        if readers and all(absorbed):
            consumers[nodes[name].inputs[0].node] += readers
            nodes.update({node.name: node for node in absorbed if node})
            _inherit(factors, name, [reader.name for reader in readers])
            del nodes[name]
    return replace(graph, nodes=nodes, factors=factors)


def _inherit(factors: dict[str, tuple[Fraction, ...]], name: str, heirs: list[str]) -> None:
    """What a node reads is read by others from now on, with the factor to the model's own value that it had."""
    factor = factors.pop(name, None)
    for heir in heirs:
        factors.pop(heir, None)
        if factor is not None:
            factors[heir] = factor


def _absorbed(node: Node, reader: Node, borders: bool) -> Node | None:
    """The synapse that reads an affine map, with the map inside."""
    op, target = node.op, reader.op
    if not isinstance(op, Conv) or op.groups != node.type.shape[0] or node.params["weight"].size != op.groups:
        return None
    if not isinstance(target, Conv | Linear) or any(s != 1 for s in op.stride) or any(op.padding) or op.spread:
        return None
    view = reader.inputs[0].view
    scale = node.params["weight"].astype(np.float64).reshape(-1)
    shift = node.params.get("bias", np.zeros(len(scale))).astype(np.float64).reshape(-1)
    seen = per_channel(np.stack([scale, shift]), node.type.shape, view, target)
    if seen is None:
        return None
    params = affine_params(target, reader.params, view.shape if view else node.type.shape, *seen)
    if not borders and params["bias"].ndim > 1:
        return None
    source = node.inputs[0]
    return replace(reader, inputs=(Operand(source.node, compose_views(source.view, view)),), params=freeze(params))


@dataclass(frozen=True)
class _Run:
    """Consecutive members of a chain as one synapse, or one of them as it is.

    Attributes:
        members: in order.
        synapse: operator and parameters that do what they do.
        price: of one dense execution.
    """

    members: tuple[Node, ...]
    synapse: tuple[Synapse, Params]
    price: int


def _merge_chains(graph: Graph, borders: bool) -> Graph:
    runs = {run.members[-1].name: run for chain in _chains(graph) for run in _cheapest(graph, chain, borders)}
    merged = [run for run in runs.values() if len(run.members) > 1]
    if not merged:
        return graph
    gone = {node.name for run in merged for node in run.members[:-1]}
    builder = GraphBuilder()
    alias: dict[str, str] = {}
    factors = dict(graph.factors)
    for node in graph:
        inputs = [replace(o, node=alias.get(o.node, o.node)) for o in node.inputs]
        if node.name in gone:
            continue
        run = runs.get(node.name)
        if run is None or len(run.members) == 1:
            builder.add(node.name, node.op, inputs, node.params, node.source)
            continue
        main = max(run.members, key=lambda n: n.op.static_cost(graph.input_types(n), n.params).dense_macs)
        first = run.members[0].inputs[0]
        operand = replace(first, node=alias.get(first.node, first.node))
        op, params = run.synapse
        alias[node.name] = builder.add(main.name, op, [operand], params, main.source)
        for member in run.members:
            factors.pop(member.name, None)
        if run.members[0].name in graph.factors:
            factors[main.name] = graph.factors[run.members[0].name]
    notices = tuple(_notice(run, alias[run.members[-1].name]) for run in merged)
    return replace(graph, nodes=dict(builder.nodes), notices=(*graph.notices, *notices), factors=factors)


def _notice(run: _Run, name: str) -> str:
    return f"{name}: no neuron stands between {', '.join(n.name for n in run.members)}; merged into one synapse"


def _chains(graph: Graph) -> list[list[Node]]:
    """Maximal chains of linear maps of which each is read by the next one alone, and as it is."""
    consumers = graph.consumers()
    chains: dict[str, list[Node]] = {}  # by the last member
    for node in graph:
        events = graph.input_types(node)[0].is_events if node.inputs else False
        if not isinstance(node.op, Conv | Linear) and (events or not isinstance(node.op, SumPool)):
            continue
        operand = node.inputs[0]
        joins = operand.node in chains and operand.view is None and len(consumers[operand.node]) == 1
        chains[node.name] = [*(chains.pop(operand.node) if joins else []), node]
    return [chain for chain in chains.values() if len(chain) > 1]


def _cheapest(graph: Graph, chain: list[Node], borders: bool) -> list[_Run]:
    """The chain as the runs that cost least in all; of equal ones the fewest."""
    best: list[tuple[int, list[_Run]]] = [(0, [])]  # for the first n members
    for end in range(1, len(chain) + 1):
        options: list[tuple[int, list[_Run]]] = []
        for start in range(end):
            run = _run(graph, chain[start:end], borders)
            if run is not None:
                price, runs = best[start]
                options.append((price + run.price, [*runs, run]))
        best.append(min(options, key=lambda o: (o[0], len(o[1]))))
    return best[-1][1]


def _run(graph: Graph, members: list[Node], borders: bool) -> _Run | None:
    (type_,) = graph.input_types(members[0])
    synapse = as_synapse(members[0])
    for node in members[1:]:
        composed = compose(synapse, as_synapse(node), type_.shape)
        if composed is None:
            return None
        synapse = composed
    op, params = synapse
    if len(members) > 1:
        if isinstance(members[-1].op, SumPool):  # a pool in front of a neuron stays: the model's own layer, additions
            return None
        replaced = sum(n.params["weight"].size for n in members if "weight" in n.params)
        if params["weight"].size > _MOST_WEIGHTS * replaced:
            return None
        if not borders and "bias" in params and params["bias"].ndim > 1:
            return None
    price = _EVENT_ADD if type_.is_events else _DENSE_MAC
    if len(members) == 1 and isinstance(members[0].op, SumPool):
        price = _DENSE_ADD
    return _Run(tuple(members), synapse, price * op.static_cost((type_,), params).dense_macs)
