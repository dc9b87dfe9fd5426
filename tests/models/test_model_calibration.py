"""Batch-norm calibration: it sets statistics to those of the data and makes random models fire."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import nn

from qkf_deploy.errors import InputError
from qkf_deploy.models import QKFormer, QKFormerConfig, calibrate_batchnorm, randomize_norms


def test_statistics_are_those_of_the_input() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
    images = torch.randn(5, 1, 4, 4)
    calibrate_batchnorm(model, images)
    drives = model[0](images).detach()
    assert torch.allclose(model[1].running_mean, drives.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(model[1].running_var, drives.var((0, 2, 3)), atol=1e-6)


def test_it_leaves_weights_momentum_and_membranes_alone(small_config: QKFormerConfig) -> None:
    model = QKFormer(small_config)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    calibrate_batchnorm(model, torch.randn(2, *small_config.input_shape[1:]))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert {m.momentum for m in model.modules() if hasattr(m, "momentum")} == {0.1}
    assert {m.v for m in model.modules() if hasattr(m, "v_threshold")} == {0.0}
    assert not any(module.training for module in model.modules())


def test_random_weights_fire_afterwards(small_config: QKFormerConfig) -> None:
    model = QKFormer(small_config)
    randomize_norms(model)
    images = torch.randn(8, *small_config.input_shape[1:])
    calibrate_batchnorm(model, images)
    rates: dict[str, float] = {}
    for name, module in model.named_modules():
        if hasattr(module, "v_threshold"):
            module.register_forward_hook(lambda _m, _i, out, name=name: rates.__setitem__(name, out.mean().item()))
    functional.reset_net(model)
    model(images)
    assert {name for name, rate in rates.items() if rate == 0} == set()


def test_random_norms_repeat_with_their_seed(small_cifar: QKFormerConfig) -> None:
    models = [QKFormer(small_cifar) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        randomize_norms(model, seed)
    shifts = [model.get_parameter("stage3.0.ssa.proj_bn.bias") for model in models]
    assert torch.equal(shifts[0], shifts[1])
    assert not torch.equal(shifts[0], shifts[2])
    assert 0 <= shifts[0].min() <= shifts[0].max() <= 1


def test_bad_arguments(small_cifar: QKFormerConfig) -> None:
    with pytest.raises(InputError, match="no batch norm to calibrate"):
        calibrate_batchnorm(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(InputError, match="no images to calibrate on"):
        calibrate_batchnorm(QKFormer(small_cifar), torch.zeros(0, 1, 16, 16))
