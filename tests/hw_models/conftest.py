"""One trained network, its graphs and the counts of a few held-out images, made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qkf_deploy.converters.checkpoint import load_model
from qkf_deploy.converters.trace import InputSpec, trace_module
from qkf_deploy.datasets import digits
from qkf_deploy.ir import Graph, Preprocessing
from qkf_deploy.ledger import Ledger
from qkf_deploy.passes.fold import fold
from qkf_deploy.passes.quantize import QuantizeOptions, quantize
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode

CHECKPOINT = Path(__file__).parents[2] / "examples" / "digits" / "qkformer_digits.safetensors"
IMAGES = 5


@dataclass(frozen=True)
class DigitsNetwork:
    model: torch.nn.Module  # float64
    float_graph: Graph
    integer_graph: Graph
    pixels: np.ndarray
    float_ledger: Ledger
    ledger: Ledger


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def network() -> DigitsNetwork:
    pytest.importorskip("sklearn")
    model, _ = load_model(CHECKPOINT)
    traced = trace_module(model, InputSpec("image", (1, 16, 16), 4))
    traced = replace(traced, preprocessing=Preprocessing(digits.MEAN, digits.STD))
    folded, integer = fold(traced), quantize(traced, QuantizeOptions(bits=8))
    pixels = digits.load_digits().test_images[:IMAGES]
    ledgers = [reference.run(g, encode(g, pixels)[0]).ledger for g in (folded, integer)]
    return DigitsNetwork(model.double(), folded, integer, pixels, ledgers[0], ledgers[1])


@pytest.fixture
def ledger(network: DigitsNetwork) -> Ledger:
    return network.ledger
