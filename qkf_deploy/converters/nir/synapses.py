"""NIR's synapses, pools and shapes to ours."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from qkf_deploy.converters.nir.parameters import array, ints, per_channel, spread
from qkf_deploy.converters.nir.raising import MAX_VALUE, Raise, Raising
from qkf_deploy.converters.nir.safety import RawNode
from qkf_deploy.errors import InputError, UnsupportedError
from qkf_deploy.ir import Operand
from qkf_deploy.ops import Conv, Input, Linear, Scale, SumPool

_READS_FACTORS = ("Conv1d", "Conv2d", "Linear", "Affine")


def _input(r: Raising, name: str, node: RawNode) -> Operand:
    if r.source.sources[name]:  # the entry of a nested graph
        return r.operand(name)
    shape = tuple(int(n) for n in array(node, "shape", name).reshape(-1))
    if not shape or min(shape) < 1 or math.prod(shape) > MAX_VALUE or len(shape) > 6:
        raise InputError(f"an input of shape {shape[:8]}", where=name)
    return Operand(r.builder.add(name, Input(shape, format="frames" if r.encoding == "frames" else "real")))


def _pass(r: Raising, name: str, node: RawNode) -> Operand:
    return r.operand(name)


def _conv(r: Raising, name: str, node: RawNode) -> Operand:
    rank = 1 if node.type == "Conv1d" else 2
    weight = array(node, "weight", name).astype(np.float64)
    if weight.ndim != rank + 2 or 0 in weight.shape:
        raise InputError(f"weights of shape {weight.shape}", where=name)
    stride, dilation = (ints(node, k, rank, name) for k in ("stride", "dilation"))
    (groups,) = ints(node, "groups", 1, name)
    if min(*stride, *dilation, groups) < 1:
        raise InputError("a stride, dilation or number of groups below 1", where=name)
    value = _without_batch(r, name, r.operand(name), rank + 1)
    factor = _factor_of(r, name)
    if factor is not None:
        channels = per_channel(spread(factor, r.shape(value), name))
        if channels is None or len(channels) != weight.shape[1] * groups or len(weight) % groups:
            raise InputError(f"a scale of shape {factor.shape} in front of weights {weight.shape}", where=name)
        each = np.repeat(channels.reshape(groups, -1), len(weight) // groups, axis=0)
        weight = weight * each.reshape(*each.shape, *[1] * rank)
    op = Conv(stride, _padding(node, weight, dilation, stride, name), dilation, groups)
    return r.add(name, op, value, weight=weight, **_bias(node, name))


def _without_batch(r: Raising, name: str, value: Operand, rank: int) -> Operand:
    """A value without an axis of size 1 in front that a tool left in the file: NIR has no batch."""
    shape = r.shape(value)
    if len(shape) != rank + 1 or shape[0] != 1:
        return value
    r.notices.append(f"{name}: reads a value of shape {shape} without its first axis, taken for a batch of one")
    return r.flattened(value, shape[1:])


def _padding(
    node: RawNode, weight: np.ndarray, dilation: tuple[int, ...], stride: tuple[int, ...], where: str
) -> tuple[int, ...]:
    rank, padding = len(dilation), node.params.get("padding")
    if isinstance(padding, str) and padding == "valid":
        return (0,) * rank
    if isinstance(padding, str) and padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(n % 2 for n in reach) or max(stride) > 1:
            raise UnsupportedError("'same' padding of an even window or with a stride is not symmetric")
        return tuple(n // 2 for n in reach)
    padded = ints(node, "padding", rank, where)
    if min(padded) < 0:
        raise InputError(f"a padding of {min(padded)}", where=where)
    return padded


def _bias(node: RawNode, where: str) -> dict[str, np.ndarray]:
    if "bias" not in node.params:
        return {}
    bias = array(node, "bias", where).astype(np.float64).reshape(-1)
    return {"bias": bias} if bias.any() else {}


def _linear(r: Raising, name: str, node: RawNode) -> Operand:
    weight = array(node, "weight", name).astype(np.float64)
    value = r.operand(name)
    shape = r.shape(value)
    if weight.ndim != 2 or 0 in weight.shape:
        raise InputError(f"weights of shape {weight.shape}", where=name)
    factor = _factor_of(r, name)
    if factor is not None:
        factor = spread(factor, shape, name)
    if len(shape) > 1 and math.prod(shape) == weight.shape[1]:
        r.notices.append(f"{name}: reads a value of shape {shape} flattened")
        value = r.flattened(value, (weight.shape[1],))
        factor = None if factor is None else factor.reshape(-1)
    if factor is not None:
        last = per_channel(factor, factor.ndim - 1)
        if last is None or len(last) != weight.shape[1]:
            raise InputError(f"a scale of shape {factor.shape} in front of weights {weight.shape}", where=name)
        weight = weight * last
    return r.add(name, Linear(), value, weight=weight, **_bias(node, name))


def _flatten(r: Raising, name: str, node: RawNode) -> Operand:
    """Axes ``start_dim`` to ``end_dim`` as one; NIR counts no batch axis."""
    value = r.operand(name)
    shape = r.shape(value)
    (start,), (end,) = (ints(node, k, 1, name) for k in ("start_dim", "end_dim"))
    declared = node.params.get("input_type")
    if isinstance(declared, np.ndarray) and declared.size == len(shape) + 1:  # the file's own shape has a batch axis
        start, end = (max(d - 1, 0) if d >= 0 else d for d in (start, end))
        r.notices.append(f"{name}: its axes count a batch axis; read without")
    first, last = (d + len(shape) if d < 0 else d for d in (start, end))
    if not 0 <= first < len(shape) or last >= len(shape):
        # Tools that count the batch axis say 1..-1 for a whole sample.
        first, last = max(first - 1, 0), len(shape) - 1
        if first > last:
            raise InputError(f"start_dim {start} and end_dim {end} for values of shape {shape}", where=name)
        r.notices.append(f"{name}: start_dim {start} and end_dim {end} count a batch axis; read without")
    if first >= last:
        return value
    flat = (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
    order = list(range(len(shape)))
    if r.dialect.channels_last and first == 0:
        order = [*order[1 : last + 1], 0, *order[last + 1 :]]
    factor = _factor_of(r, name)
    if factor is not None:
        r.pending[name] = spread(factor, shape, name).transpose(order).reshape(flat)
    return r.flattened(value, flat, order)


def _pool(r: Raising, name: str, node: RawNode) -> Operand:
    kernel, stride, padding = (ints(node, k, 2, name) for k in ("kernel_size", "stride", "padding"))
    if min(*kernel, *stride) < 1 or min(padding) < 0:
        raise InputError("a pooling window, stride or padding below its minimum", where=name)
    if r.dialect.pads_in_all and any(padding):
        raise UnsupportedError(
            f"{r.dialect.tool} writes both sides' padding of a 'SAME' pool as one number, and may have padded unevenly",
            hint="write it with a 'VALID' pool",
        )
    value = r.add(name, SumPool(kernel, stride, padding), _without_batch(r, name, r.operand(name), 3))
    if node.type == "SumPool2d":
        return value
    if any(padding):
        r.notices.append(f"{name}: the mean counts the padding, as torch does by default")
    return r.add(f"{name}.mean", Scale(1.0 / math.prod(kernel)), value)


def _scale(r: Raising, name: str, node: RawNode) -> Operand:
    value = r.operand(name)
    factor = spread(array(node, "scale", name), r.shape(value), name)
    if (factor == factor.flat[0]).all() or not _all_take_factors(r, name, per_channel(factor) is not None):
        return r.affine(name, value, factor, np.zeros(factor.shape), name)
    r.pending[name] = factor
    return value


def _all_take_factors(r: Raising, name: str, by_channel: bool) -> bool:
    """True if all that reads a node are synapses that can take its factors into their weights."""
    readers = r.source.readers(name)
    kinds = {r.source.nodes[reader].type for reader in readers}
    if not readers or any(len(r.source.sources[reader]) != 1 for reader in readers):
        return False
    if kinds == {"Flatten"}:
        return all(_all_take_factors(r, reader, False) for reader in readers)
    return kinds <= set(_READS_FACTORS) and (by_channel or kinds <= {"Linear", "Affine"})


def _factor_of(r: Raising, name: str) -> np.ndarray | None:
    """Factors that what enters a node still lacks."""
    return r.pending.get(r.source.sources[name][0])


def _delay(r: Raising, name: str, node: RawNode) -> Operand:
    if array(node, "delay", name).any():
        raise UnsupportedError("a delay; values here reach every node in the same step")
    return r.operand(name)


#: What each NIR node that is no neuron becomes.
SYNAPSES: Mapping[str, Raise] = {
    "Input": _input,
    "Output": _pass,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "Linear": _linear,
    "Affine": _linear,
    "Flatten": _flatten,
    "AvgPool2d": _pool,
    "SumPool2d": _pool,
    "Scale": _scale,
    "Delay": _delay,
}
