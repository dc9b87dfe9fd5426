"""Neurons, attentions, MLP and block of QKFormer, with the module names of the official state dicts.

Shapes: a feature map is ``(T, B, C, H, W)``, its tokens are ``(T, B, C, N)`` with ``N = H * W``. Convolutions and batch
norms work on ``(T*B, ...)``, neurons on ``(T, B, ...)``. Equations are those of arXiv 2403.16552.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from qkf_deploy.models.config import Attention, NeuronKind, QKFormerConfig

ATTENTION_THRESHOLD = 0.5
SSA_SCALE = 0.125
"""Fixed in the official files, whatever the head size."""


def spiking_neuron(kind: NeuronKind, v_threshold: float = 1.0) -> nn.Module:
    """A multi-step SpikingJelly neuron with hard reset to 0 and, where it leaks, tau = 2 (Eq. 12 to 14).

    Args:
        kind: ``lif``, ``if`` or ``plif``; a ``plif`` learns tau and starts at 2.
        v_threshold: firing threshold, in units of the membrane potential.
    """
    if kind == "if":
        return neuron.IFNode(v_threshold=v_threshold, detach_reset=True, step_mode="m")
    if kind == "plif":
        return neuron.ParametricLIFNode(init_tau=2.0, v_threshold=v_threshold, detach_reset=True, step_mode="m")
    return neuron.LIFNode(tau=2.0, v_threshold=v_threshold, detach_reset=True, step_mode="m")


def conv_norm(module: nn.Module, name: str, x: Tensor) -> Tensor:
    """Apply ``{name}_conv`` then ``{name}_bn`` of ``module`` to ``(T*B, C, ...)``."""
    return module.get_submodule(f"{name}_bn")(module.get_submodule(f"{name}_conv")(x))


class _Attention(nn.Module):
    """What the three attentions share: branches from tokens to spikes, and the output projection.

    With the pre-activation shortcut (Eq. 11) ``input_lif`` opens the branch and nothing follows the projection's norm.
    """

    branches: tuple[str, ...] = ("q", "k")

    def __init__(self, dim: int, heads: int, config: QKFormerConfig) -> None:
        super().__init__()
        self.heads = heads
        self.preactivation = config.shortcut == "pa"
        self.merge_batch_into_time = config.merge_batch_into_time
        if self.preactivation:
            self.input_lif = spiking_neuron(config.neuron)
        for name in self.branches:
            self.add_module(f"{name}_conv", nn.Conv1d(dim, dim, kernel_size=1, bias=False))
            self.add_module(f"{name}_bn", nn.BatchNorm1d(dim))
            self.add_module(f"{name}_lif", spiking_neuron(config.neuron))
        self.attn_lif = spiking_neuron(config.neuron, ATTENTION_THRESHOLD)
        self.proj_conv = nn.Conv1d(dim, dim, kernel_size=1)
        self.proj_bn = nn.BatchNorm1d(dim)
        if not self.preactivation:
            self.proj_lif = spiking_neuron(config.neuron)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, C, H, W)`` to the same shape: spikes, or drives with the pre-activation shortcut."""
        if self.preactivation:
            x = self.input_lif(x)
        return self._project(self._attend(x.flatten(3)), x.shape)

    def _attend(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def _spikes(self, name: str, tokens: Tensor) -> Tensor:
        drive = conv_norm(self, name, tokens.flatten(0, 1))
        return self.get_submodule(f"{name}_lif")(drive.reshape(tokens.shape))

    def _project(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        drive = self.proj_bn(self.proj_conv(tokens.flatten(0, 1))).reshape(shape)
        return drive if self.preactivation else self.proj_lif(drive)


class QKTokenAttention(_Attention):
    """Q-K token attention (Eq. 6): the neuron of a head's channel sum opens or closes each token of k."""

    summed_axis = 3

    def _attend(self, tokens: Tensor) -> Tensor:
        steps, batch, channels, count = tokens.shape
        split = (steps, batch, self.heads, channels // self.heads, count)
        q = self._spikes("q", tokens).reshape(split)
        k = self._spikes("k", tokens).reshape(split)
        gate = self.attn_lif(q.sum(dim=self.summed_axis, keepdim=True))
        return (gate * k).flatten(2, 3)


class QKChannelAttention(QKTokenAttention):
    """Q-K channel attention: the neuron of a channel's sum over tokens opens or closes that channel of k."""

    summed_axis = 4


class SpikingSelfAttention(_Attention):
    """Spiking self-attention (Eq. 3 and 4) as ``q (k^T v) * 0.125``: linear in the number of tokens."""

    branches = ("q", "k", "v")

    def _attend(self, tokens: Tensor) -> Tensor:
        q, k, v = (self._split_heads(self._spikes(name, tokens)) for name in self.branches)
        context = k.transpose(-2, -1) @ v
        mixed = (q @ context) * SSA_SCALE
        return self.attn_lif(mixed.transpose(3, 4).reshape(tokens.shape))

    def _split_heads(self, spikes: Tensor) -> Tensor:
        steps, batch, channels, count = spikes.shape
        per_token = spikes.transpose(-1, -2).reshape(steps, batch, count, self.heads, channels // self.heads)
        return per_token.permute(0, 1, 3, 2, 4)

    def _project(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        if self.preactivation or not self.merge_batch_into_time:
            return super()._project(tokens, shape)
        # The official files call this neuron on (T*B, C, N): it takes the images of a batch for time steps.
        return self.proj_lif(self.proj_bn(self.proj_conv(tokens.flatten(0, 1)))).reshape(shape)


class MLP(nn.Module):
    """Two 1x1 convolutions with bias, each with batch norm and a neuron (before it with ``pa``).

    Args:
        prefix: ``fc`` (ImageNet layout) or ``mlp`` (others): the names are ``{prefix}1_conv`` and so on.
    """

    def __init__(self, dim: int, prefix: str, config: QKFormerConfig) -> None:
        super().__init__()
        hidden = int(dim * config.mlp_ratio)
        self.preactivation = config.shortcut == "pa"
        self.names = (f"{prefix}1", f"{prefix}2")
        for name, (inputs, outputs) in zip(self.names, ((dim, hidden), (hidden, dim)), strict=True):
            self.add_module(f"{name}_conv", nn.Conv2d(inputs, outputs, kernel_size=1))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))
            self.add_module(f"{name}_lif", spiking_neuron(config.neuron))

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, C, H, W)`` to the same shape."""
        steps, batch = x.shape[:2]
        for name in self.names:
            lif = self.get_submodule(f"{name}_lif")
            x = lif(x) if self.preactivation else x
            drive = conv_norm(self, name, x.flatten(0, 1))
            x = drive.reshape(steps, batch, *drive.shape[1:])
            x = x if self.preactivation else lif(x)
        return x


_ATTENTIONS: dict[Attention, Callable[[int, int, QKFormerConfig], nn.Module]] = {
    "qkta": QKTokenAttention,
    "qkca": QKChannelAttention,
    "ssa": SpikingSelfAttention,
}


def attention_name(layout: str, attention: Attention) -> str:
    """Attribute of a block that holds its attention. The names are the official ones; ``cssa`` (channel) is ours."""
    if attention == "ssa":
        return "attn" if layout == "imagenet" else "ssa"
    return "tssa" if attention == "qkta" else "cssa"


class Block(nn.Module):
    """``x + attention(x)``, then ``x + mlp(x)`` on ``(T, B, C, H, W)``; additions of spikes give counts."""

    def __init__(self, stage: int, config: QKFormerConfig) -> None:
        super().__init__()
        dim, kind = config.stage_dims[stage], config.attention[stage]
        self.attention_name = attention_name(config.layout, kind)
        self.add_module(self.attention_name, _ATTENTIONS[kind](dim, config.heads[stage], config))
        self.mlp = MLP(dim, "fc" if config.layout == "imagenet" else "mlp", config)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, C, H, W)`` to the same shape."""
        x = x + self.get_submodule(self.attention_name)(x)
        return x + self.mlp(x)
