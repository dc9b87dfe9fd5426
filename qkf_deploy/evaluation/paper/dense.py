"""Multiply-accumulates of the ANN rows from their published shapes: convolutions, linear layers, attention products.

Softmax, normalization, activation, bias and residual additions count nothing, as in the paper's FLOPs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class DenseCost:
    """Multiply-accumulates of one forward pass."""

    linear: int
    attention: int

    @property
    def total(self) -> int:
        """Both."""
        return self.linear + self.attention


def vit_base_16(image_size: int, classes: int = 1000) -> DenseCost:
    """ViT-B/16 and DeiT-B (arXiv 2010.11929, Table 1): 16 x 16 patches, 12 blocks of 768 channels, MLP ratio 4."""
    dim, blocks, patch, ratio = 768, 12, 16, 4
    patches = (image_size // patch) ** 2
    tokens = patches + 1  # the class token
    embedding = patches * patch * patch * 3 * dim
    block = tokens * (4 + 2 * ratio) * dim * dim
    return DenseCost(embedding + blocks * block + dim * classes, blocks * 2 * tokens * tokens * dim)


def swin_base(image_size: int, classes: int = 1000) -> DenseCost:
    """Swin-B (arXiv 2103.14030, Table 7): 4 x 4 patches, 2-2-18-2 blocks from 128 channels, window 7 or 12 (384)."""
    depths, ratio = (2, 2, 18, 2), 4
    window = {224: 7, 384: 12}[image_size]
    side, dim = image_size // 4, 128
    linear, attention = side * side * 4 * 4 * 3 * dim, 0
    for stage, depth in enumerate(depths):
        if stage:  # patch merging: four neighbours concatenated, then a linear layer to twice the channels
            side, dim = side // 2, dim * 2
            linear += side * side * (2 * dim) * dim
        tokens = side * side
        linear += depth * tokens * (4 + 2 * ratio) * dim * dim
        attention += depth * 2 * tokens * window * window * dim
    return DenseCost(linear + dim * classes, attention)


MODELS: Mapping[str, Callable[[int], DenseCost]] = {"vit-base-16": vit_base_16, "swin-base": swin_base}
