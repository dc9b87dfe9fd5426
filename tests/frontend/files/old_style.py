"""A small spiking transformer as such files were written for SpikingJelly 0.0.0.0.12 and timm 0.6 (for tests)."""

from functools import partial

import torch
import torch.nn as nn
from spikingjelly.clock_driven.neuron import MultiStepLIFNode, MultiStepParametricLIFNode
from timm.models.layers import DropPath, to_2tuple, trunc_normal_
from timm.models.registry import register_model
from timm.models.vision_transformer import _cfg

__all__ = ["tiny_old"]


class Stem(nn.Module):
    def __init__(self, img_size=16, in_channels=3, dim=16):
        super().__init__()
        self.image_size = to_2tuple(img_size)
        self.conv = nn.Conv2d(in_channels, dim, kernel_size=3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(dim)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.lif = MultiStepLIFNode(tau=2.0, detach_reset=True, backend="cupy")

    def forward(self, x):
        steps, batch, *_ = x.shape
        y = self.pool(self.bn(self.conv(x.flatten(0, 1))))
        return self.lif(y.reshape(steps, batch, *y.shape[1:]).contiguous())


class Attention(nn.Module):
    """q kᵀ first, linear layers with batch norm over their transposed output: the Spikformer way."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.scale = heads, 0.25
        for name in "qkv":
            setattr(self, f"{name}_linear", nn.Linear(dim, dim))
            setattr(self, f"{name}_bn", nn.BatchNorm1d(dim))
            setattr(self, f"{name}_lif", MultiStepLIFNode(tau=2.0, detach_reset=True, backend="cupy"))
        self.attn_lif = MultiStepLIFNode(tau=2.0, v_threshold=0.5, detach_reset=True, backend="cupy")
        self.proj_linear = nn.Linear(dim, dim)
        self.proj_bn = nn.BatchNorm1d(dim)
        self.proj_lif = MultiStepParametricLIFNode(init_tau=2.0, detach_reset=True, backend="cupy")

    def branch(self, name, x):
        steps, batch, tokens, dim = x.shape
        y = getattr(self, f"{name}_linear")(x.flatten(0, 1)).transpose(-1, -2)
        y = getattr(self, f"{name}_bn")(y).transpose(-1, -2).reshape(steps, batch, tokens, dim).contiguous()
        y = getattr(self, f"{name}_lif")(y)
        return y.reshape(steps, batch, tokens, self.heads, dim // self.heads).permute(0, 1, 3, 2, 4)

    def forward(self, x):
        steps, batch, tokens, dim = x.shape
        q, k, v = (self.branch(name, x) for name in "qkv")
        x = ((q @ k.transpose(-2, -1)) @ v) * self.scale
        x = self.attn_lif(x.transpose(2, 3).reshape(steps, batch, tokens, dim).contiguous())
        x = self.proj_bn(self.proj_linear(x.flatten(0, 1)).transpose(-1, -2)).transpose(-1, -2)
        return self.proj_lif(x.reshape(steps, batch, tokens, dim))


class TinyOld(nn.Module):
    def __init__(self, img_size=16, in_channels=3, num_classes=5, dim=16, heads=2, drop_path=0.1, T=4):
        super().__init__()
        self.T = T
        norm = partial(nn.BatchNorm2d, eps=1e-5)
        self.stem = Stem(img_size, in_channels, dim)
        self.attn = Attention(dim, heads)
        self.drop_path = DropPath(drop_path)
        self.cml = nn.Conv2d(dim, dim, kernel_size=3, padding=1, bias=False)
        self.cml_bn = norm(dim)
        self.cml_pool = nn.MaxPool2d(2)
        self.cml_lif = MultiStepLIFNode(tau=2.0, detach_reset=True, backend="cupy")
        self.head = nn.Linear(dim, num_classes)
        self.apply(self._init)

    def _init(self, m):
        if isinstance(m, nn.Linear):
            trunc_normal_(m.weight, std=0.2)

    def forward(self, x):
        x = self.stem(x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1))
        steps, batch, dim, height, width = x.shape
        tokens = x.flatten(3).transpose(-1, -2)
        tokens = tokens + self.drop_path(self.attn(tokens))
        x = tokens.transpose(-1, -2).reshape(steps * batch, dim, height, width)
        x = self.cml_pool(self.cml_bn(self.cml(x)))
        x = self.cml_lif(x.reshape(steps, batch, dim, height // 2, width // 2))
        return self.head(x.flatten(3).mean(3).mean(0))


@register_model
def tiny_old(pretrained=False, **kwargs):
    model = TinyOld(**kwargs)
    model.default_cfg = _cfg()
    if torch.cuda.is_available() and pretrained:
        raise RuntimeError("no weights")
    return model
