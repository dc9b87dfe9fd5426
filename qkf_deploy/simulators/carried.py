"""Membranes between runs of a network's time steps, a stretch after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qkf_deploy.ir import Graph, Node, Widths, freeze
from qkf_deploy.ops.membrane import SpikingNeuron
from qkf_deploy.passes.widths import proven
from qkf_deploy.simulators.counting import CountedGraph


@dataclass(frozen=True, eq=False)
class Whole:
    """What an engine that runs a stretch of the time steps must know of all of them.

    Attributes:
        rules: what the network is counted as.
        widths: proven for all time steps; none for a float graph.
    """

    rules: CountedGraph
    widths: Mapping[str, Widths]

    @staticmethod
    def of(graph: Graph) -> Whole:
        """Raises ProofError: stored widths that are narrower than what the weights can reach."""
        return Whole(CountedGraph(graph), proven(graph))


@dataclass(eq=False)
class Carried:
    """A batch of images between two stretches.

    Attributes:
        whole: of their network.
        membranes: state after the last step by neuron, ``(B, *shape)``, in the form that the engine works with.
        doubtful: images in which a spike may be another in the reference's order of sums, bool ``(B,)``.
    """

    whole: Whole
    membranes: dict[str, Any] = field(default_factory=dict[str, Any])
    doubtful: np.ndarray | None = None

    def doubt(self, images: np.ndarray) -> None:
        """More images in which rounding could decide."""
        self.doubtful = images if self.doubtful is None else self.doubtful | images


def charged(
    node: Node, op: SpikingNeuron, operands: list[np.ndarray], steps: int, states: dict[str, Any]
) -> np.ndarray:
    """Charged membranes of some steps of a neuron, ``(steps, B, *shape)``.

    Args:
        node: the neuron.
        op: its operator.
        operands: its drive.
        steps: how many.
        states: that neurons go on from, ``(B, *shape)`` by name; this one's is what it leaves, afterwards.
    """
    params = {**node.params, "initial": states[node.name]} if node.name in states else node.params
    found, left = op.history(operands, params, steps)
    states[node.name] = left[-1].copy()
    return found


def of_steps(node: Node, start: int, stop: int) -> Node:
    """The node with those parameters that some of the steps have."""
    if "leftover" not in node.params:
        return node
    return replace(node, params=freeze({**node.params, "leftover": node.params["leftover"][start:stop]}))
