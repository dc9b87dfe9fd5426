"""The trained digits network in every form, with the counts of a few held-out images. Made once per session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy import api
from qkf_deploy.datasets.digits import load_digits
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger
from qkf_deploy.report.run_file import gate_nodes
from qkf_deploy.simulators.run import Run

CHECKPOINT = Path(__file__).parents[1] / "examples" / "digits" / "qkformer_digits.safetensors"
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


def make() -> DigitsNetwork:
    """Trace, fold, quantize and simulate with the reference engine."""
    from qkf_deploy.converters.checkpoint import load_model

    traced = api.trace(CHECKPOINT)
    folded, integer = api.fold(traced), api.quantize(traced, 8)
    pixels = load_digits().test_images[:IMAGES]
    model, _ = load_model(CHECKPOINT)
    floating = api.simulate(folded, pixels, engine="reference").ledger
    run = api.simulate(integer, pixels, engine="reference", record=gate_nodes(integer))
    return DigitsNetwork(model.double(), folded, integer, pixels, floating, run)
