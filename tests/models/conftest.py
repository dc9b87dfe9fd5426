"""Small models and digit images shared by the model tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from qkf_deploy.models import QKFormerConfig

SMALL_CIFAR = QKFormerConfig(
    layout="cifar",
    in_channels=1,
    num_classes=5,
    image_size=16,
    embed_dim=32,
    depths=(1, 1, 1),
    heads=(2, 2, 2),
    attention=("qkta", "qkta", "ssa"),
)
SMALL = {
    "cifar": SMALL_CIFAR,
    "imagenet": SMALL_CIFAR.replace(layout="imagenet", image_size=64, in_channels=3),
    "dvs": QKFormerConfig(
        layout="dvs",
        in_channels=2,
        num_classes=5,
        image_size=64,
        embed_dim=32,
        depths=(1, 1),
        heads=(2, 2),
        attention=("qkta", "ssa"),
    ),
}


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=sorted(SMALL))
def small_config(request: pytest.FixtureRequest) -> QKFormerConfig:
    return SMALL[request.param]


@pytest.fixture
def small_cifar() -> QKFormerConfig:
    return SMALL_CIFAR
