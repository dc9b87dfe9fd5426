"""Membranes between runs of a network's time steps, a stretch after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qkf_deploy.ir import Graph, Node, Params, Widths
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

    def params(self, node: Node) -> Params:
        """The parameters of a neuron that goes on where the last stretch ended."""
        if node.name not in self.membranes:
            return node.params
        return {**node.params, "initial": self.membranes[node.name]}

    def doubt(self, images: np.ndarray) -> None:
        """More images in which rounding could decide."""
        self.doubtful = images if self.doubtful is None else self.doubtful | images
