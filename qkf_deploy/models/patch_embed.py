"""Spiking patch embedding with deformed shortcut (SPEDS; arXiv 2403.16552, Eq. 10 and 11).

Every patch embedding of the official files is a chain of 3x3 convolutions (batch norm, sometimes max pooling, neuron)
and one strided 1x1 convolution around a part of it. :func:`embedding_plan` lists the chain of each layout.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from qkf_deploy.models.config import QKFormerConfig
from qkf_deploy.models.layers import conv_norm, spiking_neuron


@dataclass(frozen=True)
class ConvStep:
    """One 3x3 convolution of a chain: its name, its channels, and the name of the max pooling after it, if any."""

    name: str
    inputs: int
    outputs: int
    pool: str | None = None


@dataclass(frozen=True)
class EmbeddingPlan:
    """A patch embedding.

    Attributes:
        steps: the chain of convolutions.
        tap: index of the step whose input also feeds the shortcut.
        stride: stride of the shortcut, so that both paths end at the same size.
        real_input: True for the first embedding, whose input is the image itself and passes no neuron.
    """

    steps: tuple[ConvStep, ...]
    tap: int
    stride: int
    real_input: bool


def embedding_plan(config: QKFormerConfig, stage: int) -> EmbeddingPlan:
    """The patch embedding that opens stage ``stage`` (0 is the first)."""
    dim = config.stage_dims[stage]
    if stage == 0:
        return _first_plan(config, dim)
    half = dim // 2
    if config.layout == "imagenet":
        steps = (ConvStep("proj3", half, dim, pool="proj3_maxpool"), ConvStep("proj4", dim, dim))
    else:
        first = "proj" if config.layout == "dvs" else "proj3"
        steps = (ConvStep(first, half, dim), ConvStep("proj4", dim, dim, pool="proj4_maxpool"))
    return EmbeddingPlan(steps, tap=0, stride=2, real_input=False)


def _first_plan(config: QKFormerConfig, dim: int) -> EmbeddingPlan:
    inputs, half = config.in_channels, dim // 2
    if config.layout == "imagenet":
        steps: tuple[ConvStep, ...] = (
            ConvStep("proj", inputs, half, pool="proj_maxpool"),
            ConvStep("proj1", half, dim, pool="proj1_maxpool"),
            ConvStep("proj2", dim, dim),
        )
        return EmbeddingPlan(steps, tap=1, stride=2, real_input=True)
    if config.layout == "cifar":
        steps = (ConvStep("proj", inputs, half), ConvStep("proj1", half, dim))
        return EmbeddingPlan(steps, tap=1, stride=1, real_input=True)
    steps = (
        ConvStep("proj", inputs, dim // 8),
        ConvStep("proj1", dim // 8, dim // 4, pool="maxpool1"),
        ConvStep("proj2", dim // 4, half, pool="maxpool2"),
        ConvStep("proj3", half, dim, pool="maxpool3"),
    )
    return EmbeddingPlan(steps, tap=2, stride=4, real_input=True)


class PatchEmbedding(nn.Module):
    """One patch embedding: ``(T, B, C_in, H, W)`` to ``(T, B, C_out, H / s, W / s)``.

    Activation before addition: each step is convolution, norm, pooling, neuron, and spikes of both paths are added.
    Pre-activation: the neuron of a step comes before its convolution (the first step of the network has none, its input
    being the image), the shortcut shares the spikes of its tap, and drives are added.
    """

    def __init__(self, stage: int, config: QKFormerConfig) -> None:
        super().__init__()
        self.plan = embedding_plan(config, stage)
        self.preactivation = config.shortcut == "pa"
        self.shortcut = config.speds
        for index, step in enumerate(self.plan.steps):
            conv = nn.Conv2d(step.inputs, step.outputs, kernel_size=3, padding=1, bias=False)
            self.add_module(f"{step.name}_conv", conv)
            self.add_module(f"{step.name}_bn", nn.BatchNorm2d(step.outputs))
            if step.pool is not None:
                self.add_module(step.pool, nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
            if not (self.preactivation and self.plan.real_input and index == 0):
                self.add_module(f"{step.name}_lif", spiking_neuron(config.neuron))
        if self.shortcut:
            self._add_shortcut(config)

    def _add_shortcut(self, config: QKFormerConfig) -> None:
        inputs, outputs = self.plan.steps[self.plan.tap].inputs, self.plan.steps[-1].outputs
        self.proj_res_conv = nn.Conv2d(inputs, outputs, kernel_size=1, stride=self.plan.stride, bias=False)
        self.proj_res_bn = nn.BatchNorm2d(outputs)
        if not self.preactivation:
            self.proj_res_lif = spiking_neuron(config.neuron)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, C_in, H, W)`` to ``(T, B, C_out, H', W')``."""
        tapped = x
        for index, step in enumerate(self.plan.steps):
            if self.preactivation and not (self.plan.real_input and index == 0):
                x = self.get_submodule(f"{step.name}_lif")(x)
            if index == self.plan.tap:
                tapped = x
            x = self._drive(step, x)
            if not self.preactivation:
                x = self.get_submodule(f"{step.name}_lif")(x)
        return x + self._shortcut_path(tapped) if self.shortcut else x

    def _drive(self, step: ConvStep, x: Tensor) -> Tensor:
        drive = conv_norm(self, step.name, x.flatten(0, 1))
        if step.pool is not None:
            drive = self.get_submodule(step.pool)(drive)
        return drive.reshape(x.shape[0], x.shape[1], *drive.shape[1:])

    def _shortcut_path(self, x: Tensor) -> Tensor:
        drive = conv_norm(self, "proj_res", x.flatten(0, 1))
        drive = drive.reshape(x.shape[0], x.shape[1], *drive.shape[1:])
        return drive if self.preactivation else self.proj_res_lif(drive)
