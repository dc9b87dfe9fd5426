"""Random changes of training images, by kornia; every part of a batch has random numbers of its own."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor, nn

from qkf_deploy.errors import MissingComponent
from qkf_deploy.training.recipe import Recipe

#: kornia's RandAugment takes its strength as a number below this.
_STRONGEST = 30


class Augmentation(nn.Module):
    """Shift, mirror, RandAugment and erasing of pixels in 0..1.

    Event frames ``(B, T, C, H, W)`` are only shifted and mirrored, all frames of a recording alike.

    Args:
        recipe: which of them, and how strong.
        size: height and width in pixels (images are square).
        frames: True for event frames.

    Raises:
        MissingComponent: kornia is not installed, and the recipe asks for a change.
    """

    def __init__(self, recipe: Recipe, size: int, frames: bool = False) -> None:
        super().__init__()
        changes: list[nn.Module] = []
        if recipe.shift:
            changes.append(_kornia().RandomCrop((size, size), padding=recipe.shift))
        if recipe.flip:
            changes.append(_kornia().RandomHorizontalFlip(p=recipe.flip))
        if recipe.rand_augment and not frames:
            strength = min(_STRONGEST - 1, round(recipe.rand_magnitude * _STRONGEST))
            automatic = _kornia("kornia.augmentation.auto")
            changes.append(automatic.RandAugment(recipe.rand_augment, strength))
        if recipe.erase and not frames:
            changes.append(_kornia().RandomErasing(p=recipe.erase))
        self.changes = nn.ModuleList(changes)

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, C, H, W)`` or ``(B, T, C, H, W)`` in 0..1 to the same shape."""
        if not len(self.changes):
            return pixels
        images = pixels.flatten(1, 2) if pixels.ndim == 5 else pixels
        grey = images.shape[1] == 1  # kornia's colour operations take three channels
        out = images.expand(-1, 3, -1, -1) if grey else images
        for change in self.changes:
            out = change(out)
        return (out[:, :1] if grey else out).reshape(pixels.shape)


def mix(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mixup: every image with the one that stands as far from the end as it from the start.

    Args:
        images: ``(B, ...)``.
        targets: probabilities ``(B, classes)``.
        alpha: both parameters of the beta distribution that one share of all pairs is drawn from.
    """
    share = torch.distributions.Beta(alpha, alpha).sample()
    share = share.to(images.device)
    return share * images + (1 - share) * images.flip(0), share * targets + (1 - share) * targets.flip(0)


def _kornia(name: str = "kornia.augmentation") -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("kornia", "kornia_rs"):
            raise
        raise MissingComponent("kornia is not installed", hint='pip install "qkf-deploy[train]"') from error
