"""Attention kernels at the ends of their ranges: heads across words, sums around 16 bits, every neuron."""

from __future__ import annotations

import numpy as np
import pytest
from event_cases import ISAS, check_isa, gated, self_attention

from qkf_deploy.ir import Graph
from qkf_deploy.ops import IntegerNeuron
from qkf_deploy.simulators.event.engine import Engine

_NEURONS = {
    "LIF": IntegerNeuron(1, 1),
    "IF": IntegerNeuron(1, 0),
    "soft LIF": IntegerNeuron(1, 1, 0, True),
    "soft IF": IntegerNeuron(1, 0, 0, True),
    "PLIF": IntegerNeuron(13, 4, 4),
}


def _inputs(graph: Graph, seed: int, density: float) -> np.ndarray:
    shape = (graph.time_steps, 1, *graph.input.type.shape)
    return (np.random.default_rng(seed).random(shape) < density).astype(np.int64)


@pytest.mark.parametrize("neuron", _NEURONS.values(), ids=_NEURONS)
@pytest.mark.parametrize(
    ("heads", "dim", "tokens", "thetas"),
    [
        # All spikes: drives of dim * tokens. 32 x 1023 is the most that fits 16 bits, 33 x 1000 does not.
        (1, 32, 1023, (1, 32736, 32737, 32767, 32768)),
        (1, 33, 1000, (1, 33000, 33001)),
        (3, 40, 11, (1, 7, 440, 441)),
        (5, 7, 3, (0, 1, 21)),
        (2, 65, 2, (-3, 1, 130)),
    ],
)
def test_self_attention(neuron: IntegerNeuron, heads: int, dim: int, tokens: int, thetas: tuple[int, ...]) -> None:
    for theta in thetas:
        graph = self_attention(heads, dim, tokens, neuron, theta)
        assert any(line.startswith("attention: ") for line in Engine(graph).plan.explain())
        for seed, density in enumerate((0.02, 0.4, 1.0)):
            check_isa(graph, _inputs(graph, seed, density), *ISAS)


@pytest.mark.parametrize("neuron", _NEURONS.values(), ids=_NEURONS)
@pytest.mark.parametrize(("heads", "dim"), [(1, 1), (3, 5), (2, 33), (5, 40), (33, 2), (1, 100)])
def test_token_gates(neuron: IntegerNeuron, heads: int, dim: int) -> None:
    for theta in (1, 2, dim, dim + 1):
        graph = gated(heads, dim, 9, neuron, theta, steps=4)
        assert "tokengate: sum, gate, mask" in Engine(graph).plan.explain()
        for seed, density in enumerate((0.0, 0.1, 0.6, 1.0)):
            check_isa(graph, _inputs(graph, seed, density), *ISAS)
