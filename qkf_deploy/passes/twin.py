"""The dense ANN of a traced network: same layers, every neuron a ReLU, one step instead of T."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from qkf_deploy.ir import Graph


@dataclass(frozen=True)
class TwinLayer:
    """One layer of the ANN.

    Attributes:
        name, op: of the network's node.
        shape: of its output.
        macs: dense multiply-accumulates per image, padding taps counted.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    macs: int


@dataclass(frozen=True)
class Twin:
    """The ANN of the same shape. A spiking network of T steps does ``time_steps`` times as many dense operations.

    Attributes:
        layers: those with multiply-accumulates, in network order.
        time_steps: T of the spiking network.
    """

    layers: tuple[TwinLayer, ...]
    time_steps: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image."""
        return sum(layer.macs for layer in self.layers)

    def energy_pj(self, pj_per_mac: Fraction | float) -> float:
        """Arithmetic energy per image in pJ, Eq. 24 of arXiv 2403.16552: every MAC at one price (there 4.6 pJ)."""
        return float(self.macs * Fraction(pj_per_mac))


def ann_twin(graph: Graph) -> Twin:
    """The dense ANN of any traced network, float or integer.

    Sums and masks of Q-K attention are additions and selections in the ANN too and cost no multiply-accumulate; the two
    products of self-attention are dense matrix products.
    """
    layers: list[TwinLayer] = []
    for node in graph:
        macs = node.op.static_cost(graph.input_types(node), node.params).dense_macs
        if macs:
            layers.append(TwinLayer(node.name, node.op.kind, node.type.shape, macs))
    return Twin(tuple(layers), graph.time_steps)
