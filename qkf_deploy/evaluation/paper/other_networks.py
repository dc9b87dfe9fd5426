"""Parameters and multiply-accumulates of the other networks in the paper's tables, from their published shapes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

#: Depths of the four stages, and whether blocks have a bottleneck.
_RESNETS = {
    "18": ((2, 2, 2, 2), False), "34": ((3, 4, 6, 3), False), "50": ((3, 4, 6, 3), True),
    "101": ((3, 4, 23, 3), True), "152": ((3, 8, 36, 3), True),
}  # fmt: skip
#: Classes of the data sets.
CLASSES = {"CIFAR10": 10, "CIFAR100": 100, "DVS128": 11, "CIFAR10-DVS": 10}


def spiking_transformer(dim: int, depth: int, channels: int, classes: int, *, linear_bias: bool = False) -> int:
    """Parameters of Spikformer, Spikingformer and Spike-driven Transformer: five convolutions, blocks of MLP ratio 4.

    Args:
        dim, depth: channels and blocks.
        channels: of the input.
        classes: of the head.
        linear_bias: Q, K and V have a bias, as in Spikformer's files for CIFAR and event data.
    """
    widths = (channels, dim // 8, dim // 4, dim // 2, dim, dim)
    tokenizer = sum(9 * a * b for a, b in itertools.pairwise(widths)) + 2 * sum(widths[1:])
    attention = 4 * dim * dim + (4 if linear_bias else 1) * dim + 4 * 2 * dim
    mlp = 2 * 4 * dim * dim + 4 * dim + dim + 2 * 4 * dim + 2 * dim
    return tokenizer + depth * (attention + mlp) + (dim + 1) * classes


def spiking_transformer_macs(dim: int, depth: int, image_size: int) -> tuple[int, int]:
    """(first layer, everything that reads spikes but the attention products) of one step, image as three channels."""
    side = image_size
    widths = (dim // 8, dim // 4, dim // 2, dim, dim)
    rest = 0
    for inputs, outputs in itertools.pairwise(widths):
        side //= 2
        rest += 9 * inputs * outputs * side * side
    return 27 * (dim // 8) * image_size**2, rest + depth * 12 * dim * dim * side * side


def resnet(name: str, classes: int = 1000) -> int:
    """Parameters of ResNet-18 to 152 (SEW-ResNet has the same)."""
    depths, bottleneck = _RESNETS[name]
    total, inputs = 3 * 64 * 49 + 2 * 64, 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        outputs = width * (4 if bottleneck else 1)
        for block in range(depth):
            widths = (inputs, width, width, outputs) if bottleneck else (inputs, width, width)
            kernels = (1, 9, 1) if bottleneck else (9, 9)
            total += sum(k * a * b + 2 * b for k, a, b in zip(kernels, widths, widths[1:], strict=False))
            total += (inputs * outputs + 2 * outputs) * (block == 0 and (stage > 0 or bottleneck))
            inputs = outputs
    return total + (inputs + 1) * classes


def vit_base(image_size: int) -> int:
    """Parameters of ViT-B/16 and DeiT-B: class token, one position per token, 12 blocks."""
    dim, tokens = 768, (image_size // 16) ** 2 + 1
    block = 12 * dim * dim + 9 * dim + 2 * 2 * dim
    return 16 * 16 * 3 * dim + dim + dim + tokens * dim + 12 * block + 2 * dim + (dim + 1) * 1000


def swin(dim: int, depths: Sequence[int], heads: Sequence[int], window: int) -> int:
    """Parameters of a Swin transformer: 4 x 4 patches, relative positions of its windows, patch merging."""
    total = 48 * dim + dim + 2 * dim
    for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        if stage:
            total += 4 * dim * 2 * dim + 2 * 4 * dim
            dim *= 2
        total += depth * (12 * dim * dim + 13 * dim + (2 * window - 1) ** 2 * count)
    return total + 2 * dim + (dim + 1) * 1000
