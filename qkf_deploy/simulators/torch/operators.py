"""What the engine does with each operator: one function per kind, which prepares a node and returns how it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from qkf_deploy.ir import Node
from qkf_deploy.ops import BatchNorm, Concat, IntegerNeuron, Mask, Neuron, Readout, Scale, Shift, Sum
from qkf_deploy.simulators.torch.carriers import exact_dtype
from qkf_deploy.simulators.torch.neurons import (
    FloatNeuron,
    WholeNeuron,
    largest_intermediate,
    largest_magnitude,
)  # fmt: skip
from qkf_deploy.simulators.torch.pools import max_pool, sum_pool
from qkf_deploy.simulators.torch.products import matmul, over_chunks
from qkf_deploy.simulators.torch.setting import Setting, Step, elementwise, total
from qkf_deploy.simulators.torch.synapses import conv, linear
from qkf_deploy.simulators.torch.values import Value


def batch_norm(s: Setting, node: Node) -> Step:
    """Scale and shift per channel."""
    op = node.op
    if not isinstance(op, BatchNorm):
        raise AssertionError(op)
    shape = (-1, *[1] * (len(node.type.shape) - 1))
    scale, shift = op.affine(node.params)
    factor, offset = (s.put(v.reshape(shape), s.carrier.dtype) for v in (scale, shift))
    gain, most = float(np.abs(scale).max()), float(np.abs(shift).max())

    def run(inputs: Sequence[Value]) -> Value:
        (x,) = inputs
        y = torch.mul(x.tensor.to(factor.dtype), factor).add_(offset)
        return elementwise(s, node, y, inputs, gain * x.largest + most, gain)

    return run


def add(s: Setting, node: Node) -> Step:
    """Element by element."""
    dtype = s.dtype(node) if s.whole else None

    def run(inputs: Sequence[Value]) -> Value:
        a, b = inputs
        largest = a.largest + b.largest
        chosen = dtype or s.sum_carrier(inputs, largest).dtype
        return elementwise(s, node, a.tensor.to(chosen) + b.tensor.to(chosen), inputs, largest)

    return run


def concat(s: Setting, node: Node) -> Step:
    """Side by side, in numbers that hold either."""
    op = node.op
    if not isinstance(op, Concat):
        raise AssertionError(op)

    def run(inputs: Sequence[Value]) -> Value:
        steps, dtype = max(x.shape[0] for x in inputs), torch.promote_types(*(x.tensor.dtype for x in inputs))
        parts = [x.tensor.to(dtype).expand(steps, *x.shape[1:]) for x in inputs]
        largest, error = (max(getattr(x, what) for x in inputs) for what in ("largest", "error"))
        return s.value(node, torch.cat(parts, dim=op.axis + 2), largest, error)

    return run


def mask(s: Setting, node: Node) -> Step:
    """A product with the gate."""
    op = node.op
    if not isinstance(op, Mask):
        raise AssertionError(op)

    def run(inputs: Sequence[Value]) -> Value:
        gate, x = inputs
        opened = gate.tensor.to(x.tensor.dtype)
        y = x.tensor * (1 - opened) if op.invert else x.tensor * opened
        return elementwise(s, node, y, inputs, x.largest)

    return run


def scale(s: Setting, node: Node) -> Step:
    """A product with a constant."""
    op = node.op
    if not isinstance(op, Scale):
        raise AssertionError(op)
    factor = s.put(np.array([op.factor]), s.carrier.dtype)

    def run(inputs: Sequence[Value]) -> Value:
        gain = abs(op.factor)
        return elementwise(s, node, inputs[0].tensor * factor, inputs, gain * inputs[0].largest, gain)

    return run


def shift(s: Setting, node: Node) -> Step:
    """A rounding shift to the right; in floating point a product with a power of two and a floor."""
    op = node.op
    if not isinstance(op, Shift):
        raise AssertionError(op)
    amounts = op.amounts(len(node.type.shape))
    half = np.where(amounts > 0, np.int64(1) << np.maximum(amounts - 1, 0), 0)
    dtype = exact_dtype(s.sums(node) + largest_magnitude(half))
    offset = s.put(half, dtype)
    if dtype == torch.int64:
        bits = s.put(amounts, dtype)
        return lambda inputs: s.value(node, (inputs[0].tensor.to(dtype) + offset) >> bits)
    factor = s.put(np.ldexp(1.0, -amounts), dtype)
    return lambda inputs: s.value(node, (inputs[0].tensor.to(dtype) + offset).mul_(factor).floor_())


def multiply(s: Setting, node: Node) -> Step:
    """Matrix product of two activations, summed over chunks of time steps where it is."""
    chunk = node.op.steps_awaited
    carrier = s.device.carrier(max(s.magnitude(o.node) for o in node.inputs), s.sums(node)) if s.whole else None
    terms = s.graph.input_types(node)[0].shape[-1] * chunk

    def run(inputs: Sequence[Value]) -> Value:
        a, b = inputs
        if carrier is not None:
            return s.value(node, over_chunks(matmul(a.tensor, b.tensor, carrier), chunk))
        largest = terms * a.largest * b.largest
        y = over_chunks(matmul(a.tensor, b.tensor, s.sum_carrier(inputs, largest)), chunk)
        return total(s, node, y, inputs, largest, terms, terms * (a.largest * b.error + b.largest * a.error))

    return run


def sum_axes(s: Setting, node: Node) -> Step:
    """Sum over axes of the per-step shape."""
    op = node.op
    if not isinstance(op, Sum):
        raise AssertionError(op)
    shape = s.operand_shape(node)
    axes, terms = [a + 2 for a in op.axes], math.prod(shape[a] for a in op.axes)

    def run(inputs: Sequence[Value]) -> Value:
        (x,) = inputs
        dtype = s.dtype(node) if s.whole else s.sum_carrier(inputs, terms * x.largest).dtype
        y = x.tensor.to(dtype).sum(axes, keepdim=op.keepdims)
        return total(s, node, y, inputs, terms * x.largest, terms, terms * x.error)

    return run


def readout(s: Setting, node: Node) -> Step:
    """Sum over time."""
    dtype, steps, op = s.dtype(node), s.graph.time_steps, node.op
    if isinstance(op, Readout) and op.weights:  # of each step; little is computed behind the network
        return by_numpy(s, node)

    def run(inputs: Sequence[Value]) -> Value:
        (x,) = inputs
        y = x.tensor.to(dtype).sum(0, keepdim=True) * (steps // x.shape[0])
        return total(s, node, y, inputs, steps * x.largest, steps, steps * x.error)

    return run


def output(s: Setting, node: Node) -> Step:
    """The value itself."""
    return lambda inputs: inputs[0]


def neuron(s: Setting, node: Node) -> FloatNeuron | WholeNeuron:
    """Either neuron."""
    if isinstance(node.op, Neuron):
        return FloatNeuron(node.op, node.params, node.type.shape, s.device.torch, s.carrier.dtype)
    if not isinstance(node.op, IntegerNeuron):
        raise AssertionError(node.op)
    widths, drive = s.widths[node.name], s.widths[node.inputs[0].node].value
    if widths.membrane is None:
        raise AssertionError(node.name)
    dtype = exact_dtype(largest_intermediate(node.op, node.params, drive, widths.membrane))
    return WholeNeuron(node.op, node.params, node.type.shape, s.device.torch, dtype, s.magnitude(node.name))


def by_numpy(s: Setting, node: Node) -> Step:
    """The operator's own semantics, on the host: for what has no function here, and after the readout, where little is
    computed and a float64 sum shall have the reference's own order."""
    dtype: type[Any] = np.int64 if s.whole else np.float64

    def run(inputs: Sequence[Value]) -> Value:
        y = node.op.run([x.host(dtype) for x in inputs], node.params, s.graph.time_steps)
        error = math.inf if any(x.error for x in inputs) else 0.0
        kept = torch.int64 if s.whole else s.carrier.dtype
        return s.value(node, s.put(y, kept), float(np.abs(y).max(initial=0)), error)

    return run


STEPS: Mapping[str, Callable[[Setting, Node], Step]] = {
    "conv": conv,
    "linear": linear,
    "batch_norm": batch_norm,
    "max_pool": max_pool,
    "sum_pool": sum_pool,
    "add": add,
    "concat": concat,
    "mask": mask,
    "scale": scale,
    "shift": shift,
    "matmul": multiply,
    "sum": sum_axes,
    "readout": readout,
    "output": output,
}
