"""A constant matrix for each block of channels, written as einsum or matmul; rows and columns mixed by a constant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from frontend_networks import assert_sound, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Conv

STEPS, BLOCKS = 2, 3
Product = Callable[[Tensor, Tensor], Tensor]


class Mixer(nn.Module):
    """Spikes whose channels, in blocks, meet a matrix per block; time folded into the batch."""

    def __init__(self, product: Product, *shape: int) -> None:
        super().__init__()
        self.stem, self.bn0, self.lif0 = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), LIFNode(step_mode="m")
        self.product, self.weight = product, nn.Parameter(torch.randn(*shape))
        self.bn, self.lif, self.fc = nn.BatchNorm2d(BLOCKS * 5), LIFNode(step_mode="m"), nn.Linear(BLOCKS * 5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif0(self.bn0(self.stem(x))[None].repeat(STEPS, 1, 1, 1, 1)).flatten(0, 1)
        lead, _, height, width = x.shape
        y = self.product(x.reshape(lead, BLOCKS, 4, height, width), self.weight)  # (lead, blocks, 5, H, W)
        y = self.bn(y.reshape(lead, BLOCKS * 5, height, width))
        y = self.lif(y.reshape(STEPS, lead // STEPS, *y.shape[1:]))
        return self.fc(y.mean((3, 4))).mean(0)


def channels_last(x: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("...bd,bdk->...bk", x.permute(0, 3, 4, 1, 2), w).permute(0, 3, 4, 1, 2)


PRODUCTS: dict[str, tuple[Product, tuple[int, ...]]] = {
    "einsum behind the blocks": (channels_last, (BLOCKS, 4, 5)),
    "einsum in front of space": (lambda x, w: torch.einsum("bdk,nbdhw->nbkhw", w, x), (BLOCKS, 4, 5)),
    "matmul from the right": (
        lambda x, w: (x.permute(0, 3, 1, 4, 2) @ w).permute(0, 2, 4, 1, 3), (BLOCKS, 4, 5),
    ),
    "matmul from the left": (lambda x, w: (w @ x.flatten(3)).unflatten(3, x.shape[3:]), (BLOCKS, 5, 4)),
    "one matrix": (lambda x, w: torch.einsum("nbdhw,dk->nbkhw", x, w), (4, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PRODUCTS))
def test_a_matrix_per_block(name: str) -> None:
    product, shape = PRODUCTS[name]
    got = traced(Mixer(product, *shape), image_size=8)
    assert_sound(got)
    grouped = [n.op.groups for n in got.graph if isinstance(n.op, Conv)]
    assert (BLOCKS in grouped) == (name != "one matrix")


def test_a_product_of_two_activations_as_einsum() -> None:
    class Attention(Mixer):
        def forward(self, x: Tensor) -> Tensor:
            x = self.lif0(self.bn0(self.stem(x))[None].repeat(STEPS, 1, 1, 1, 1)).flatten(3)
            q = torch.einsum("tbcn->tbcn", x).unflatten(2, (BLOCKS, 4))
            kv = torch.einsum("tbhdn,tbhen->tbhde", q, q)
            y = self.lif(torch.einsum("tbhdn,tbhde->tbhne", q, kv).permute(0, 1, 2, 4, 3).flatten(2, 3) * 0.125)
            return self.fc(y.mean(3)).mean(0)

    model = Attention(channels_last, 1)
    model.fc = nn.Linear(12, 4)
    got = traced(model, image_size=8)
    assert_sound(got)


@pytest.mark.parametrize(
    ("product", "shape", "reason"),
    [
        (
            lambda x, w: (w @ x.flatten(3).unflatten(0, (STEPS, -1))).flatten(0, 1).unflatten(3, x.shape[3:]),
            (STEPS, 1, BLOCKS, 5, 4), "time step or image",
        ),
        (
            lambda x, w: (w @ x.flatten(3)[:, :1]).unflatten(3, x.shape[3:]),
            (BLOCKS, 5, 4), "several constant matrices",
        ),
    ],
)  # fmt: skip
def test_other_constant_products_are_refused(product: Product, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        traced(Mixer(product, *shape), image_size=8)


class Rows(nn.Module):
    """A constant matrix over the rows, then over the columns, each in front of what has numbers per channel."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        self.stem, self.bn0, self.lif0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        self.behind, self.lif, self.fc = behind, LIFNode(step_mode="m"), nn.Linear(6, 4)
        self.register_buffer("rows", torch.randn(8, 8) * torch.logspace(-2, 0, 8)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif0(self.bn0(self.stem(x))[None].repeat(STEPS, 1, 1, 1, 1))
        y = self.behind(torch.matmul(self.rows, x).flatten(0, 1))
        return self.fc(self.lif(y.unflatten(0, (STEPS, -1))).mean((3, 4))).mean(0)


@pytest.mark.parametrize(
    "behind",
    [
        nn.BatchNorm2d(6), nn.MaxPool2d(2), nn.AvgPool2d(2),
        nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)),
    ],
    ids=lambda m: type(m).__name__,
)  # fmt: skip
def test_rows_that_are_positions_to_the_next_layer_share_one_scale(behind: nn.Module) -> None:
    got = traced(Rows(behind), image_size=8)
    assert_sound(got)
    fine = qd.simulate(qd.quantize(got.graph, 24), got.images)
    assert np.allclose(fine.logits, qd.simulate(got.graph, got.images).logits, atol=1e-3)
