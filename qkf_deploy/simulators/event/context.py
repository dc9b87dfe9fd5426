"""What a step of the plan works on: the values and counts of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qkf_deploy.ir import Graph, Node, Operand
from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.values import Drive, Plain, Stream, Value, to_plain, to_rows, to_stream
from qkf_deploy.simulators.event.work import Ranges

#: Ledger classes of one node and one image.
NodeCounts = dict[str, int]


@dataclass
class Image:
    """One image on its way through the network.

    Attributes:
        graph: the network.
        isa: instruction set.
        ranges: how a kernel's work is divided over threads.
        values: stored values by node.
        counts: ledger classes by node.
        spikes_per_step: int64 ``(T,)`` by node.
        kept, membranes: recorded arrays ``(T or 1, 1, *shape)``.
        gathered: events enumerated by the event kernels, by synapse.
        states: in a stretch of the time steps, membranes ``(1, *shape)`` that neurons start from and leave.
    """

    graph: Graph
    isa: Isa
    ranges: Ranges
    values: dict[str, Value] = field(default_factory=dict)
    counts: dict[str, Mapping[str, int]] = field(default_factory=dict)
    spikes_per_step: dict[str, np.ndarray | None] = field(default_factory=dict)
    kept: dict[str, np.ndarray] = field(default_factory=dict)
    membranes: dict[str, np.ndarray] = field(default_factory=dict)
    gathered: dict[str, int] = field(default_factory=dict)
    states: dict[str, np.ndarray] | None = None

    def plain(self, name: str) -> np.ndarray:
        """A node's value, ``(T or 1, 1, *shape)``."""
        dtype = np.int64 if self.graph.arithmetic == "integer" else np.float64
        return to_plain(self.values[name], self.graph[name].type.shape, dtype)

    def plain_operand(self, operand: Operand) -> np.ndarray:
        """An operand's value, view applied."""
        x = self.plain(operand.node)
        return x if operand.view is None else operand.view.apply(x)

    def stream(self, operand: Operand, channels: int) -> Stream:
        """An operand of spikes or counts as a stream of this many channels; no copy where the order already fits."""
        value = self.values[operand.node]
        in_order = operand.view is None or operand.view.is_reshape
        if isinstance(value, Stream) and in_order and value.channels == channels:
            return value
        type_ = self.graph.operand_type(operand)
        return to_stream(self.plain_operand(operand), channels, type_.high, self.graph.time_steps)

    def drive(self, operand: Operand, channels: int) -> Drive:
        """An operand as a drive; its range must fit 32 bits."""
        value = self.values[operand.node]
        in_order = operand.view is None or operand.view.is_reshape
        if isinstance(value, Drive) and in_order and value.channels == channels:
            return value
        x = self.plain_operand(operand)
        return Drive(to_rows(x, channels, np.int32), channels, x[0].size // channels, x.shape[0])

    def store(self, node: Node, value: Value) -> None:
        """Keep a node's value for its readers."""
        self.values[node.name] = value

    def tally(self, node: Node, counts: Mapping[str, int], spikes_per_step: np.ndarray | None = None) -> None:
        """Enter a node's counts in the ledger."""
        self.counts[node.name] = counts
        self.spikes_per_step[node.name] = spikes_per_step

    def entering(self, *streams: Stream) -> NodeCounts:
        """``events_in`` of operands that are streams."""
        totals = [s.totals(self.isa.tag) for s in streams]
        return {
            "events_in_unary": sum(t.unary for t in totals),
            "events_in_graded": sum(t.graded for t in totals),
        }

    def leaving(self, stream: Stream) -> tuple[NodeCounts, np.ndarray]:
        """``events_out`` of a stream and its spikes per step."""
        totals = stream.totals(self.isa.tag)
        return {"events_out_unary": totals.unary, "events_out_graded": totals.graded}, totals.unary_per_step


def plain(x: np.ndarray) -> Plain:
    """Wrap an array of the reference layout."""
    return Plain(x)
