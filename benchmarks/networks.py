"""The networks of the benchmarks: random weights, batch norm calibrated on images, 8-bit integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.model.qkformer import QKFormer as SpikingJellyQKFormer
from torch import Tensor, nn

from qkf_deploy.converters.torch.trace import InputSpec, trace_module
from qkf_deploy.ir import Graph, Preprocessing
from qkf_deploy.models import build, calibrate_batchnorm
from qkf_deploy.passes.quantize import QuantizeOptions, quantize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CALIBRATION_IMAGES = 4


@dataclass(frozen=True)
class Network:
    """One architecture in three forms.

    Attributes:
        torch: module with the official layout.
        spikingjelly: SpikingJelly's own module of the same architecture, calibrated alike.
        graph: integer graph of ``torch``.
    """

    torch: nn.Module
    spikingjelly: nn.Module
    graph: Graph


def images(count: int, seed: int, size: int = 224) -> np.ndarray:
    """Byte images with the 1/f spectrum of photographs, uint8 ``(count, 3, size, size)``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(count, 3, size, size)
    side = coarsest = max(2, size // 32)
    while side <= size:
        noise = torch.randn(count, 3, side, side, generator=generator)
        x += nn.functional.interpolate(noise, size=size, mode="bilinear") * (coarsest / side) ** 0.5
        side *= 2
    x = (x - x.mean()) / x.std()
    return (x * 45 + 118).clamp(0, 255).round().to(torch.uint8).numpy()


def normalized(pixels: np.ndarray) -> Tensor:
    """What the torch modules take, float32."""
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    return (torch.from_numpy(pixels).float() / 255 - mean) / std


def make(embed_dim: int, size: int = 224, float_models: bool = True, threshold_scale: float = 1.0) -> Network:
    """HST-10 of a width.

    Args:
        embed_dim: 384, 512 or 768.
        size: height and width of the images.
        float_models: False leaves SpikingJelly's module uncalibrated (not timed).
        threshold_scale: all thresholds are multiplied by it; less than 1 makes a network more active.
    """
    torch.manual_seed(0)
    name = f"qkformer-10-{embed_dim}"
    model = build(name, image_size=size)
    x = normalized(images(CALIBRATION_IMAGES, seed=0, size=size))
    _scale_thresholds(model, threshold_scale)
    calibrate_batchnorm(model, x)
    other = SpikingJellyQKFormer(embed_dims=embed_dim, num_heads=model.config.heads, depths=model.config.depths)
    _scale_thresholds(other, threshold_scale)
    if float_models:
        calibrate_batchnorm(other, x)
    traced = trace_module(model, InputSpec("image", (3, size, size), model.config.time_steps))
    graph = quantize(replace(traced, preprocessing=Preprocessing(MEAN, STD)), QuantizeOptions())
    return Network(model.eval(), other.eval(), graph)


def _scale_thresholds(model: nn.Module, scale: float) -> None:
    for module in model.modules():
        if hasattr(module, "v_threshold"):
            module.v_threshold *= scale


def forward(model: nn.Module, x: Tensor) -> Tensor:
    """Logits; membranes are reset first."""
    functional.reset_net(model)
    with torch.no_grad():
        return model(x)


def forward_onednn(model: nn.Module, x: Tensor) -> Tensor:
    """Logits, every convolution through oneDNN (torch picks its own im2col path on one thread)."""
    kept: Any = nn.Conv1d._conv_forward, nn.Conv2d._conv_forward
    nn.Conv1d._conv_forward, nn.Conv2d._conv_forward = _onednn_1d, _onednn_2d  # type: ignore[method-assign]
    try:
        return forward(model, x)
    finally:
        nn.Conv1d._conv_forward, nn.Conv2d._conv_forward = kept  # type: ignore[method-assign]


def _onednn_2d(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mkldnn_convolution(x, weight, bias, self.padding, self.stride, self.dilation, self.groups)


def _onednn_1d(self: nn.Conv1d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    shape = [(0, *self.padding), (1, *self.stride), (1, *self.dilation)]
    return torch.mkldnn_convolution(x.unsqueeze(2), weight.unsqueeze(2), bias, *shape, self.groups).squeeze(2)
