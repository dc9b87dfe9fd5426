"""Fixtures of several test folders."""

from __future__ import annotations

import pytest
from digits_network import DigitsNetwork, make

from qkf_deploy.ledger import Ledger


@pytest.fixture(scope="session")
def network() -> DigitsNetwork:
    """The digits network; skips without torch or scikit-learn."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = make()
    torch.set_num_threads(threads)
    return made


@pytest.fixture
def ledger(network: DigitsNetwork) -> Ledger:
    """Its integer counts."""
    return network.ledger
