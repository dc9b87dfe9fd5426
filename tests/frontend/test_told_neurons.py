"""Neuron classes that are told in words: `--neuron CLASS=SPEC`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hand_written_networks import SIZE

import qkf_deploy as qd
from qkf_deploy.errors import QkfError, UnsupportedError, UsageError
from qkf_deploy.ops import Neuron

MODEL = """
import torch
from torch import nn


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = 0.5

    def forward(self, x):
        v, out = 0.0, []
        for step in x:
            v = v * 0.5 + step
            s = (v > self.theta).to(v)
            v = v * (1 - s)
            out.append(s)
        return torch.stack(out)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.a, self.head = nn.Conv2d(3, 4, 3), Odd(), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.a(self.conv(x)[None].repeat(4, 1, 1, 1, 1)).mean((3, 4))).mean(0)


def build():
    torch.manual_seed(0)
    return Net()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path / "model.py"


def test_a_class_told_in_words(place: Path) -> None:
    """It is opaque then, and what is said of it is what the code computes; found by itself it is the same neuron."""
    told = {f"{place}:Odd": "decay=0.5, v_threshold=.theta, strict=true"}
    graph = qd.trace(f"{place}:build", image_size=SIZE, in_channels=3, neurons=told)
    found = qd.trace(f"{place}:build", image_size=SIZE, in_channels=3)
    assert graph["a"].op == found["a"].op == Neuron(None, 0.5, 0.0, False, strict=True, decay=0.5)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE, SIZE)).astype(np.uint8)
    agreement, _ = qd.verify(qd.quantize(graph, 8), images, f"{place}:build", image_size=SIZE, neurons=told)
    assert (agreement.differ_free, agreement.outputs) == (0, 2 * 4 * 4 * 4 * 4)
    wrong = {f"{place}:Odd": "decay=0.25, v_threshold=.theta"}
    with pytest.raises(UnsupportedError, match="a: Odd computes otherwise than it is described: for the drives"):
        qd.verify(qd.quantize(graph, 8), images, f"{place}:build", image_size=SIZE, neurons=wrong)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Odd", "dec=0.5", "'dec=0.5'"),
        ("Odd", "steps=both", "steps=both"),
        ("Old", "decay=0.5", "the model has no such module"),
        ("Odd", "tau=.nope", "no attribute nope"),
        ("Odd", "strict=7", "it is no neuron"),
        ("Odd", "decay=2.5", "from 0 to 1"),
    ],
)
def test_what_cannot_be_told(place: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(QkfError, match=message):
        qd.trace(f"{place}:build", image_size=SIZE, in_channels=3, neurons={f"{place}:{name}": text})


def test_a_class_without_a_place(place: Path) -> None:
    with pytest.raises(UsageError, match="names no class"):
        qd.trace(f"{place}:build", image_size=SIZE, in_channels=3, neurons={"Odd": "decay=0.5"})
