"""Named builds: the architectures of the official files (zhouchenlin2096/QKFormer) and of the two bundled tasks.

Heads, T and image size leave no trace in a state dict; the values here are what the official files use:

- ImageNet HST-10-E: 224 x 224, heads 6, 8, 12 for E = 384, 512, 768 in every stage (the factories default to T = 1, the
  training and test scripts pass 4).
- CIFAR HST-4-384: 32 x 32, 8 heads whatever the argument says, T = 4.
- CIFAR10-DVS and DVS128 HST-2-256: 128 x 128, 16 heads, T = 16 frames; MLP ratio 1 and 4.

All official files merge batch into time in SSA; their builds here do too. At batch size 1 it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qkf_deploy.errors import UsageError
from qkf_deploy.models.config import QKFormerConfig
from qkf_deploy.models.lazy import import_torch_module

if TYPE_CHECKING:
    from qkf_deploy.models.qkformer import QKFormer


def _imagenet(embed_dim: int, heads: int) -> QKFormerConfig:
    return QKFormerConfig(
        layout="imagenet",
        in_channels=3,
        num_classes=1000,
        image_size=224,
        embed_dim=embed_dim,
        depths=(1, 2, 7),
        heads=(heads,) * 3,
        attention=("qkta", "qkta", "ssa"),
        merge_batch_into_time=True,
    )


def _cifar(num_classes: int) -> QKFormerConfig:
    return QKFormerConfig(
        layout="cifar",
        in_channels=3,
        num_classes=num_classes,
        image_size=32,
        embed_dim=384,
        depths=(1, 1, 2),
        heads=(8, 8, 8),
        attention=("qkta", "qkta", "ssa"),
        merge_batch_into_time=True,
    )


def _dvs(num_classes: int, mlp_ratio: float) -> QKFormerConfig:
    return QKFormerConfig(
        layout="dvs",
        in_channels=2,
        num_classes=num_classes,
        image_size=128,
        embed_dim=256,
        depths=(1, 1),
        heads=(16, 16),
        attention=("qkta", "ssa"),
        mlp_ratio=mlp_ratio,
        time_steps=16,
        merge_batch_into_time=True,
    )


_DIGITS = QKFormerConfig(
    layout="cifar",
    in_channels=1,
    num_classes=10,
    image_size=16,
    embed_dim=64,
    depths=(1, 1, 1),
    heads=(4, 4, 4),
    attention=("qkta", "qkta", "ssa"),
)

_ANIMALS = _DIGITS.replace(image_size=28, embed_dim=48)

BUILDS: dict[str, QKFormerConfig] = {
    "qkformer-10-384": _imagenet(384, 6),
    "qkformer-10-512": _imagenet(512, 8),
    "qkformer-10-768": _imagenet(768, 12),
    "qkformer-4-384-cifar10": _cifar(10),
    "qkformer-4-384-cifar100": _cifar(100),
    "qkformer-2-256-cifar10dvs": _dvs(10, 1.0),
    "qkformer-2-256-dvs128": _dvs(11, 4.0),
    "qkformer-digits": _DIGITS,
    "qkformer-animals": _ANIMALS,
}
"""Every named build."""


@dataclass(frozen=True)
class NotStored:
    """What a state dict does not show.

    Attributes:
        heads: of each stage.
        time_steps: T.
        image_size: height and width in pixels.
        source: why these, for people.
    """

    heads: tuple[int, ...]
    time_steps: int
    image_size: int
    source: str


LAYOUT_DEFAULTS: dict[str, NotStored] = {
    "imagenet": NotStored(heads=(8, 8, 8), time_steps=4, image_size=224, source="usual for the imagenet layout"),
    "cifar": NotStored(heads=(8, 8, 8), time_steps=4, image_size=32, source="usual for the cifar layout"),
    "dvs": NotStored(heads=(16, 16), time_steps=16, image_size=128, source="usual for the dvs layout"),
}
"""For checkpoints whose layout and width match no named build."""


def build_config(name: str, **overrides: Any) -> QKFormerConfig:
    """The configuration of a named build.

    Args:
        name: a key of :data:`BUILDS`.
        **overrides: fields of :class:`QKFormerConfig`; per-stage fields may be one value for all stages.

    Raises:
        UsageError: an unknown name, an unknown field or an impossible value.
    """
    if name not in BUILDS:
        raise UsageError(f"unknown model {name!r}", hint=f"one of: {', '.join(BUILDS)}")
    return BUILDS[name].replace(**overrides)


def build(name: str, **overrides: Any) -> QKFormer:
    """A named build with random weights, in training mode; see :func:`build_config` for the arguments.

    Raises:
        UsageError: an unknown name, an unknown field or an impossible value.
        MissingComponent: torch or SpikingJelly is not installed.
    """
    config = build_config(name, **overrides)
    return import_torch_module("qkf_deploy.models.qkformer").QKFormer(config)
