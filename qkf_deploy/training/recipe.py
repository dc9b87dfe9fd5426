"""Training recipes of the named builds. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping

from qkf_deploy.options import Recipe

#: The official repository's cifar10.yml and cifar100.yml (zhouchenlin2096/QKFormer), with three differences: kornia's
#: operations instead of timm's (magnitude 9 of 10 without its noise), no cool-down epochs, and the clean carry.
_CIFAR = Recipe(
    epochs=400,
    learning_rate=1e-3,
    min_learning_rate=1e-5,
    warmup_learning_rate=1e-5,
    warmup_epochs=20,
    weight_decay=6e-2,
    label_smoothing=0.1,
    shift=4,
    flip=0.5,
    rand_augment=1,
    erase=0.25,
    mixup=0.5,
    mixup_epochs=200,
    precision="float16",
)
#: The official imagenet/train.py: 6e-4 per 256 images of the batch, 200 epochs, five of warm-up. Its stochastic depth
#: is an argument that the official blocks do not use.
_IMAGENET = Recipe(
    epochs=200,
    batch_size=512,
    micro_batches=8,
    learning_rate=1.2e-3,
    min_learning_rate=1e-6,
    warmup_epochs=5,
    weight_decay=0.05,
    label_smoothing=0.1,
    flip=0.5,
    rand_augment=2,
    erase=0.25,
    precision="float16",
)

RECIPES: Mapping[str, Recipe] = {
    "qkformer-digits": Recipe(shift=2),
    "qkformer-animals": Recipe(shift=2, flip=0.5, erase=0.25, label_smoothing=0.1),
    "qkformer-4-384-cifar10": _CIFAR,
    "qkformer-4-384-cifar100": _CIFAR,
    "qkformer-10-384": _IMAGENET,
    "qkformer-10-512": _IMAGENET,
    "qkformer-10-768": _IMAGENET,
}
"""Recipes by named build; what is not here starts from the defaults of :class:`Recipe`."""
