"""Sums of products on a device: plain sums in some order, so that exact operands and partial sums give exact results.

Convolutions go through oneDNN's direct algorithm (float32 on a CPU) or through columns and a matrix product: what
`torch.nn.functional.conv2d` chooses (Winograd, FFT, reduced precision) may round.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qkf_deploy.simulators.torch.carriers import FLOAT64, INT64, Carrier, precision

#: Bytes of columns made at a time: what a second-level cache holds, and what a GPU needs to be busy.
_COLUMN_BYTES = {"cpu": 2**21, "cuda": 2**29}
_PIECE_BITS = 16
_PIECES = 4


def matmul(a: Tensor, b: Tensor, carrier: Carrier) -> Tensor:
    """``a @ b`` in the carrier's numbers."""
    if carrier is INT64:
        return _in_pieces(a, b, torch.matmul)
    with precision(a.device, carrier):
        return torch.matmul(a.to(carrier.dtype), b.to(carrier.dtype))


def _in_pieces(a: Tensor, b: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A product of int64 tensors from float64 products of 16-bit pieces.

    ``a = Σ a_i 2^(16 i)``, likewise b; products of pieces summed over up to 2^21 terms stay below 2^53, and a sum of
    int64 modulo 2^64 is the sum itself, which is proven to fit.
    """
    of_b = _pieces(b)
    parts = [
        product(x, y).to(torch.int64) * 2 ** (_PIECE_BITS * (i + j))
        for i, x in enumerate(_pieces(a))
        for j, y in enumerate(of_b)
        if i + j < _PIECES  # what lies 64 bits higher vanishes modulo 2^64
    ]
    return functools.reduce(torch.add, parts)


def _pieces(x: Tensor) -> list[Tensor]:
    """Float64 tensors of 16 bits each, the lowest first, the last one signed."""
    x = x.to(torch.int64)
    out: list[Tensor] = []
    mask = 2**_PIECE_BITS - 1
    while len(out) < _PIECES:
        if len(out) == _PIECES - 1 or bool(((x >= -mask) & (x <= mask)).all()):
            return [*out, x.to(torch.float64)]
        out.append((x & mask).to(torch.float64))
        x = x >> _PIECE_BITS
    return out


@dataclass(frozen=True)
class Window:
    """How a convolution slides; one entry per axis (two: 1-d convolutions get an axis of size 1)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def pointwise(self) -> bool:
        """True if nothing is skipped or padded, so that a 1x1 kernel reads its own position."""
        return self.stride == (1, 1) and self.padding == (0, 0)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, carrier: Carrier) -> Tensor:
    """Convolution; the bias is one more term of each sum.

    Args:
        x: ``(N, C, H, W)``.
        weight: ``(O, C / groups, kh, kw)``.
        bias: ``(O,)``.
        window: how it slides.
        carrier: the numbers to compute in.

    Returns:
        ``(N, O, H', W')``, channels last in memory where oneDNN made it (no layout has to be changed for it).
    """
    if carrier is not INT64:
        x, weight = x.to(carrier.dtype), weight.to(carrier.dtype)
    if x.device.type == "cpu" and carrier.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        x, weight = (v.contiguous(memory_format=torch.channels_last) for v in (x, weight))
        return torch.mkldnn_convolution(x, weight, bias, window.padding, window.stride, window.dilation, window.groups)
    if carrier is INT64:
        y = _in_pieces(x, weight, lambda a, b: _by_columns(a, b, window, FLOAT64))
    else:
        y = _by_columns(x, weight, window, carrier)
    return y if bias is None else y.add_(bias.reshape(-1, 1, 1))


def _by_columns(x: Tensor, weight: Tensor, window: Window, carrier: Carrier) -> Tensor:
    kernel = (weight.shape[2], weight.shape[3])
    out_size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(x.shape[2:], window.padding, window.dilation, kernel, window.stride, strict=True)
    ]
    groups = window.groups
    w = weight.reshape(groups, weight.shape[0] // groups, -1)
    y = x.new_empty((x.shape[0], groups, w.shape[1], math.prod(out_size)))
    per_image = max(1, groups * w.shape[2] * y.shape[3] * x.element_size())
    step = max(1, _COLUMN_BYTES[x.device.type] // per_image)
    with precision(x.device, carrier):
        for start in range(0, x.shape[0], step):
            part = x[start : start + step]
            columns = (
                part.reshape(part.shape[0], -1, y.shape[3])
                if kernel == (1, 1) and window.pointwise
                else F.unfold(part, kernel, window.dilation, window.padding, window.stride)
            )
            columns = columns.reshape(part.shape[0], groups, w.shape[2], y.shape[3])
            torch.matmul(w, columns, out=y[start : start + step])
    return y.reshape(x.shape[0], weight.shape[0], *out_size)


def over_chunks(y: Tensor, chunk: int) -> Tensor:
    """Each step's sum over its chunk of time steps, ``(T or 1, B, *shape)``; T = 1 stands for equal steps."""
    if chunk == 1:
        return y
    if y.shape[0] == 1:
        return y * chunk
    return y.unflatten(0, (-1, chunk)).sum(1).repeat_interleave(chunk, 0)
