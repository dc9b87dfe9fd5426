"""How many of the events that are there a unit reads, from the sums of a ledger."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction

import numpy as np

from qkf_deploy.hw_models.reach import connections
from qkf_deploy.hw_models.units import Unit
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger


def frame_events(graph: Graph, ledger: Ledger) -> Fraction:
    """Events of event frames, mean per image: as a node counts them that reads the whole input; else all elements."""
    for node in graph.consumers()[graph.input.name]:
        alone = len(node.inputs) == 1 and node.op.kind != "output"
        if alone and graph.input.type.is_events and graph.operand_type(node.inputs[0]).size == graph.input.type.size:
            return Fraction(ledger[node.name].total("events_in_graded"), ledger.images)
    return Fraction(graph.input.type.size * ledger.time_steps)


def share_read(
    graph: Graph, ledger: Ledger, unit: Unit, source: str, readers: np.ndarray, sent: Mapping[str, Fraction]
) -> Fraction:
    """Share of the events of a node that a unit reads: windows narrower than their stride pass over some.

    Counted where one convolution reads every element equally often or not at all, so that its additions tell; elsewhere
    an event is as likely at one element as at another.

    Args:
        graph: integer graph.
        ledger: of a run of it.
        unit: the reader.
        source: one of the nodes it reads.
        readers: how much of the unit reads each element of the node; 0 where nothing does.
        sent: node -> events, mean per image, of the nodes whose events make up its value.
    """
    if readers.all():
        return Fraction(1)
    read, events = _counted(graph, ledger, unit, source, sent), sum(sent.values(), Fraction(0))
    return Fraction(int(np.count_nonzero(readers)), readers.size) if read is None or not events else read / events


def _counted(graph: Graph, ledger: Ledger, unit: Unit, source: str, sent: Collection[str]) -> Fraction | None:
    """Events of a node that a convolution reads, from its additions; ``None`` where these do not tell."""
    reading = [name for name in unit.nodes for o in graph[name].inputs if o.node == source]
    spikes = all(graph[node].type.high == 1 and graph[node].type.low == 0 for node in sent)
    if len(reading) != 1 or graph[reading[0]].op.kind != "conv" or not (spikes or len(sent) == 1):
        return None
    everything = np.ones((unit.channels, unit.positions), bool)
    ((_, _, counts),) = [found for found in connections(graph, unit, everything) if found[0].node == source]
    often = np.unique(counts[counts > 0])
    if len(often) != 1 or not graph[source].type.is_events:
        return None
    # a residual sum of spikes counts as many as it has, a single graded event is one
    additions = ledger[reading[0]].total("ac_unary" if len(sent) > 1 else "ac_graded")
    return Fraction(additions, int(often[0]) * ledger.images)
