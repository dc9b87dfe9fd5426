"""From what a user has (pixels, normalized arrays, event frames) to what a graph takes."""

from __future__ import annotations

import numpy as np

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
    _check_shape(x, op.shape, graph)
    if graph.input_encoding == "frames":
        x = x if x.ndim == len(op.shape) + 2 else x[None]
        return _frames(x, op, graph), ()
    x = x if x.ndim == len(op.shape) + 1 else x[None]
    value, notices = _image(x, op, graph)
    return value[None], notices


def _check_shape(x: np.ndarray, shape: tuple[int, ...], graph: Graph) -> None:
    lead = "T, " if graph.input_encoding == "frames" else ""
    wanted = f"(B, {lead}{', '.join(map(str, shape))})"
    if x.size == 0:
        raise InputError(f"the input is empty, the network takes {wanted}")
    axes = x.ndim - len(shape)
    most = 2 if lead else 1
    if x.shape[axes:] != shape or axes not in (most - 1, most):
        raise InputError(
            f"the input has shape {x.shape}, the network takes {wanted}",
            hint="resize the images, or trace the network with --image-size",
        )
    if x.dtype.kind not in "uif":
        raise InputError(f"the input has type {x.dtype}", hint="use uint8 pixels, floats, or integer event counts")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise InputError("the input has values that are not finite")


def _frames(x: np.ndarray, op: Input, graph: Graph) -> np.ndarray:
    if x.shape[1] != graph.time_steps:
        raise InputError(
            f"the input has {x.shape[1]} event frames, the network takes {graph.time_steps}",
            hint=f"bin the events into {graph.time_steps} frames, or trace with --time-steps {x.shape[1]}",
        )
    counts = np.rint(x)
    if (counts != x).any() or (counts < 0).any() or (counts > op.high).any():
        raise InputError(f"event frames must be whole numbers from 0 to {op.high}")
    dtype = np.int64 if graph.arithmetic == "integer" else np.float64
    return np.ascontiguousarray(np.swapaxes(counts.astype(dtype), 0, 1))


def _image(x: np.ndarray, op: Input, graph: Graph) -> tuple[np.ndarray, tuple[str, ...]]:
    pre = graph.preprocessing or Preprocessing((0.0,) * op.shape[0], (1.0,) * op.shape[0])
    if x.dtype.kind in "ui" and x.dtype != np.uint8:
        raise InputError(f"images of type {x.dtype}", hint="pixels are uint8; normalized images are float32 or float64")
    if op.format == "real":
        return (normalize(x, pre) if x.dtype == np.uint8 else x.astype(np.float64)), ()
    if op.format == "bytes":
        return (x.astype(np.int64), ()) if x.dtype == np.uint8 else _to_pixels(x, pre)
    real = normalize(x, pre) if x.dtype == np.uint8 else x.astype(np.float64)
    return _to_fixed(real, op, graph)


def normalize(pixels: np.ndarray, pre: Preprocessing) -> np.ndarray:
    """``(byte / 255 - mean) / std`` in float64; channel axis third from the right."""
    mean, std = (np.array(v).reshape(-1, 1, 1) for v in (pre.mean, pre.std))
    return (pixels.astype(np.float64) / 255.0 - mean) / std


def _to_pixels(x: np.ndarray, pre: Preprocessing) -> tuple[np.ndarray, tuple[str, ...]]:
    """Undo the normalization of an image that was made of bytes; round (with a notice) one that was not."""
    mean, std = (np.array(v).reshape(-1, 1, 1) for v in (pre.mean, pre.std))
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
        notice += f"; {clipped} values beyond the range of the scale were clipped"
    return np.clip(whole, -limit, limit).astype(np.int64), (notice,)
