"""ANN rows of the paper, counted from torch modules; ANN twins of traced networks."""

from __future__ import annotations

import pytest
import torch
from frontend_networks import traced
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.evaluation.paper import dense
from qkf_deploy.models import QKFormer, build_config
from qkf_deploy.models.ann import ann_macs, count_macs
from qkf_deploy.passes.twin import ann_twin

#: Name, image size, MACs, energy in mJ (Table 2 of arXiv 2403.16552: 4.6 pJ per MAC).
ROWS = [
    ("vit-base-16", 384, 55.4844e9, 254.84),
    ("deit-base", 384, 55.4844e9, 254.84),
    ("deit-base", 224, 17.5638e9, 80.50),
    ("swin-base", 224, 15.4309e9, 70.84),
    ("swin-base", 384, 47.0831e9, 216.20),
]


@pytest.mark.parametrize(("name", "size", "macs", "energy"), ROWS)
def test_ann_rows_of_the_paper(name: str, size: int, macs: float, energy: float) -> None:
    count = ann_macs(name, size)
    assert round(count.total / 1e9, 4) == round(macs / 1e9, 4)
    assert abs(count.total * 4.6e-9 - energy) < 0.4
    assert (count.total // 10**8) * 0.46 == pytest.approx(energy, abs=0.005)  # published: truncated to 0.1 G
    formula = dense.swin_base(size) if name == "swin-base" else dense.vit_base_16(size)
    assert (count.weights, count.products) == (formula.linear, formula.attention)


#: Parameters as published with torchvision, and multiply-accumulates in G (its documentation, "GFLOPS").
RESNETS = [
    ("resnet18", 11_689_512, 1.81),
    ("resnet34", 21_797_672, 3.66),
    ("resnet50", 25_557_032, 4.09),
    ("resnet101", 44_549_160, 7.80),
    ("resnet152", 60_192_808, 11.51),
]


@pytest.mark.parametrize(("name", "parameters", "giga"), RESNETS)
def test_resnets(name: str, parameters: int, giga: float) -> None:
    count = ann_macs(name)
    assert count.parameters == parameters
    assert round(count.total / 1e9, 2) == giga


def test_errors() -> None:
    with pytest.raises(UsageError, match="no network 'alexnet'"):
        ann_macs("alexnet")
    with pytest.raises(InputError, match="SwinTransformer: cannot run on"):
        ann_macs("swin-base", 100)


def test_counting_restores_the_mode_of_the_module() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).train()
    assert count_macs(model, (3, 8, 8)).total == 4 * 27 * 36 + 4 * 36 * 2
    assert model.training


def test_the_twin_of_a_network_has_its_dense_operations_once() -> None:
    config = build_config("qkformer-4-384-cifar10", image_size=16, embed_dim=32, heads=2, depths=(1, 1, 1))
    net = traced(QKFormer(config))
    twin = ann_twin(net.graph)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net.source.model(torch.zeros(1, 3, 16, 16))
    head = config.embed_dim * config.num_classes  # the classifier runs once, all else T times
    assert (twin.macs - head) * config.time_steps + head == counter.get_total_flops() // 2
    assert twin.energy_pj(4.6) == pytest.approx(4.6 * twin.macs)
    assert {layer.op for layer in twin.layers} == {"conv", "linear", "matmul"}
