"""Ordinary networks as torch modules, for counting: ViT and DeiT, Swin, ResNet; and a counter for any module.

They have every operation that multiplies, in its published shape. What costs no multiply-accumulate by the usual
convention (position embeddings and biases, attention masks, softmax temperature) is left out, so they are no models to
load weights into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from qkf_deploy.errors import InputError, UsageError


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates of one forward pass of one image.

    Attributes:
        weights: of convolutions and linear layers.
        products: of matrix products of two activations (attention).
        parameters: stored numbers.
    """

    weights: int
    products: int
    parameters: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.products


def count_macs(model: nn.Module, shape: Sequence[int]) -> MacCount:
    """Dense multiply-accumulates of a torch module, padding taps counted, by torch's own FLOP counter.

    Nothing is computed where the module lies on the ``meta`` device.

    Args:
        model: in any mode; it is run once in evaluation mode.
        shape: ``(C, H, W)`` of one image.

    Raises:
        InputError: the model cannot run on this shape.
    """
    parameter = next(iter(model.parameters()), torch.empty(0))
    x = torch.zeros((1, *shape), dtype=parameter.dtype, device=parameter.device)
    training = model.training
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            model.eval()(x)
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"cannot run on {tuple(shape)}: {text}", where=type(model).__name__) from error
    finally:
        model.train(training)
    flops = {str(op): int(n) for op, n in counter.get_flop_counts()["Global"].items()}
    products = sum(n for op, n in flops.items() if op in ("aten.bmm", "aten.baddbmm", "aten._scaled_dot_product"))
    return MacCount((sum(flops.values()) - products) // 2, products // 2, sum(p.numel() for p in model.parameters()))


class _Attention(nn.Module):
    """Softmax self-attention on ``(B, N, C)``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` to the same shape."""
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * (dim // self.heads) ** -0.5
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, dim))


class _Block(nn.Module):
    """Pre-norm transformer block; with ``window`` attention stays within square windows (shifted in odd blocks)."""

    def __init__(self, dim: int, heads: int, window: int = 0, shift: int = 0) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.attn = nn.LayerNorm(dim), _Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, C)``, or ``(B, H, W, C)`` with windows, to the same shape."""
        mix = self._windowed if self.window else self.attn
        x = x + mix(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _windowed(self, x: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        w = self.window
        x = x.roll((-self.shift, -self.shift), (1, 2))
        split = x.reshape(batch, height // w, w, width // w, w, dim).transpose(2, 3)
        mixed = self.attn(split.reshape(-1, w * w, dim)).reshape(split.shape)
        return mixed.transpose(2, 3).reshape(x.shape).roll((self.shift, self.shift), (1, 2))


class VisionTransformer(nn.Module):
    """ViT (arXiv 2010.11929) and DeiT without distillation (arXiv 2012.12877): class token, pre-norm blocks."""

    def __init__(self, image_size: int, dim: int = 768, depth: int = 12, heads: int = 12, classes: int = 1000) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, dim, kernel_size=16, stride=16)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.zeros(1, (image_size // 16) ** 2 + 1, dim))
        self.blocks = nn.Sequential(*(_Block(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, classes)``."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class _Merge(nn.Module):
    """Patch merging: four neighbours side by side, then a linear layer to twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, H, W, C)`` to ``(B, H/2, W/2, 2C)``."""
        batch, height, width, dim = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, dim).permute(0, 1, 3, 2, 4, 5)
        return self.reduce(self.norm(x.reshape(batch, height // 2, width // 2, 4 * dim)))


class SwinTransformer(nn.Module):
    """Swin (arXiv 2103.14030): windowed attention in four stages."""

    def __init__(
        self,
        window: int,
        dim: int = 128,
        depths: Sequence[int] = (2, 2, 18, 2),
        heads: Sequence[int] = (4, 8, 16, 32),
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.embed, self.embed_norm = nn.Conv2d(3, dim, kernel_size=4, stride=4), nn.LayerNorm(dim)
        layers: list[nn.Module] = []
        for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            if stage:
                layers.append(_Merge(dim))
                dim *= 2
            layers += [_Block(dim, count, window, window // 2 * (i % 2)) for i in range(depth)]
        self.stages = nn.Sequential(*layers)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, classes)``."""
        x = self.stages(self.embed_norm(self.embed(x).permute(0, 2, 3, 1)))
        return self.head(self.norm(x).mean((1, 2)))


class _Residual(nn.Module):
    """Residual block of ResNet: two 3x3 convolutions, or 1x1, 3x3 (strided, as in torchvision), 1x1."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        if not bottleneck:
            shapes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        layers: list[nn.Module] = []
        for a, b, kernel, step in shapes:
            layers += [nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet (arXiv 1512.03385)."""

    def __init__(self, depths: Sequence[int], bottleneck: bool, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        layers, inputs = [], 64
        for stage, depth in enumerate(depths):
            for index in range(depth):
                width = 64 << stage
                layers.append(_Residual(inputs, width, 2 if stage and not index else 1, bottleneck))
                inputs = 4 * width if bottleneck else width
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, classes)``."""
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


#: Networks by name, built for an image size.
ANNS: Mapping[str, Callable[[int], nn.Module]] = {
    "vit-base-16": VisionTransformer,
    "deit-base": VisionTransformer,
    "swin-base": lambda size: SwinTransformer(12 if size == 384 else 7),
    "resnet18": lambda size: ResNet((2, 2, 2, 2), bottleneck=False),
    "resnet34": lambda size: ResNet((3, 4, 6, 3), bottleneck=False),
    "resnet50": lambda size: ResNet((3, 4, 6, 3), bottleneck=True),
    "resnet101": lambda size: ResNet((3, 4, 23, 3), bottleneck=True),
    "resnet152": lambda size: ResNet((3, 8, 36, 3), bottleneck=True),
}


def ann_macs(name: str, image_size: int = 224) -> MacCount:
    """Multiply-accumulates of a network of :data:`ANNS`, without computing anything.

    Raises:
        UsageError: an unknown name.
        InputError: an image size the network cannot take.
    """
    if name not in ANNS:
        raise UsageError(f"no network {name!r}", hint=f"one of: {', '.join(ANNS)}")
    with torch.device("meta"):
        model = ANNS[name](image_size)
    return count_macs(model, (3, image_size, image_size))
