"""Parameters of every network that the paper's tables name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qkf_deploy.evaluation.paper.other_networks import CLASSES, resnet, spiking_transformer, swin, vit_base

if TYPE_CHECKING:
    from qkf_deploy.evaluation.paper.spiking import SpikingCost

#: Parameters, and what to know about the number; ``None`` where the network is not known well enough.
Count = tuple[int | None, str]
_EVENTS = ("DVS128", "CIFAR10-DVS")
_BUILDS = {
    "CIFAR10": ("qkformer-4-384-cifar10", 32, "6.74 M is the 100-class network; with 10 classes it is 6,706,234"),
    "CIFAR100": ("qkformer-4-384-cifar100", 32, ""),
    "DVS128": (
        "qkformer-2-256-dvs128",
        128,
        "the published code builds it with MLP ratio 4: 1,999,371; 1.50 M has ratio 1",
    ),
    "CIFAR10-DVS": ("qkformer-2-256-cifar10dvs", 128, ""),
}
_SWIN_B, _SWIN_T = ((128, (2, 2, 18, 2), (4, 8, 16, 32)), (96, (2, 2, 6, 2), (3, 6, 12, 24)))


def count(table: str, row: str, column: str, cost: Callable[..., SpikingCost]) -> Count:
    """Parameters of the network of a row.

    Raises:
        KeyError: a table without parameters.
    """
    if table == "Table 2":
        name, size, *_ = row.split()
        return _imagenet(name, int(size), cost)
    if table == "Table 6":
        return _ablation(row, "CIFAR100" if column.startswith("cifar100") else "CIFAR10-DVS", cost)
    words = row.split()
    data = {"Table 3": words[-1], "Table 8": words[-2]}[table]
    return _small(words[0], data, row, cost)


def _imagenet(name: str, size: int, cost: Callable[..., SpikingCost]) -> Count:
    if name.startswith("HST"):
        return cost(f"qkformer-{name.removeprefix('HST-')}", size).parameters, ""
    if name.startswith(("Spikformer", "Spikingformer", "S-Transformer")):
        depth, dim = map(int, name.split("-")[-2:])
        return spiking_transformer(dim, depth, 3, 1000), ""
    if name.startswith(("SEW-ResNet", "ResNet")):
        return resnet(name.split("-")[-1]), ""
    if name in ("ViT-B/16", "DeiT-B"):
        found = vit_base(size)
        return found, f"{found:,} at {size} pixels; 86.57 M at 224, 86.86 M at 384"
    if name == "Swin-B":
        window = {224: 7, 384: 12}[size]
        found = swin(*_SWIN_B, window)
        return found, f"{found:,} with the windows of {window} that {size} pixels have"
    if name == "Swin-T":
        return swin(*_SWIN_T, 7), "28,288,354 as published"
    return _vgg(), "39,803,688 with one linear layer behind the last pooling, 138,357,544 with VGG-16's three"


def _vgg() -> int:
    widths = (3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6)
    return sum(9 * a * b + b for a, b in itertools.pairwise(widths)) + (512 * 49 + 1) * 1000


def _small(method: str, data: str, row: str, cost: Callable[..., SpikingCost]) -> Count:
    classes, events = CLASSES[data], data in _EVENTS
    if method == "QKFormer":
        build, size, note = _BUILDS[data]
        return cost(build, size).parameters, note
    if method == "STSA":
        return None, "a network of another paper whose layers are not all stated"
    if "ResNet-19" in row:
        return None, "the classifier's hidden layer is not stated: 12.70 M with 256 units, 12.63 M with 128"
    if method == "S-Transformer" and not events:
        found = spiking_transformer(512, 2, 3, classes)
        return found, f"{found:,} with {classes} classes; 10.28 M is the 100-class network"
    dim, depth, channels = (256, 2, 2) if events else (384, 4, 3)
    found = spiking_transformer(
        dim, depth, channels, classes, linear_bias=method in ("Spikformer", "CML", "Transformer")
    )
    return found, f"{found:,} with {classes} classes" + ("" if events else "; 9.32 M is the 10-class network")


def _ablation(row: str, data: str, cost: Callable[..., SpikingCost]) -> Count:
    kinds = [kind.lower() for kind in row.split(" + ")]
    build, size, _ = _BUILDS[data]
    first, last = kinds[0], kinds[-1]
    stages: tuple[Any, ...] = (first, last) if data in _EVENTS else (first, first, last)
    return cost(build, size, attention=stages).parameters, f"attention of the stages {', '.join(stages)}"
