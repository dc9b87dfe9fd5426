"""Sizes of what a unit reads, keeps and writes, in bits and elements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qkf_deploy.hw_models.activity import ABOVE_ONE, LIVE, LIVE_ABOVE_ONE, Activity, NodeActivity
from qkf_deploy.hw_models.units import Unit
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import Conv, Linear
from qkf_deploy.ops.exact import signed_bits


@dataclass(frozen=True)
class Synapse:
    """A convolution or linear layer that reads events.

    Attributes:
        node: its name.
        layer: ``conv`` or ``linear``.
        inputs: input channels.
        outputs: output channels that one input channel reaches.
        channels: output channels.
        taps: of the window.
        positions, rows: output positions, and rows of them that bands are cut from.
        input_bits: of one step of what it reads, as a bitmap.
        weights: stored ones.
        weight_bits, sum_bits: of one weight and of one partial sum (proven).
        dense: additions of one step and image if every input were active; taps in the padding left out.
        activity: what was measured.
    """

    node: str
    layer: str
    inputs: int
    outputs: int
    channels: int
    taps: int
    positions: int
    rows: int
    input_bits: int
    weights: int
    weight_bits: int
    sum_bits: int
    dense: int
    activity: NodeActivity

    def band_positions(self, bands: int) -> int:
        """Output positions of the largest band."""
        return -(-self.rows // bands) * self.positions // self.rows

    def band_bits(self, bands: int) -> int:
        """Input bits that all bands read in one step, rows of two bands twice; of one image."""
        return -(-self.input_bits * self.activity.bands[bands].elements // self.activity.bands[1].elements)

    @property
    def has_counts(self) -> bool:
        """Some event stood for more than one spike."""
        return self.activity.total(ABOVE_ONE) > 0

    def additions(self, step: int, *, repeated: bool, gated: bool = False) -> tuple[int, int]:
        """(additions, multiplications of a weight with a count) at one step.

        Args:
            step: number.
            repeated: a count of k is k additions.
            gated: leave out what no gate lets pass at this step or later, where this was measured.
        """
        if repeated:
            return self.activity.at("ac_unary", step), 0
        skips = gated and LIVE in self.activity.counts
        every, above = (LIVE, LIVE_ABOVE_ONE) if skips else ("ac_graded", ABOVE_ONE)
        many = self.activity.at(above, step)
        return self.activity.at(every, step) - many, many


@dataclass(frozen=True)
class Layer:
    """A unit with its sizes.

    Attributes:
        unit: what.
        synapses: that read events.
        sources: bits of one step of every value it reads, by node, as bitmaps (counts at their proven width).
        output_bits: the same of what leaves.
        state_bits: of all membranes.
        sum_bits: of all partial sums of one step.
        weight_bits: of all weights, biases and thresholds.
    """

    unit: Unit
    synapses: tuple[Synapse, ...]
    sources: Mapping[str, int]
    output_bits: int
    state_bits: int
    sum_bits: int
    weight_bits: int


def layer_of(graph: Graph, unit: Unit, activity: Activity) -> Layer:
    """A unit of an integer graph with widths."""
    nodes = [graph[name] for name in unit.nodes]
    synapses = tuple(
        _synapse(graph, node, activity.nodes[node.name]) for node in nodes if activity.nodes[node.name].bands
    )
    head = graph[unit.name]
    return Layer(
        unit=unit,
        synapses=synapses,
        sources={name: value_bits(graph, graph[name]) for name in unit.sources},
        output_bits=value_bits(graph, head),
        state_bits=unit.channels * unit.positions * (unit.state_bits + unit.leftover_bits),
        sum_bits=sum(s.channels * s.positions * s.sum_bits for s in synapses),
        weight_bits=unit.channels * (unit.weights_per_channel * unit.weight_bits + unit.channel_bits),
    )


def value_bits(graph: Graph, node: Node) -> int:
    """Bits of one step of a value as it is stored between layers."""
    if node.op.kind == "input":
        return node.type.size * 8
    if node.type.kind.value == "spike":
        return node.type.size
    low, high = graph.widths[node.name].value if node.name in graph.widths else (0, 1)
    return node.type.size * (signed_bits(low, high) - (low >= 0))


def _synapse(graph: Graph, node: Node, activity: NodeActivity) -> Synapse:
    weight, kind = node.params["weight"], graph.input_types(node)[0]
    groups = node.op.groups if isinstance(node.op, Conv) else 1
    linear = isinstance(node.op, Linear)
    return Synapse(
        node=node.name,
        layer=node.op.kind,
        inputs=weight.shape[1] * groups,
        outputs=len(weight) // groups,
        channels=len(weight),
        taps=math.prod(weight.shape[2:]),
        positions=node.type.size // len(weight),
        rows=max(activity.bands),
        input_bits=value_bits(graph, graph[node.inputs[0].node]),
        weights=weight.size,
        weight_bits=getattr(node.op, "weight_bits", None) or 32,
        sum_bits=signed_bits(*graph.widths[node.name].partial),
        dense=node.op.static_cost([kind], node.params).border_exact_macs if not linear else kind.size * len(weight),
        activity=activity,
    )
