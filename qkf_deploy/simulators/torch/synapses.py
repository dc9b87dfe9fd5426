"""Convolutions and linear layers on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qkf_deploy.ir import Node
from qkf_deploy.ops import Conv
from qkf_deploy.simulators.torch.carriers import Carrier
from qkf_deploy.simulators.torch.neurons import largest_magnitude
from qkf_deploy.simulators.torch.products import Window, convolve, matmul
from qkf_deploy.simulators.torch.setting import ROUNDOFF, Setting, Step
from qkf_deploy.simulators.torch.values import Value

#: Weights that are multiples of 2^-this add exactly, in any order, while sums stay below 2^(53 - this).
_GRID_BITS = 26


def conv(s: Setting, node: Node) -> Step:
    """Through :func:`qkf_deploy.simulators.torch.products.convolve`."""
    sums = _Sums(s, node)
    run = convolution(s, node, sums.carrier)
    return lambda inputs: sums.finished(run(inputs[0].tensor), inputs[0])


def convolution(s: Setting, node: Node, carrier: Carrier) -> Callable[[Tensor], Tensor]:
    """A convolution with its bias in some numbers, on ``(T or 1, B, *shape)``; 1-d as 2-d with an axis of size 1."""
    op, weight, bias = node.op, node.params["weight"], node.params.get("bias")
    if not isinstance(op, Conv):
        raise AssertionError(op)
    lead = (1,) * (2 - len(op.stride))
    window = Window(_two(op.stride, 1), _two(op.padding, 0), _two(op.dilation, 1), op.groups)
    kernel = s.put(weight.reshape(*weight.shape[:2], *lead, *weight.shape[2:]), carrier.dtype)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    every = bordered = None
    if bias is not None and bias.ndim == 1:
        every = s.put(bias, carrier.dtype)
    elif bias is not None:
        bordered = s.put(op.bias_map(bias, op.axes(s.operand_shape(node), weight)), carrier.dtype)
    shape = node.type.shape

    def run(x: Tensor) -> Tensor:
        x = laid_out(op, x)
        flat = x.reshape(-1, x.shape[2], *lead, *x.shape[3:])
        y = convolve(flat, kernel, every, window, carrier).reshape(*x.shape[:2], *shape)
        return y if bordered is None else y.add_(bordered)

    return run


def laid_out(op: Conv, x: Tensor) -> Tensor:
    """As :meth:`qkf_deploy.ops.Conv.laid_out`: the map a transposed convolution slides over."""
    if not op.spread:
        return x
    sizes = x.shape[-len(op.spread) :]
    apart = x.reshape(*x.shape[: -len(sizes)], *(n for size in sizes for n in (size, 1)))
    apart = F.pad(apart, [n for s in reversed(op.spread) for n in (0, s - 1, 0, 0)])
    wide = apart.reshape(*x.shape[: -len(sizes)], *(n * s for n, s in zip(sizes, op.spread, strict=True)))
    for axis, (n, s, t) in enumerate(zip(sizes, op.spread, op.tail or (0,) * len(sizes), strict=True), -len(sizes)):
        wide = wide.narrow(axis, 0, (n - 1) * s + 1 + t)
    return wide


def _two(entries: tuple[int, ...], fill: int) -> tuple[int, int]:
    return (fill, entries[0]) if len(entries) == 1 else (entries[0], entries[1])


def linear(s: Setting, node: Node) -> Step:
    """A matrix product over the last axis."""
    sums = _Sums(s, node)
    weight = s.put(node.params["weight"].T, sums.carrier.dtype)
    bias = s.put(node.params["bias"], sums.carrier.dtype) if "bias" in node.params else None

    def run(inputs: Sequence[Value]) -> Value:
        y = matmul(inputs[0].tensor, weight, sums.carrier)
        return sums.finished(y if bias is None else y.add_(bias), inputs[0])

    return run


class _Sums:
    """What is known of both synapses: the numbers they are computed in, and error bounds."""

    def __init__(self, s: Setting, node: Node) -> None:
        self.s, self.node = s, node
        weight, bias = node.params["weight"], node.params.get("bias")
        self.carrier = s.carrier
        if s.whole:
            operands = max(largest_magnitude(weight), s.magnitude(node.inputs[0].node))
            self.carrier = s.device.carrier(operands, max(s.sums(node), operands))
        rows = np.abs(weight.reshape(weight.shape[0], -1).astype(np.float64)).sum(axis=1)
        self._row, self._most = float(rows.max()), 0.0 if bias is None else float(np.abs(bias).max())
        self._rounding = Rounding(weight, bias)

    def finished(self, y: Tensor, x: Value) -> Value:
        """What is known of the sums, bias included."""
        if self.s.whole:
            return self.s.value(self.node, y)
        largest = self._row * x.largest + self._most
        if x.error == 0 and x.integral:
            return self.s.value(self.node, y, largest, self._rounding.of_events(largest))
        return self.s.value(self.node, y, largest, self._rounding.of_reals(largest) + self._row * x.error)


class Rounding:
    """How far float64 sums of a synapse can differ between orders of summation.

    Args:
        weight: ``(outputs, ...)``.
        bias: if any.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None) -> None:
        self._terms = weight[0].size + 2
        self._on_grid = _on_grid(weight) and (bias is None or _on_grid(bias))

    def of_events(self, largest: float) -> float:
        """For whole numbers; ``largest`` is a bound of the sum of magnitudes."""
        return 0.0 if self._on_grid and largest < 2.0 ** (53 - _GRID_BITS) else self.of_reals(largest)

    def of_reals(self, largest: float) -> float:
        """Both engines add the same terms, each in its own order (Higham, Accuracy and Stability, section 4.2)."""
        return 2 * 1.01 * self._terms * ROUNDOFF * largest


def _on_grid(x: np.ndarray) -> bool:
    scaled = np.ldexp(x.astype(np.float64), _GRID_BITS)
    return bool((scaled == np.rint(scaled)).all())
