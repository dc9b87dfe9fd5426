"""Mean, standard deviation, resizing and class names: given, stored beside the weights, or assumed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from qkf_deploy.converters.torch import assumed
from qkf_deploy.errors import CheckpointError, UsageError
from qkf_deploy.ir import Assumption, Preprocessing, Resize

#: Pixel normalization by name. ``imagenet`` and ``cifar10`` are the values of the official training configurations;
#: ``none`` only divides by 255.
PRESETS: Mapping[str, Preprocessing | None] = {
    "imagenet": Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": Preprocessing((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "none": None,
}


def normalization(
    options: Any, channels: int, usual: str | None, source: str, stored: Preprocessing | None
) -> tuple[Preprocessing, list[Assumption]]:
    """Explicit mean and std, else the preset, else what the file says, else the usual one.

    Args:
        options: of :func:`qkf_deploy.trace`.
        channels: of the input.
        usual: name of a preset, ``None`` for none.
        source: why that one.
        stored: as :func:`stored` found it.

    Returns:
        The normalization, and the assumption it is, if it is one.

    Raises:
        UsageError: values that do not fit, or an unknown preset.
    """
    if (options.mean is None) != (options.std is None):
        raise UsageError("--mean and --std go together")
    if options.mean is not None:
        return _checked(options.mean, options.std, channels), []
    if options.preset is not None:
        if options.preset not in PRESETS:
            raise UsageError(
                f"no preset {options.preset!r}", hint=f"use one of {', '.join(PRESETS)}, or --mean and --std"
            )
        preset = PRESETS[options.preset]
        return (_plain(channels) if preset is None else _checked(preset.mean, preset.std, channels)), []
    if stored is not None:
        return stored, []
    preset = PRESETS[usual] if usual else None
    pre = _plain(channels) if preset is None else preset
    return pre, [assumed.of_pixels(pre, usual, source if usual else "nothing says otherwise")]


def resizing(
    options: Any, shape: tuple[int, ...], usual: str | None, source: str
) -> tuple[Resize | None, list[Assumption]]:
    """How image files are brought to the input's size: explicit, else the preset's, else the usual one.

    The official ImageNet evaluation scales the shorter side to 256 / 224 of an input of up to 224 pixels, and to the
    input itself for larger ones (zhouchenlin2096/QKFormer, `imagenet/`, which evaluates as facebookresearch/mae
    `util/datasets.py` does). CIFAR images have the input's size.

    Args:
        options: of :func:`qkf_deploy.trace`.
        shape: ``(C, H, W)`` of the input.
        usual: name of a preset whose resizing is assumed, ``None`` for none.
        source: why that one.

    Returns:
        The resizing, and the assumption it is, if it is one.

    Raises:
        UsageError: smaller than the input, or an interpolation of nothing.
    """
    if options.eval_resize is not None:
        if len(shape) != 3:
            raise UsageError("--eval-resize is for images", hint="leave it out for signals and vectors")
        resize = Resize(options.eval_resize, options.interpolation or "bicubic")
        if resize.shorter < max(shape[1:]):
            raise UsageError(f"--eval-resize {resize.shorter} is smaller than the input of {shape[2]}x{shape[1]}")
        return resize, []
    if options.interpolation is not None:
        raise UsageError("--interpolation is that of --eval-resize", hint="give both")
    given = options.preset is not None or options.mean is not None
    if (options.preset if given else usual) != "imagenet":
        return None, []
    side = max(shape[1:])
    resize = Resize(int(side / _CROP) if side <= _CROPPED_UP_TO else side)
    value = f"{resize.shorter} pixels ({resize.interpolation})"
    return resize, [] if given else [Assumption("resize", value, source, "pixels of image files", "--eval-resize")]


#: Part of the shorter side that the official ImageNet evaluation keeps, for inputs of up to so many pixels.
_CROP, _CROPPED_UP_TO = 224 / 256, 224


def _plain(channels: int) -> Preprocessing:
    return Preprocessing((0.0,) * channels, (1.0,) * channels)


def _checked(mean: Sequence[float], std: Sequence[float], channels: int) -> Preprocessing:
    numbers = [*mean, *std]
    fit = len(mean) == len(std) == channels and all(_is_number(n) for n in numbers)
    if not fit or not all(math.isfinite(n) for n in numbers) or min(std) <= 0:
        raise UsageError(f"mean and std need {channels} values each, std positive", hint="give --mean and --std")
    return Preprocessing(tuple(map(float, mean)), tuple(map(float, std)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def stored(metadata: Mapping[str, str], channels: int, where: str) -> Preprocessing | None:
    """Mean and std out of the metadata of a safetensors file; ``None`` if it has none.

    Raises:
        CheckpointError: they are no lists of numbers, one per channel, or only one of the two is there.
    """
    if "mean" not in metadata and "std" not in metadata:
        return None
    hint = "it must be a JSON list, one number per input channel; --mean and --std override it"
    mean, std = (_list(metadata.get(name), name, where, hint) for name in ("mean", "std"))
    try:
        return _checked(mean, std, channels)
    except UsageError as error:
        raise CheckpointError(f"metadata mean and std: {error.message}", where=where, hint=hint) from error


def stored_class_names(metadata: Mapping[str, str], classes: int, where: str) -> tuple[str, ...]:
    """Class names out of the metadata of a safetensors file; none if it has none.

    Raises:
        CheckpointError: no list of texts, or not one per class.
    """
    if "class_names" not in metadata:
        return ()
    names = _list(metadata["class_names"], "class_names", where, "it must be a JSON list of texts, one per class")
    if len(names) != classes or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"metadata class_names: {classes} texts are needed, one per class", where=where)
    return tuple(names)


def _list(text: str | None, name: str, where: str, hint: str) -> list[Any]:
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise CheckpointError(f"metadata {name} is {text!r:.60}", where=where, hint=hint)
    return value
