"""Batch-norm statistics from real images, so that models with random weights fire."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from qkf_deploy.errors import InputError


def randomize_norms(model: nn.Module, seed: int = 0) -> None:
    """Give every batch norm random scale (0.8 to 2) and shift (0 to 1), in place, the same for the same seed.

    For tests on random weights, before :func:`calibrate_batchnorm`. With torch's initial scale 1 and shift 0 an error
    in folding them would not show, and spikes are so rare that the SSA sums, which need 8 coincidences, seldom fire.

    Args:
        model: any module with batch norms.
        seed: of the generator.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.affine:
                module.weight.copy_(0.8 + 1.2 * torch.rand(module.weight.shape, generator=generator))
                module.bias.copy_(torch.rand(module.bias.shape, generator=generator))


def calibrate_batchnorm(model: nn.Module, images: Tensor) -> None:
    """Set the running statistics of every batch norm to those of its own input on ``images``, in place.

    Weights are not touched. Without this a model with random weights is almost silent: with mean 0 and variance 1
    the drives stay below threshold. One forward pass is enough, since each norm already normalizes with the
    statistics that it stores. The model is left in evaluation mode with membranes at zero.

    Args:
        model: any module with batch norms and SpikingJelly neurons.
        images: one batch as the model takes it, ``(B, C, H, W)`` or ``(B, T, C, H, W)``, normalized.

    Raises:
        InputError: the model has no batch norm with running statistics, or ``images`` is empty.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        raise InputError("the model has no batch norm to calibrate", hint="skip the calibration")
    if images.shape[0] == 0:
        raise InputError("there are no images to calibrate on", hint="pass at least one image")
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's spelling of "plain average over calls"
        norm.train()
    functional.reset_net(model)
    try:
        with torch.no_grad():
            model(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
        functional.reset_net(model)
