"""Shared by all tests: one BLAS thread, the digits network in its three forms (built once, on first use)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

# Before numpy or torch are imported: many small products run faster on one thread, and timings stay comparable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

if TYPE_CHECKING:
    from digits_network import DigitsNetwork

    from qkf_deploy.datasets.digits import Digits
    from qkf_deploy.ir import Graph
    from qkf_deploy.ledger import Ledger

# A shell that starts the tests in the background ignores the key press for them, and programs inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

CHECKPOINT = Path(__file__).parents[1] / "qkf_deploy" / "models" / "qkformer_digits.safetensors"


@pytest.fixture(scope="session")
def digits_checkpoint() -> Path:
    """The committed checkpoint, trained on the training part of the digits."""
    return CHECKPOINT


@pytest.fixture(scope="session")
def digits_data() -> Digits:
    """Training and held-out digits."""
    from qkf_deploy.datasets.digits import load_digits

    return load_digits()


@pytest.fixture(scope="session")
def digits_float(digits_checkpoint: Path) -> Graph:
    """The traced digits network, batch norms and all."""
    import qkf_deploy as qd

    return qd.trace(digits_checkpoint)


@pytest.fixture(scope="session")
def digits_int8(digits_float: Graph) -> Graph:
    """The digits network with 8-bit weights."""
    import qkf_deploy as qd

    return qd.quantize(digits_float, 8)


@pytest.fixture(scope="session")
def network(digits_checkpoint: Path, digits_float: Graph, digits_int8: Graph, digits_data: Digits) -> DigitsNetwork:
    """The digits network in torch and as graphs, with the counts of a few held-out images."""
    from digits_network import make

    return make(digits_checkpoint, digits_float, digits_int8, digits_data)


@pytest.fixture
def ledger(network: DigitsNetwork) -> Ledger:
    """Integer counts of :func:`network`."""
    return network.ledger
