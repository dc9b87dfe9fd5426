"""Models of one time step, however they make their time axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError

FORMS = {
    "repeat": lambda x: x.unsqueeze(0).repeat(1, 1, 1, 1, 1),
    "unsqueeze": lambda x: x.unsqueeze(0),
    "stack": lambda x: torch.stack([x] * 1),
    "expand": lambda x: x[None].expand(1, -1, -1, -1, -1),
    "sequence": lambda x: x,
}


class OneStep(nn.Module):
    def __init__(self, form: str, merged: bool = False) -> None:
        super().__init__()
        self.form, self.merged = form, merged
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)
        self.lif = neuron.LIFNode(step_mode="m", v_threshold=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = FORMS[self.form](x)
        steps, batch = x.shape[:2]
        y = self.conv(x.flatten(0, 1))
        y = self.lif(y) if self.merged else self.lif(y.reshape(steps, batch, *y.shape[1:])).flatten(0, 1)
        return self.head(y.mean((2, 3)).reshape(steps, batch, 4)).mean(0)


def check(model: nn.Module, **options: Any) -> qd.Graph:
    given = {"image_size": 6, "preset": "none", **options}
    graph = qd.trace(model, **given)
    assert graph.time_steps == 1
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 6, 6)).astype(np.uint8)
    first, _ = qd.verify(qd.quantize(qd.fold(graph)), images, model, **given)
    assert (first.differ_free, len(first.layers)) == (0, 1)
    assert first.layers[0].spikes > 0
    return graph


@pytest.mark.parametrize("form", FORMS)
def test_one_step_is_found(form: str) -> None:
    torch.manual_seed(0)
    given = {"time_steps": 1} if form == "sequence" else {}
    assert check(OneStep(form), **given)["lif"].type.shape == (4, 6, 6)


def test_time_merged_with_the_batch_has_to_be_said() -> None:
    torch.manual_seed(0)
    model = OneStep("unsqueeze", merged=True)
    with pytest.raises(UnsupportedError, match="if the model runs one time step, say --time-steps 1"):
        qd.trace(model, image_size=6)
    check(model, time_steps=1)
