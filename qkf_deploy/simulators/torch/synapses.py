"""Convolutions and linear layers on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from qkf_deploy.ir import Node
from qkf_deploy.ops import Conv
from qkf_deploy.simulators.torch.neurons import largest_magnitude
from qkf_deploy.simulators.torch.products import Window, convolve, matmul
from qkf_deploy.simulators.torch.setting import ROUNDOFF, Setting, Step
from qkf_deploy.simulators.torch.values import Value

#: Weights that are multiples of 2^-this add exactly, in any order, while sums stay below 2^(53 - this).
_GRID_BITS = 26


def conv(s: Setting, node: Node) -> Step:
    """Through :func:`qkf_deploy.simulators.torch.products.convolve`; 1-d as 2-d with an axis of size 1."""
    op, weight = node.op, node.params["weight"]
    if not isinstance(op, Conv):
        raise AssertionError(op)
    lead = (1,) * (2 - len(op.stride))
    window = Window(_two(op.stride, 1), _two(op.padding, 0), _two(op.dilation, 1), op.groups)
    sums = _Sums(
        s,
        node,
        op.bias_map(node.params["bias"], op.axes(s.operand_shape(node), weight)) if "bias" in node.params else None,
    )
    kernel = s.put(weight.reshape(*weight.shape[:2], *lead, *weight.shape[2:]), sums.carrier.dtype)
    shape = node.type.shape

    def run(inputs: Sequence[Value]) -> Value:
        x = inputs[0].tensor
        flat = x.reshape(-1, x.shape[2], *lead, *x.shape[3:])
        y = convolve(flat, kernel, window, sums.carrier).reshape(*x.shape[:2], *shape)
        return sums.finished(y, inputs[0])

    return run


def _two(entries: tuple[int, ...], fill: int) -> tuple[int, int]:
    return (fill, entries[0]) if len(entries) == 1 else (entries[0], entries[1])


def linear(s: Setting, node: Node) -> Step:
    """A matrix product over the last axis."""
    sums = _Sums(s, node, node.params.get("bias"))
    weight = s.put(node.params["weight"].T, sums.carrier.dtype)

    def run(inputs: Sequence[Value]) -> Value:
        return sums.finished(matmul(inputs[0].tensor, weight, sums.carrier), inputs[0])

    return run


class _Sums:
    """What both synapses do around their product: the numbers it is computed in, the bias, and error bounds."""

    def __init__(self, s: Setting, node: Node, bias: np.ndarray | None) -> None:
        self.s, self.node = s, node
        weight = node.params["weight"]
        self.carrier = s.carrier
        if s.whole:
            operands = max(largest_magnitude(weight), s.magnitude(node.inputs[0].node))
            self.carrier = s.device.carrier(operands, max(s.sums(node), operands))
        self.bias = None if bias is None else s.put(bias, self.carrier.dtype)
        rows = np.abs(weight.reshape(weight.shape[0], -1).astype(np.float64)).sum(axis=1)
        self._row, self._terms = float(rows.max()), weight[0].size + 2
        self._most = 0.0 if bias is None else float(np.abs(bias).max())
        self._on_grid = _on_grid(weight) and (bias is None or _on_grid(bias))

    def finished(self, y: Tensor, x: Value) -> Value:
        """The sums with their bias."""
        if self.bias is not None:
            y.add_(self.bias)
        if self.s.whole:
            return self.s.value(self.node, y)
        largest = self._row * x.largest + self._most
        exact = x.error == 0 and x.integral and self._on_grid and largest < 2.0 ** (53 - _GRID_BITS)
        # Both engines add the same terms, each in its own order (Higham, Accuracy and Stability, section 4.2).
        error = 0.0 if exact else 2 * 1.01 * self._terms * ROUNDOFF * largest + self._row * x.error
        return self.s.value(self.node, y, largest, error)


def _on_grid(x: np.ndarray) -> bool:
    scaled = np.ldexp(x.astype(np.float64), _GRID_BITS)
    return bool((scaled == np.rint(scaled)).all())
