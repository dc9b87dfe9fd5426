"""The trained digits network in every form, with the counts of a few held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy import api
from qkf_deploy.datasets.digits import Digits
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger
from qkf_deploy.runs.gates import gate_nodes
from qkf_deploy.simulators.run import Run

IMAGES = 5


@dataclass(frozen=True)
class DigitsNetwork:
    """A torch model in float64, its folded float graph, its 8-bit integer graph, and runs of both on ``pixels``."""

    model: Any
    float_graph: Graph
    integer_graph: Graph
    pixels: np.ndarray
    float_ledger: Ledger
    run: Run

    @property
    def ledger(self) -> Ledger:
        """Counts of the integer graph."""
        return self.run.ledger


def make(checkpoint: Path, traced: Graph, integer: Graph, data: Digits) -> DigitsNetwork:
    """Fold, and simulate both graphs with the reference engine."""
    from qkf_deploy.converters.torch.checkpoint import load_model

    folded, pixels = api.fold(traced), data.test_images[:IMAGES]
    model, _ = load_model(checkpoint)
    floating = api.simulate(folded, pixels, engine="reference").ledger
    run = api.simulate(integer, pixels, engine="reference", record=gate_nodes(integer))
    return DigitsNetwork(model.double(), folded, integer, pixels, floating, run)
