"""Batch-norm statistics from real images, so that models with random weights fire."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from qkf_deploy.errors import InputError


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
