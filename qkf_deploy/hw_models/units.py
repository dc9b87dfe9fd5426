"""What is placed on cores: neurons with their synapses, products of activations, the head."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.values import Kind, Timing
from qkf_deploy.ops import Conv, Mask
from qkf_deploy.ops.exact import signed_bits


@dataclass(frozen=True)
class Unit:
    """Neurons (or accumulators) that are placed together, with everything that drives them.

    Attributes:
        name: node whose value leaves the unit.
        nodes: all nodes in it.
        channels, positions: the output as channels x positions; a core holds some channels at some positions.
        weights_per_channel: weights of one output channel, stored once where kernels are shared.
        connections_per_neuron: weights used by one output (its fan-in).
        weight_bits: of one weight, 0 without weights.
        channel_bits: thresholds and biases of one channel.
        state_bits: membrane (or accumulator) of one output.
        leftover_bits: membranes stored for one output, all steps, where they differ between positions.
        halo: per spatial axis (places in, size out, window, stride), for events that reach several tiles.
        sources: nodes whose events it reads.
        biases_per_channel: stored biases (several where a bias depends on the border).
        neurons_per_output: more than one where a core has to execute an operation with neurons.
        held_bits: values of the whole unit that wait for later time steps, as attention over chunks of steps does.
    """

    name: str
    nodes: tuple[str, ...]
    channels: int
    positions: int
    weights_per_channel: int
    connections_per_neuron: int
    weight_bits: int
    channel_bits: int
    state_bits: int
    halo: tuple[tuple[int, int, int, int], ...] = ()
    sources: tuple[str, ...] = field(default=())
    leftover_bits: int = 0
    biases_per_channel: int = 0
    neurons_per_output: int = 1
    held_bits: int = 0


def units(graph: Graph) -> tuple[Unit, ...]:
    """Every unit of an integer graph, in order of computation."""
    members: dict[str, list[Node]] = {}
    readers = graph.consumers()
    for node in graph:
        head = _head(node, readers)
        if head is not None:
            members.setdefault(head, []).append(node)
    order = {name: i for i, name in enumerate(graph.nodes)}
    found = tuple(_unit(graph, graph[name], members[name]) for name in sorted(members, key=order.__getitem__))
    held = _held_bits(graph, unit_of(found))
    return tuple(replace(unit, held_bits=held[unit.name]) for unit in found)


def unit_of(found: tuple[Unit, ...]) -> Mapping[str, str]:
    """Node name -> name of its unit."""
    return {node: unit.name for unit in found for node in unit.nodes}


def _head(node: Node, readers: Mapping[str, list[Node]]) -> str | None:
    """The node whose value leaves the unit that ``node`` belongs to; ``None`` for what only routes events."""
    if routes(node) or node.op.kind in ("input", "output"):
        return None
    current = node
    while current.type.kind is Kind.DRIVE or current.op.kind in ("sum", "sum_pool", "readout"):
        following = [n for n in readers[current.name] if n.op.kind != "output"]
        if not following:
            break
        current = following[0]
    return current.name


def _unit(graph: Graph, head: Node, nodes: list[Node]) -> Unit:
    inside = {n.name for n in nodes}
    # (channels, positions ...), (heads, rows, columns) of a product (a core takes whole heads), or () of one number
    shape = head.type.shape or (1,)
    synapses = [n for n in nodes if "weight" in n.params]
    return Unit(
        name=head.name,
        nodes=tuple(n.name for n in nodes),
        channels=shape[0],
        positions=math.prod(shape[1:]),
        weights_per_channel=sum(n.params["weight"].size // n.params["weight"].shape[0] for n in synapses),
        connections_per_neuron=sum(math.prod(n.params["weight"].shape[1:]) for n in synapses),
        weight_bits=max((getattr(n.op, "weight_bits", None) or 0 for n in synapses), default=0),
        channel_bits=sum(_channel_bits(n) for n in nodes) + (_leftover_bits(head) if _same_everywhere(head) else 0),
        state_bits=_state_bits(graph, head),
        halo=tuple(_halo(graph, nodes)),
        sources=tuple(dict.fromkeys(o.node for n in nodes for o in n.inputs if o.node not in inside)),
        biases_per_channel=sum(n.params["bias"].size // max(len(n.params["bias"]), 1) for n in nodes if _has_bias(n)),
        leftover_bits=0 if _same_everywhere(head) else _leftover_bits(head),
    )


def _has_bias(node: Node) -> bool:
    bias = node.params.get("bias")
    return bias is not None and bias.ndim > 0 and bias.size > 0


def _channel_bits(node: Node) -> int:
    bits = 0
    for name in ("bias", "theta"):
        array = node.params.get(name)
        if array is not None and array.size:
            per_channel = array.size // array.shape[0] if array.ndim else 1
            bits += per_channel * signed_bits(int(array.min()), int(array.max()))
    return bits


def _leftover_bits(node: Node) -> int:
    """Bits of the membranes that one output starts its steps from."""
    left = node.params.get("leftover")
    return 0 if left is None else len(left) * signed_bits(int(left.min()), int(left.max()))


def _same_everywhere(node: Node) -> bool:
    """Whether all positions of a channel start from the same membranes."""
    left = node.params.get("leftover")
    return left is not None and math.prod(left.shape[2:]) == 1


def _state_bits(graph: Graph, head: Node) -> int:
    widths = graph.widths[head.name]
    return signed_bits(*(widths.membrane or widths.partial))


def _halo(graph: Graph, nodes: list[Node]) -> Iterator[tuple[int, int, int, int]]:
    for node in nodes:
        if isinstance(node.op, Conv):
            for axis in node.op.axes(graph.input_types(node)[0].shape, node.params["weight"]):
                yield (axis.places, axis.out, axis.dilation * (axis.kernel - 1) + 1, axis.stride)
            return


def routing_kinds(graph: Graph, unit: Unit) -> set[str]:
    """Kinds of what happens to events on their way to a unit: additions, gates, joined channels."""
    found, waiting = set[str](), list(unit.sources)
    while waiting:
        node = graph[waiting.pop()]
        if routes(node):
            found.add(node.op.kind)
            waiting += [operand.node for operand in node.inputs]
    return found


def routes(node: Node) -> bool:
    """Whether a node only says which events go on: it belongs to no unit."""
    return node.op.kind in ("add", "concat", "mask") and node.type.kind is not Kind.DRIVE


def event_sources(graph: Graph, name: str, owner: Mapping[str, str]) -> list[tuple[str, str]]:
    """(unit, node) pairs whose events make up the value of node ``name``.

    An addition forwards the events of both operands; a mask those of its operand that pass the gate (counted at the
    mask), which happens where the masked operand lives.
    """
    node = graph[name]
    if name in owner:
        return [(owner[name], name)]
    if node.op.kind == "input":
        return [("input", name)]
    if isinstance(node.op, Mask):
        return [(unit, name) for unit, _ in event_sources(graph, node.inputs[1].node, owner)]
    return [pair for operand in node.inputs for pair in event_sources(graph, operand.node, owner)]


def _held_bits(graph: Graph, owner: Mapping[str, str]) -> Counter[str]:
    """Bits that each unit holds beside its membranes, by unit name; nothing for causal networks.

    A product over a chunk of time steps holds both operands for all steps of the chunk. Where a value that waited
    meets one that did not (the queries, a shortcut), the earlier one is held as long: in the unit that computes with
    them, or, where the meeting only routes events, in the units that the events come from.

    Args:
        graph: integer graph with widths.
        owner: unit of every node that belongs to one.
    """
    late, out = graph.not_causal, Counter[str]()
    for node in graph:
        steps = late.get(node.name, 1)
        for operand in node.inputs if len(node.inputs) > 1 else ():
            waits = node.op.steps_awaited > 1 or late.get(operand.node, 1) < steps
            if steps == 1 or not waits or graph[operand.node].type.timing is not Timing.STEP:
                continue
            seen = graph.operand_type(operand).size
            if node.name in owner:
                out[owner[node.name]] += steps * seen * _element_bits(graph, operand.node)
                continue
            for unit, source in event_sources(graph, operand.node, owner):
                if unit != "input":
                    out[unit] += steps * graph[source].type.size * _element_bits(graph, source)
    return out


def _element_bits(graph: Graph, name: str) -> int:
    """Bits of one element: spikes and counts without a sign."""
    low, high = graph.widths[name].value
    return max(high.bit_length(), 1) if graph[name].type.is_events and low >= 0 else signed_bits(low, high)


def depths(graph: Graph, found: tuple[Unit, ...]) -> Mapping[str, int]:
    """Units on the longest path from the input to each unit, itself included; gates count for what they let pass."""
    owner, out = unit_of(found), {}
    for unit in found:
        behind = [u for source in unit.sources for u in _units_behind(graph, source, owner)]
        out[unit.name] = 1 + max((out[u] for u in behind), default=0)
    return out


def _units_behind(graph: Graph, name: str, owner: Mapping[str, str]) -> set[str]:
    """Units whose events, or gates, make up the value of a node."""
    if name in owner:
        return {owner[name]}
    return {u for operand in graph[name].inputs for u in _units_behind(graph, operand.node, owner)}
