"""Parameters and dense multiply-accumulates of QKFormer builds, without weights: shapes only (torch's meta device)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based.neuron import BaseNode
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qkf_deploy.models.builds import build_config
from qkf_deploy.models.qkformer import QKFormer


@dataclass(frozen=True)
class SpikingCost:
    """Shape-only facts of one build.

    Attributes:
        parameters: trainable parameters.
        dense_macs: convolutions, linear layers and attention products of one image and one time step.
        first_macs: those of the first convolution.
        head_macs: those of the classification head.
    """

    parameters: int
    dense_macs: int
    first_macs: int
    head_macs: int

    @property
    def event_macs(self) -> int:
        """Dense MACs of everything that reads spikes: all but the first convolution and the head."""
        return self.dense_macs - self.first_macs - self.head_macs


def spiking_cost(build: str, image_size: int, **overrides: Any) -> SpikingCost:
    """Facts of a named build.

    Args:
        build: its name.
        image_size: pixels a side.
        **overrides: other fields of :class:`qkf_deploy.models.QKFormerConfig`.

    Raises:
        UsageError: an unknown build or an impossible size.
    """
    config = build_config(build, image_size=image_size, time_steps=1, **overrides)
    with torch.device("meta"):
        model = QKFormer(config).eval()
    parameters = sum(p.numel() for p in model.parameters())
    _drop_neurons(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(config.input_shape, device="meta"))
    modules = ("Global", "QKFormer.patch_embed1.proj_conv", "QKFormer.head")
    # torch counts a multiplication and an addition for each multiply-accumulate
    total, first, head = (sum(counter.get_flop_counts()[name].values()) // 2 for name in modules)
    return SpikingCost(parameters, total, first, head)


def _drop_neurons(model: nn.Module) -> None:
    """Neurons keep shapes and have no multiply-accumulates; without them nothing needs values."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BaseNode):
                setattr(module, name, nn.Identity())
