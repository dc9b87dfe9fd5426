"""From what a user has (pixels, normalized arrays, event frames) to what a graph takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph, Preprocessing
from qkf_deploy.ops import Input

#: A float pixel this close to a whole number is that number (float32 normalization round-trips within 1e-4).
_PIXEL_TOLERANCE = 1e-3


def encode(graph: Graph, images: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Input array of an engine.

    ``uint8`` images are raw pixels, float images are already normalized, event frames are counts.

    Args:
        graph: float or integer.
        images: ``(B, C, H, W)`` or one ``(C, H, W)``; event frames ``(B, T, C, H, W)`` or ``(T, C, H, W)``.

    Returns:
        ``(1, B, C, H, W)`` or ``(T, B, C, H, W)``, float64 or int64 like the graph, and notices.

    Raises:
        InputError: wrong rank, size, type or range.
    """
    op = graph.input.op
    if not isinstance(op, Input):
        raise InputError("the graph has no input operator")
    x = np.asarray(images)
    check_shape(x, graph)
    x = x if x.ndim == batched_rank(graph) else x[None]
    if graph.input_encoding == "frames":
        return _frames(x, op, graph), ()
    value, notices = _image(x, op, graph)
    return value[None], (*notices, *_range_notice(x, graph))


def batched_rank(graph: Graph) -> int:
    """Axes of a batch of inputs: batch, time for event frames, and those of one value."""
    return len(graph.input.type.shape) + (2 if graph.input_encoding == "frames" else 1)


def check_shape(x: np.ndarray, graph: Graph) -> None:
    """Whether an array has the axes a network takes, with or without the batch axis.

    Raises:
        InputError: another rank, size or type, naming the axis, or values that are not finite.
    """
    check_axes(x.shape, x.dtype, graph)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise InputError("the input has values that are not finite")


def check_axes(shape: tuple[int, ...], dtype: np.dtype[Any], graph: Graph) -> None:
    """As :func:`check_shape`, for an array that is not read yet."""
    names = _axis_names(graph)
    sizes = (*([graph.time_steps] if "T" in names else []), *graph.input.type.shape)
    wanted = f"(B, {', '.join(map(str, sizes))}), axes ({', '.join(names)})"
    if 0 in shape:
        raise InputError(f"the input is empty, the network takes {wanted}")
    if len(shape) not in (len(names) - 1, len(names)):
        raise InputError(
            f"the input has {len(shape)} axes {shape}, the network takes {wanted}", hint=_hint(shape, graph)
        )
    own = shape[len(shape) - len(sizes) :]
    wrong = [k for k, (a, b) in enumerate(zip(own, sizes, strict=True)) if a != b]
    if wrong:
        axis = wrong[0] + len(shape) - len(sizes)
        name = names[len(names) - len(shape) + axis]
        raise InputError(
            f"the input has shape {shape}: axis {axis} ({name}) is {shape[axis]}, not {sizes[wrong[0]]}; "
            f"the network takes {wanted}",
            hint=_hint(shape, graph),
        )
    if dtype.kind not in "uif":
        raise InputError(f"the input has type {dtype}", hint="use uint8 pixels, floats, or integer event counts")
    if graph.input_encoding != "frames" and dtype.kind in "ui" and dtype != np.uint8:
        raise InputError(f"images of type {dtype}", hint="pixels are uint8; normalized images are float32 or float64")


def _axis_names(graph: Graph) -> tuple[str, ...]:
    lead = ("B", "T") if graph.input_encoding == "frames" else ("B",)
    rank = len(graph.input.type.shape)
    return (*lead, *(("C", "H", "W") if rank == 3 else tuple(f"x{i}" for i in range(rank))))


def _hint(given: tuple[int, ...], graph: Graph) -> str:
    """What most likely happened to an array of another shape."""
    shape = graph.input.type.shape
    if len(shape) == 3:
        channels, *size = shape
        if given[-3:] == (*size, channels):
            return "channels are last: move them with numpy.moveaxis(x, -1, -3)"
        if channels == 1 and given[-2:] == tuple(size) and given[-3:-2] != (1,):
            return "the channel axis is missing: add it with x[..., None, :, :]"
        if given[-2:] == tuple(size) and given[-3:-2] == (1,):
            return f"grey images for {channels} channels: repeat them with numpy.repeat(x, {channels}, axis=-3)"
        if given[-4:-3] and channels not in (*given[-3:-2], *given[-1:]):
            return f"convert the input to {channels} channel{'s' * (channels != 1)}, before height and width"
    if graph.input_encoding == "frames":
        if len(given) == len(shape) + 2 and given[0] == graph.time_steps and given[2:] == shape:
            return "time is first: swap it with the batch, x.swapaxes(0, 1)"
        if given[-len(shape) :] == shape:
            steps = f" --time-steps {given[-4]}" if len(given) > len(shape) else " another --time-steps"
            return f"bin the events into {quantity(graph.time_steps, 'frame')}, or trace the network with{steps}"
    size = f" {given[-1]}" if len(given) > 1 and given[-2] == given[-1] else ""
    steps = next(iter(given[-len(shape) - 1 : -len(shape)]), graph.time_steps)
    if graph.input_encoding == "frames" and steps != graph.time_steps:
        return f"trace the network with --image-size{size} --time-steps {steps}, or bin the events again"
    return f"resize the images, or trace the network with --image-size{size}"


def _frames(x: np.ndarray, op: Input, graph: Graph) -> np.ndarray:
    counts = np.rint(x)
    if (counts != x).any() or (counts < 0).any() or (counts > op.high).any():
        hint = f"sum events, do not average them; for counts above {op.high} bin them into more frames"
        raise InputError(f"event frames must be whole numbers from 0 to {op.high}", hint=hint)
    dtype = np.int64 if graph.arithmetic == "integer" else np.float64
    return np.ascontiguousarray(np.swapaxes(counts.astype(dtype), 0, 1))


def _image(x: np.ndarray, op: Input, graph: Graph) -> tuple[np.ndarray, tuple[str, ...]]:
    pre = graph.preprocessing or Preprocessing((0.0,) * op.shape[0], (1.0,) * op.shape[0])
    if op.format == "real":
        return (normalize(x, pre, len(op.shape) - 1) if x.dtype == np.uint8 else x.astype(np.float64)), ()
    if op.format == "bytes":
        return (x.astype(np.int64), ()) if x.dtype == np.uint8 else _to_pixels(x, pre, len(op.shape) - 1)
    real = normalize(x, pre, len(op.shape) - 1) if x.dtype == np.uint8 else x.astype(np.float64)
    return _to_fixed(real, op, graph)


def _range_notice(x: np.ndarray, graph: Graph) -> tuple[str, ...]:
    """Floats that look like pixels although normalized values are meant."""
    pre = graph.preprocessing
    if x.dtype.kind != "f" or pre is None:
        return ()
    low = min(-m / s for m, s in zip(pre.mean, pre.std, strict=True))
    high = max((1 - m) / s for m, s in zip(pre.mean, pre.std, strict=True))
    found = f"the float images lie in {x.min():.3g} to {x.max():.3g}"
    hint = "give uint8 pixels if they are not normalized"
    if x.min() < low - _PIXEL_TOLERANCE or x.max() > high + _PIXEL_TOLERANCE:
        return (f"{found}, outside what normalized pixels can be ({low:.3g} to {high:.3g}): {hint}",)
    if x.min() >= 0 and 0 < x.max() <= 1 and (low < 0 or high > 1):
        return (f"{found} but are taken as normalized already (mean {pre.mean}, std {pre.std}): {hint}",)
    return ()


def normalize(pixels: np.ndarray, pre: Preprocessing, spatial: int = 2) -> np.ndarray:
    """``(byte / 255 - mean) / std`` in float64; ``spatial`` axes are behind the channel axis."""
    mean, std = (np.array(v).reshape(-1, *[1] * spatial) for v in (pre.mean, pre.std))
    return (pixels.astype(np.float64) / 255.0 - mean) / std


def _to_pixels(x: np.ndarray, pre: Preprocessing, spatial: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Undo the normalization of an image that was made of bytes; round (with a notice) one that was not."""
    mean, std = (np.array(v).reshape(-1, *[1] * spatial) for v in (pre.mean, pre.std))
    pixels = (x.astype(np.float64) * std + mean) * 255.0
    whole = np.rint(pixels)
    if (whole < 0).any() or (whole > 255).any():
        raise InputError(
            f"float images that lie outside the pixel range ({pixels.min():.1f} to {pixels.max():.1f} of 0 to 255)",
            hint="give uint8 pixels, or quantize with --input fixed",
        )
    error = float(np.abs(pixels - whole).max())
    if error <= _PIXEL_TOLERANCE:
        return whole.astype(np.int64), ()
    notice = f"float images are not made of bytes: rounded to the nearest pixel value, by up to {error:.2f}"
    return whole.astype(np.int64), (notice,)


def _to_fixed(real: np.ndarray, op: Input, graph: Graph) -> tuple[np.ndarray, tuple[str, ...]]:
    scale = graph.input.params["scale"]
    limit = 2 ** (op.bits - 1) - 1
    whole = np.rint(real / scale)
    clipped = int((np.abs(whole) > limit).sum())
    notice = f"float images quantized to {op.bits} bits, largest rounding {float(scale.max()) / 2:.3g}"
    if clipped:
        notice += (
            f"; {quantity(clipped, 'value')} beyond the range of the scale {'was' if clipped == 1 else 'were'} clipped"
        )
    return np.clip(whole, -limit, limit).astype(np.int64), (notice,)
