"""Models that name float32: constants that no module holds become float64; what cannot is an error."""

from __future__ import annotations

import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

from qkf_deploy.converters.torch.run import torch_oracle
from qkf_deploy.errors import InputError

T, C = 3, 8
MIXED = torch.linspace(-1, 1, C * C).reshape(C, C)


class Mixed(nn.Module):
    """Channels mixed by a matrix of the file's own, and put into the shape of another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, C, 2, 2), nn.BatchNorm2d(C), nn.Linear(C, 5)
        self.first, self.last = LIFNode(step_mode="m"), LIFNode(step_mode="m", v_threshold=0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.norm(self.stem(x))[None].repeat(T, 1, 1, 1, 1)).flatten(3).transpose(2, 3)
        mixed = (x.flatten(0, 1) @ MIXED).view_as(x)
        return self.head(self.last(mixed).mean(2)).mean(0)


def test_a_constant_that_no_module_holds() -> None:
    net = traced(Mixed(), image_size=6, time_steps=T)
    assert_faithful(net)
    assert_exact(net.graph, net.images)


class Fussy(Mixed):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise RuntimeError("float32 alone")
        return super().forward(x)


def test_a_model_that_needs_float32_is_an_error_with_its_place() -> None:
    net = traced(Fussy(), image_size=6, time_steps=T)
    with pytest.raises(InputError, match=r"does not run in float64: RuntimeError: float32 alone") as raised:
        torch_oracle(net.source, net.graph)(net.images)
    assert "test_float32_constants.py" in (raised.value.where or "")
