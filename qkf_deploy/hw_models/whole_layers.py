"""Cores that are one whole layer: a convolution, its neurons, sum pooling of what leaves. Nothing is cut.

Memory is addressed by bits, so kernels and maps take powers of two (SynSense, sinabs documentation, "Memory Constraints
and Network Sizing", with the logarithms rounded up as sinabs itself does).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

import networkx as nx
import numpy as np

from qkf_deploy.hw_models.architecture.chip import Chip, Core, LayerForm
from qkf_deploy.hw_models.core_limits import broken_rules
from qkf_deploy.hw_models.units import Unit, routing_kinds
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import Conv, IntegerNeuron, Linear, SumPool


class Placed(Protocol):
    """A unit on a kind of core."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def core(self) -> Core: ...
    @property
    def cores(self) -> int: ...
    @property
    def limits_broken(self) -> tuple[str, ...]: ...


P = TypeVar("P", bound=Placed)


@dataclass(frozen=True)
class WholeLayer:
    """A unit on such a core.

    Attributes:
        kernel_words: of the memory of weights, unused addresses included; 0 where the unit is no such layer.
        held_bytes: of both memories, the same way.
        problems: rules that it breaks.
    """

    kernel_words: int
    held_bytes: int
    problems: tuple[str, ...]


def whole_layer(graph: Graph, unit: Unit, core: Core, form: LayerForm, targets: int) -> WholeLayer:
    """A unit of an integer graph on a core of this form; ``targets``: layers that read it."""
    nodes = [graph[name] for name in unit.nodes]
    strange = sorted(({n.op.kind for n in nodes} | routing_kinds(graph, unit)) - core.supports)
    if strange:
        return WholeLayer(0, 0, tuple(f"not supported: {kind}" for kind in strange))
    synapses = [n for n in nodes if isinstance(n.op, Conv | Linear)]
    if len(synapses) != 1 or not isinstance(graph[unit.name].op, IntegerNeuron):
        return WholeLayer(0, 0, ("a core is one convolution or linear layer with its neurons",))
    (synapse,) = synapses
    words = _words(graph, synapse, graph[unit.name])
    problems = [*broken_rules(unit, core, targets), *_of_synapse(graph, synapse, form), *_of_neuron(graph[unit.name])]
    for node in nodes:
        if isinstance(node.op, SumPool):
            problems += _of_pool(graph, node, form)
    if core.biases_max is not None and unit.biases_per_channel * unit.channels > core.biases_max:
        problems.append(f"{unit.biases_per_channel * unit.channels} biases, at most {core.biases_max}")
    held = 0
    for count, operand in zip(words, ("weights", "state"), strict=True):
        buffer = core.buffer(operand)
        if buffer is None or buffer.bytes is None:
            continue
        held += -(-count * buffer.word_bits // 8)
        room = 8 * buffer.bytes // buffer.word_bits
        if count > room:
            problems.append(f"{count} words of {operand}, a {core.kind} core has {room}")
    return WholeLayer(words[0], held, tuple(problems))


def _words(graph: Graph, synapse: Node, neuron: Node) -> tuple[int, int]:
    """c 2^(ceil(log2 k_y k_x) + ceil(log2 f)) of kernels, f 2^(ceil(log2 h) + ceil(log2 w)) of neurons."""
    outputs, channels, kernel = _kernel(graph, synapse)
    sides = neuron.type.shape[1:]
    return channels * _power(math.prod(kernel)) * _power(outputs), outputs * math.prod(map(_power, sides))


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _kernel(graph: Graph, synapse: Node) -> tuple[int, int, tuple[int, ...]]:
    """(outputs, input channels, window); a linear layer is a window of the whole map it reads."""
    weight = synapse.params["weight"]
    if isinstance(synapse.op, Conv):
        return weight.shape[0], weight.shape[1], weight.shape[2:]
    channels, *window = graph[synapse.inputs[0].node].type.shape
    return weight.shape[0], channels, tuple(window)


def _of_synapse(graph: Graph, node: Node, form: LayerForm) -> Iterator[str]:
    shape = graph[node.inputs[0].node].type.shape
    outputs, channels, kernel = _kernel(graph, node)
    read = graph.input_types(node)[0]
    if not read.is_counts:
        yield "reads numbers or signed events, not spikes"
    if isinstance(node.op, Linear) and (
        math.prod(shape) != node.params["weight"].shape[1] or node.type.size != outputs
    ):
        yield "a linear layer that is not of one whole map"
    if isinstance(node.op, Conv):
        yield from _of_window(node.op, form)
    if len(set(kernel)) > 1 or (isinstance(node.op, Conv) and len(kernel) != 2):
        yield f"a window of {' x '.join(map(str, kernel))}, not a square"
    largest = {"window": kernel, "input": shape[1:], "output": node.type.shape[1:]}
    most = {"window": form.kernel_side_max, "input": form.input_side_max, "output": form.output_side_max}
    for what, sides in largest.items():
        if max(sides, default=1) > most[what]:
            yield f"{what} of side {max(sides)}, at most {most[what]}"
    if max(outputs, channels) > form.channels_max:
        yield f"{max(outputs, channels)} channels, at most {form.channels_max}"
    bias = node.params.get("bias")
    if bias is not None and bias.size > outputs:
        yield "biases that differ at the border"


def _of_window(op: Conv, form: LayerForm) -> Iterator[str]:
    if op.groups != 1 or set(op.dilation) != {1} or any(n != 1 for n in op.spread) or any(op.tail):
        yield "a grouped, dilated or transposed convolution"
    if not set(op.stride) <= set(form.strides):
        yield f"stride {max(op.stride)}, one of {', '.join(map(str, form.strides))}"
    if max(op.padding) > form.padding_max:
        yield f"padding {max(op.padding)}, at most {form.padding_max}"


def _of_neuron(node: Node) -> Iterator[str]:
    op = node.op
    assert isinstance(op, IntegerNeuron)  # noqa: S101 - checked by who calls
    if op.decay_multiplier != 1 << op.decay_shift or "decay_multiplier" in node.params:
        yield "neurons whose membrane decays"
    if op.strict or op.reset_delay or op.signed or op.rounding != "floor" or op.carry != "own":
        yield "neurons of another kind than integrate and fire"
    if op.fraction_bits:
        yield "membranes finer than the weights"
    if any(_differs(node.params[name]) for name in ("theta", "lowest") if name in node.params):
        yield "thresholds that differ between neurons"


def _differs(values: np.ndarray) -> bool:
    return bool(values.size) and bool((values != values.flat[0]).any())


def _of_pool(graph: Graph, node: Node, form: LayerForm) -> Iterator[str]:
    op = node.op
    assert isinstance(op, SumPool)  # noqa: S101 - checked by who calls
    if not graph.input_types(node)[0].is_counts:
        yield "pools what no neuron has seen"
    if len(set(op.kernel)) != 1 or op.kernel[0] not in form.pools or op.stride != op.kernel or any(op.padding):
        allowed = ", ".join(map(str, form.pools))
        yield f"sum pooling of {' x '.join(map(str, op.kernel))}, only squares of {allowed} side by side"


def one_each(chip: Chip, ways: Mapping[str, Sequence[P]]) -> dict[str, P]:
    """A core of its own for every unit that some core holds, as far as the cores go; the nearest way for the others.

    Args:
        chip: of such cores.
        ways: unit -> how it would lie on each kind of core.

    Returns:
        What was chosen; a unit for which no core is left breaks that rule.
    """

    def strange(way: P) -> tuple[int, int]:
        return sum(rule.startswith("not supported") for rule in way.limits_broken), len(way.limits_broken)

    nearest = {name: min(some, key=strange) for name, some in ways.items()}
    able = {name: [way for way in some if 0 < way.cores <= way.core.count] for name, some in ways.items()}
    able = {name: some for name, some in able.items() if some}
    kinds = _matched({name: [way.core.kind for way in some] for name, some in able.items()}, chip)
    rule = f"no core is left: {len(able)} units that fit some core, {len(kinds)} of them together"
    return nearest | {
        name: next((way for way in some if way.core.kind == kinds.get(name)), replace(some[0], limits_broken=(rule,)))
        for name, some in able.items()
    }


def _matched(holds: Mapping[str, Sequence[str]], chip: Chip) -> Mapping[str, str]:
    """Unit -> kind of core, for as many units as possible, from the kinds that hold each."""
    flows: nx.DiGraph = nx.DiGraph()
    flows.add_nodes_from(("start", "end"))
    for core in chip.cores:
        flows.add_edge(("kind", core.kind), "end", capacity=core.count)
    for unit, kinds in holds.items():
        flows.add_edge("start", ("unit", unit), capacity=1)
        flows.add_edges_from(((("unit", unit), ("kind", kind)) for kind in kinds), capacity=1)
    _, flow = nx.maximum_flow(flows, "start", "end", flow_func=nx.algorithms.flow.shortest_augmenting_path)
    return {unit: kind for unit in holds for (_, kind), used in flow["unit", unit].items() if used}
