"""Values on a device, and how they answer the counting rules: sums there, a few numbers per image back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.ir import Node, Operand, View
from qkf_deploy.ops import activity
from qkf_deploy.ops.remember import Remembered
from qkf_deploy.simulators.counting import Arrays, NodeCounts
from qkf_deploy.simulators.torch.layout import blocks, order, rows

#: Integers below these are exact in float32 and float64.
_EXACT = {torch.float32: 2**24, torch.float64: 2**53}


class _Fanout(NamedTuple):
    """Fan-out on a device: of all elements if they have the same, their sum, and float64 one by one."""

    same: int | None
    total: int
    weights: Tensor

    @staticmethod
    def of(fanout: np.ndarray, shape: tuple[int, ...], lies: tuple[int, ...], device: torch.device) -> _Fanout:
        low, high = int(fanout.min()), int(fanout.max())
        every = np.broadcast_to(fanout, shape).transpose(lies)
        weights = torch.from_numpy(every.reshape(-1).astype(np.float64)).to(device)
        return _Fanout(low if low == high else None, int(every.sum()), weights)


_FANOUTS = Remembered[_Fanout]()


class Value:
    """A value ``(T or 1, B, *shape)`` on a device.

    Attributes:
        tensor: the numbers; integers may be held in floating point, where that is exact.
        binary: every element is 0 or 1.
        integral: every element is a whole number.
        largest: bound of the magnitude of every element.
        error: bound of the difference from the reference engine's number (float graphs; 0: the same number).
    """

    def __init__(
        self,
        tensor: Tensor,
        largest: float,
        *,
        binary: bool = False,
        integral: bool = True,
        error: float = 0.0,
        whole: Value | None = None,
    ) -> None:
        self.tensor, self.largest, self.binary, self.integral, self.error = tensor, largest, binary, integral, error
        self._whole = whole  # a value of the same elements, whose sums are this one's
        self._sums: dict[str, Tensor] = {}
        self._smallest: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """``(T or 1, B, *shape)``."""
        return tuple(self.tensor.shape)

    def read(self, view: View | None) -> Value:
        """The value as an operand sees it."""
        if view is None:
            return self
        head = self.tensor.shape[:2]
        y = self.tensor.reshape(*head, *view.split)
        for axis, ((start, stop), n) in enumerate(zip(view.take, view.split, strict=True)):
            if stop - start != n:
                y = y.narrow(axis + 2, start, stop - start)
        y = y.permute(0, 1, *(p + 2 for p in view.perm)).reshape(*head, *view.shape)
        whole = self if view.keeps_all else None
        return Value(y, self.largest, binary=self.binary, integral=self.integral, error=self.error, whole=whole)

    def smallest(self) -> float:
        """Smallest magnitude of an element (floating point); once asked for, non-zero elements need no counting."""
        if self._whole is not None:
            return self._whole.smallest()
        if self._smallest is None:
            scratch = torch.empty_like(self.tensor[0])
            self._smallest = min(float(torch.abs(x, out=scratch).amin()) for x in self.tensor)
        return self._smallest

    def know_nonzero(self, count: Tensor) -> None:
        """What :meth:`nonzero_per_image` is, found on the way."""
        self._sums["nonzero"] = count

    def present(self) -> Tensor:
        """1 where an element is not zero, in floating point."""
        return self.tensor if self.binary else _present(self.tensor)

    def per_step(self) -> Tensor:
        """Sum at each step, int64 ``(T, B)``."""
        if self._whole is not None:
            return self._whole.per_step()
        if "per_step" not in self._sums:
            self._sums["per_step"] = _summed(self.tensor, self.largest)
        return self._sums["per_step"]

    def per_image(self) -> Tensor:
        """Sum over all but the batch, int64 ``(B,)``."""
        return self.per_step().sum(0)

    def nonzero_per_image(self) -> Tensor:
        """Number of elements that are not zero, int64 ``(B,)``."""
        if self.binary:
            return self.per_image()
        if self._whole is not None:
            return self._whole.nonzero_per_image()
        if "nonzero" not in self._sums:
            self._sums["nonzero"] = self._nonzero()
        return self._sums["nonzero"]

    def _nonzero(self) -> Tensor:
        if self._smallest:  # not zero, and not unknown
            return torch.full((self.shape[1],), math.prod(self.shape) // self.shape[1], device=self.tensor.device)
        total = torch.empty(self.shape[1], dtype=torch.int64, device=self.tensor.device)
        for part in blocks(self.shape[1], (self.shape[0], *self.shape[2:]), self.tensor.device):
            total[part] = _summed(_present(self.tensor[:, part]), 1).sum(0)
        return total

    def weighted(self, fanout: np.ndarray, *, present: bool = False) -> Tensor:
        """Σ fan-out, times the elements or of those that are not zero, int64 ``(B,)``."""
        shape, lies, device = self.shape[2:], order(self.tensor), self.tensor.device
        known = _FANOUTS.get(fanout, (shape, lies, device), lambda: _Fanout.of(fanout, shape, lies, device))
        if known.same is not None:
            return known.same * (self.nonzero_per_image() if present else self.per_image())
        present = present and not self.binary
        x = self.present() if present else self.tensor
        if x.dtype.is_floating_point and (1 if present else self.largest) * known.total < _EXACT[x.dtype]:
            return (rows(x) @ known.weights.to(x.dtype)).to(torch.int64).sum(0)
        bound = self.shape[0] * (1 if present else self.largest) * known.total
        over_time = self._over_time(present)
        if bound < _EXACT[torch.float64]:
            return (over_time.to(torch.float64) @ known.weights).to(torch.int64)
        return (over_time.to(torch.int64) * known.weights.to(torch.int64)).sum(1)

    def _over_time(self, present: bool) -> Tensor:
        """Elements, or whether they are not zero, summed over time, ``(B, elements)``."""
        key = f"over_time {present}"
        if key not in self._sums:
            x = rows(self.present() if present else self.tensor)
            exact = self.shape[0] * (1 if present else self.largest) < _EXACT.get(x.dtype, math.inf)
            self._sums[key] = x.sum(0) if exact else x.to(torch.int64).sum(0)
        return self._sums[key]

    def host(self, dtype: type[np.generic]) -> np.ndarray:
        """As a numpy array."""
        return self.tensor.cpu().numpy().astype(dtype)


def _present(x: Tensor) -> Tensor:
    if not x.dtype.is_floating_point:
        return (x != 0).to(torch.float64)
    return torch.ne(x, 0, out=torch.empty_like(x))


def _summed(x: Tensor, largest: float) -> Tensor:
    """Sum of whole numbers over the per-step shape, int64 ``(T, B)``."""
    each = rows(x)
    bound = largest * each.shape[2]
    if x.dtype.is_floating_point and bound < _EXACT[x.dtype]:
        return each.sum(2).to(torch.int64)
    if x.dtype.is_floating_point and bound < _EXACT[torch.float64]:
        return each.sum(2, dtype=torch.float64).to(torch.int64)
    return each.to(torch.int64).sum(2)


# A count stays on the device, as an int64 tensor, until the whole ledger is fetched.


@activity.per_image.register(Value)
def _(x: Value) -> Any:
    return x.per_image()


@activity.nonzero_per_image.register(Value)
def _(x: Value) -> Any:
    return x.nonzero_per_image()


@activity.per_step.register(Value)
def _(x: Value) -> Any:
    return x.per_step()


@activity.weighted.register(Value)
def _(x: Value, fanout: np.ndarray) -> Any:
    return x.weighted(fanout)


@activity.weighted_nonzero.register(Value)
def _(x: Value, fanout: np.ndarray) -> Any:
    return x.weighted(fanout, present=True)


@activity.magnitude.register(Value)
def _(x: Value) -> Any:
    return Value(x.tensor.abs(), x.largest, integral=x.integral)


@activity.negative.register(Value)
def _(x: Value) -> Any:
    return Value((-x.tensor).clamp_(min=0), x.largest, integral=x.integral)


@activity.polarity.register(Value)
def _(x: Value) -> Any:
    return Value(torch.sign(x.tensor), 1.0)


@activity.product_sum.register(Value)
def _(left: Value, right: Value) -> Any:
    # Σ_k (sum of column k on the left) x (of row k on the right), in int64: no product is computed.
    columns, rows = left.tensor.to(torch.int64).sum(-2), right.tensor.to(torch.int64).sum(-1)
    return (columns * rows).flatten(2).sum(2).sum(0)


@activity.both_nonzero.register(Value)
def _(a: Value, b: Value) -> Any:
    return _summed(a.present().to(torch.float32) * b.present().to(torch.float32), 1).sum(0)


@activity.coincidences.register(Value)
def _(left: Value, right: Value) -> Any:
    # Σ_k (non-zero elements of column k on the left) x (of row k on the right): no product is computed.
    columns, rows = left.present().sum(-2, dtype=torch.float64), right.present().sum(-1, dtype=torch.float64)
    return (columns * rows).flatten(2).sum(2).to(torch.int64).sum(0)


class DeviceArrays(Arrays):
    """Counting with values on a device; see :class:`qkf_deploy.simulators.counting.Arrays`."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def read(self, value: Value, operand: Operand) -> Value:
        return value.read(operand.view)

    def divided(self, value: Value, factor: float) -> Value:
        return Value(torch.round(value.tensor / factor), math.ceil(value.largest / abs(factor)))

    def shaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        return Value(value.tensor.new_zeros(()).expand(*value.shape[:2], *shape), 0)

    def run(self, node: Node, inputs: Sequence[Value], time_steps: int) -> Value:
        return self._run(node, inputs)

    def counted(self, layers: Sequence[NodeCounts]) -> Sequence[NodeCounts]:
        """All numbers in one transfer."""
        numbers: list[Any] = [x for counts, steps in layers for x in (*counts.values(), steps)]
        tensors = [x for x in numbers if isinstance(x, Tensor)]
        if not tensors:
            return layers
        flat = torch.cat([t.reshape(-1) for t in tensors]).cpu().numpy()
        ends = np.cumsum([t.numel() for t in tensors])
        found = iter(part.reshape(t.shape) for part, t in zip(np.split(flat, ends[:-1]), tensors, strict=True))

        def on_host(x: Any) -> Any:
            return next(found) if isinstance(x, Tensor) else x

        return [({k: on_host(v) for k, v in counts.items()}, on_host(steps)) for counts, steps in layers]
