"""The shape of a model's input: given, or read off the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from qkf_deploy.converters.torch import assumed
from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Assumption

if TYPE_CHECKING:
    import torch

#: Usual names of the image's height and width, of the side, and of the input channels, in factories and modules.
HEIGHT_NAMES = ("img_size_h", "image_size_h", "img_height")
WIDTH_NAMES = ("img_size_w", "image_size_w", "img_width")
SIDE_NAMES = ("image_size", "img_size")
CHANNEL_NAMES = ("in_channels", "in_chans", "in_channel")
_IMAGENET_SIZE, _IMAGENET_CLASSES, _IMAGE_CHANNELS = 224, 1000, 3

Size = tuple[int, ...]


def spatial(size: int | Sequence[int]) -> Size:
    """The spatial axes an image size means: a square's, ``H, W``, a signal's length; none for 1, a vector."""
    if isinstance(size, int):
        return (size, size)
    if len(size) > 2:
        raise UsageError(
            f"an image size of {len(size)} numbers", hint="give one number, H,W, or the length of a signal"
        )
    return tuple(size)


def named(size: int | Sequence[int] | None) -> dict[str, Any]:
    """An image size under every usual name of a factory's parameter."""
    if size is None:
        return {}
    axes = spatial(size)
    side: Any = axes[0] if len(set(axes)) == 1 else axes
    return {
        **dict.fromkeys(SIDE_NAMES, side),
        **dict.fromkeys(HEIGHT_NAMES, axes[0]),
        **dict.fromkeys(WIDTH_NAMES, axes[-1]),
    }


def input_shape(
    model: torch.nn.Module, size: int | Sequence[int] | None, channels: int | None
) -> tuple[Size, str | None, list[Assumption]]:
    """Shape of one image or step, ``(C, H, W)``, ``(C, L)`` or ``(C,)``.

    Args:
        model: any module.
        size, channels: where they are given.

    Returns:
        The shape, the name of a usual normalization, and what was assumed.

    Raises:
        UsageError: a size that neither model nor user says.
    """
    found: list[Assumption] = []
    usual = None
    channels = channels or _own_channels(model)
    if size is None:
        size = _own_size(model)
        if size is not None and _held(model) != size:
            found.append(assumed.part_size(spatial(size)))
    if size is None and _has_imagenet_classes(model):
        size, usual = _IMAGENET_SIZE, "imagenet" if channels in (None, _IMAGE_CHANNELS) else None
        found.append(assumed.imagenet_size(size))
    if size is None:
        raise UsageError("a module does not say its image size", hint="give --image-size")
    if channels is None:
        channels = _linear_channels(model, spatial(size)) or _IMAGE_CHANNELS
        found.append(assumed.image_channels(channels))
    is_vector = size == 1 and not any(True for _ in _weights_of(model, 3))
    return (channels, *(() if is_vector else spatial(size))), usual, found


def _held(module: torch.nn.Module) -> int | Size | None:
    """The size a module carries under a usual name."""
    for name in (*SIDE_NAMES, *HEIGHT_NAMES):
        value = getattr(module, name, None)
        if isinstance(value, int) and value > 0:
            return value
        if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(n, int) and n > 0 for n in value):
            return value[0] if value[0] == value[1] else tuple(value)
    return None


def _own_size(model: torch.nn.Module) -> int | Size | None:
    """The size the model carries, or the first of its parts that carries one."""
    return next((size for module in model.modules() if (size := _held(module)) is not None), None)


def _has_imagenet_classes(model: torch.nn.Module) -> bool:
    """True if the last linear layer has as many outputs as ImageNet-1k has classes."""
    outputs = [getattr(m, "out_features", None) for m in model.modules() if hasattr(m, "out_features")]
    return bool(outputs) and outputs[-1] == _IMAGENET_CLASSES


def _own_channels(model: torch.nn.Module) -> int | None:
    """Input channels of the first convolution."""
    for module in model.modules():
        channels = getattr(module, "in_channels", None)
        if isinstance(channels, int) and hasattr(module, "weight"):
            return channels
    return None


def _weights_of(model: torch.nn.Module, least_axes: int) -> Iterator[torch.Tensor]:
    return (p for p in model.parameters() if p.ndim >= least_axes)


def _linear_channels(model: torch.nn.Module, axes: Size) -> int | None:
    """Channels that make the first linear layer fit a flattened image, of a model without convolutions."""
    first = next((m for m in model.modules() if isinstance(getattr(m, "in_features", None), int)), None)
    if first is None or any(True for _ in _weights_of(model, 3)):
        return None
    channels, rest = divmod(int(getattr(first, "in_features")), math.prod(axes))  # noqa: B009 - unknown to checkers
    return channels if channels and not rest else None
