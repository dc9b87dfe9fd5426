"""What ONNX does for each operator: one function per operator, in the table :data:`LOWERINGS`.

Integer graphs: every value is an integer carried in float32 where the width proof keeps all partial sums within 2**24,
else in float64 (2**53), so that results are exact in any order of summation. ``ConvInteger`` is not used: ONNX
Runtime's x86 kernels for uint8 x int8 may saturate at 16 bits (onnxruntime.ai, "Quantize ONNX models", on U8S8).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import TensorProto

from qkf_deploy.converters.onnx.builder import Tensor, carrier
from qkf_deploy.converters.onnx.emission import Emission, Lowering, operator
from qkf_deploy.converters.onnx.neuron import neuron
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Node
from qkf_deploy.ops import BatchNorm, Concat, Conv, Mask, MaxPool, Readout, Scale, Shift, Sum, SumPool
from qkf_deploy.ops.geometry import Axis


def conv(e: Emission, node: Node) -> Tensor:
    """Conv in float32; beyond 24 bits one float64 MatMul per tap, because runtimes lack a float64 Conv."""
    op = operator(node, Conv)
    dtype = e.dtype(node)
    x = e.operand(node.inputs[0], dtype, node.name)
    (type_,) = e.graph.input_types(node)
    axes = op.axes(type_.shape, node.params["weight"])
    if op.spread:
        x = _laid_out(e, node, x, (type_.shape[0], *(a.size for a in axes)), axes)
    y = _windowed(e, node, x, node.params["weight"], axes, op.groups, dtype)
    if "bias" in node.params:
        y = e.writer.op("Add", [y, _bias(e, node, axes, dtype)], node.name)
    return Tensor(y, dtype, e.steps_of(node))


def _laid_out(e: Emission, node: Node, x: str, shape: Sequence[int], axes: Sequence[Axis]) -> str:
    """The map of a transposed convolution: zeros padded behind each element, those behind the last one cut."""
    w, name = e.writer, f"{node.name}.spread"
    pads = [0, 0, *(n for a in axes for n in (0, a.spread - 1))]
    apart = w.reshape(x, (-1, shape[0], *(n for size in shape[1:] for n in (size, 1))), name)
    apart = w.op("Pad", [apart, w.ints([0] * len(pads) + pads)], name)
    wide = w.reshape(apart, (-1, shape[0], *(a.size * a.spread for a in axes)), name)
    ends = [w.ints(n) for n in ([0] * len(axes), [a.places for a in axes], [i + 2 for i in range(len(axes))])]
    return w.op("Slice", [wide, *ends], name)


def _windowed(
    e: Emission, node: Node, x: str, weight: np.ndarray, axes: Sequence[Axis], groups: int, dtype: int
) -> str:
    if dtype == TensorProto.FLOAT:
        pads = [a.padding for a in axes]
        w = e.writer.stored(weight, dtype, f"{node.name}.weight")
        return e.writer.op(
            "Conv", [x, w], f"{node.name}.conv", strides=[a.stride for a in axes], pads=pads + pads,
            dilations=[a.dilation for a in axes], group=groups, kernel_shape=[a.kernel for a in axes],
        )  # fmt: skip
    return _per_tap(e, node, x, weight, axes, groups, dtype)


def _per_tap(e: Emission, node: Node, x: str, weight: np.ndarray, axes: Sequence[Axis], groups: int, dtype: int) -> str:
    """Σ over taps of weight[tap] @ window[tap], every product a batched MatMul over groups."""
    w, name = e.writer, node.name
    pads = [0, 0, *(a.padding for a in axes)]
    if any(pads):
        x = w.op("Pad", [x, w.ints(pads + pads)], f"{name}.padded")
    spatial = w.ints([i + 2 for i in range(len(axes))])
    out, group_in = weight.shape[0], weight.shape[1]
    total = ""
    for tap in itertools.product(*(range(a.kernel) for a in axes)):
        starts = [t * a.dilation for t, a in zip(tap, axes, strict=True)]
        stops = [s + (a.out - 1) * a.stride + 1 for s, a in zip(starts, axes, strict=True)]
        strides = w.ints([a.stride for a in axes])
        window = w.op("Slice", [x, w.ints(starts), w.ints(stops), spatial, strides], f"{name}.window")
        window = w.reshape(window, (-1, groups, group_in, int(np.prod([a.out for a in axes]))), f"{name}.window")
        taps = weight[(..., *tap)].reshape(groups, out // groups, group_in)
        y = w.op("MatMul", [w.stored(taps, dtype, f"{name}.weight"), window], f"{name}.tap")
        total = w.op("Add", [total, y], f"{name}.sum") if total else y
    return w.reshape(total, (-1, out, *(a.out for a in axes)), f"{name}.conv")


def _bias(e: Emission, node: Node, axes: Sequence[Axis], dtype: int) -> str:
    """Bias, spread over positions where it has one value per border case."""
    bias, w = node.params["bias"], e.writer
    if bias.ndim == 1:
        return w.stored(bias.reshape(-1, *[1] * len(axes)), dtype, f"{node.name}.bias")
    value = w.stored(bias, dtype, f"{node.name}.bias")
    for axis, window in enumerate(axes, start=1):
        cases = w.ints([int(c) for c in window.cases()[1]], f"{node.name}.case")
        value = w.op("Gather", [value, cases], f"{node.name}.bias_map", axis=axis)
    return value


def linear(e: Emission, node: Node) -> Tensor:
    """MatMul over the last axis, then Add."""
    dtype = e.dtype(node)
    x = e.operand(node.inputs[0], dtype, node.name)
    weight = e.writer.stored(np.ascontiguousarray(node.params["weight"].T), dtype, f"{node.name}.weight")
    y = e.writer.op("MatMul", [x, weight], node.name)
    if "bias" in node.params:
        y = e.writer.op("Add", [y, e.writer.stored(node.params["bias"], dtype, f"{node.name}.bias")], node.name)
    return Tensor(y, dtype, e.steps_of(node))


def batch_norm(e: Emission, node: Node) -> Tensor:
    """x * scale + shift with the running statistics (float graphs only)."""
    op = operator(node, BatchNorm)
    dtype, extra = e.dtype(node), [1] * (len(node.type.shape) - 1)
    scale, shift = (v.reshape(-1, *extra) for v in op.affine(node.params))
    y = e.operand(node.inputs[0], dtype, node.name)
    y = e.writer.op("Mul", [y, e.writer.stored(scale, dtype, f"{node.name}.scale")], node.name)
    y = e.writer.op("Add", [y, e.writer.stored(shift, dtype, f"{node.name}.shift")], node.name)
    return Tensor(y, dtype, e.steps_of(node))


def max_pool(e: Emission, node: Node) -> Tensor:
    """MaxPool; its padding never wins, as here."""
    op = operator(node, MaxPool)
    dtype, pads = e.dtype(node), list(op.padding)
    x = e.operand(node.inputs[0], dtype, node.name)
    y = e.writer.op(
        "MaxPool", [x], node.name, kernel_shape=list(op.kernel), strides=list(op.stride), pads=pads + pads
    )  # fmt: skip
    return Tensor(y, dtype, e.steps_of(node))


def sum_pool(e: Emission, node: Node) -> Tensor:
    """A depthwise convolution of ones (AveragePool divides, which rounds)."""
    op = operator(node, SumPool)
    dtype = e.dtype(node)
    x = e.operand(node.inputs[0], dtype, node.name)
    (type_,) = e.graph.input_types(node)
    channels = type_.shape[0]
    ones = np.ones((channels, 1, *op.kernel), np.int8)
    y = _windowed(e, node, x, ones, op.axes(type_.shape), channels, dtype)
    return Tensor(y, dtype, e.steps_of(node))


def add(e: Emission, node: Node) -> Tensor:
    """Add."""
    dtype = e.dtype(node)
    y = e.writer.op("Add", [e.stretched(node, o, dtype) for o in node.inputs], node.name)
    return Tensor(y, dtype, e.steps_of(node))


def concat(e: Emission, node: Node) -> Tensor:
    """Concat."""
    dtype = e.dtype(node)
    parts = [e.stretched(node, o, dtype) for o in node.inputs]
    y = e.writer.op("Concat", parts, node.name, axis=operator(node, Concat).axis + 1)
    return Tensor(y, dtype, e.steps_of(node))


def mask(e: Emission, node: Node) -> Tensor:
    """Where(gate, x, 0); with a gate of signed events Mul."""
    dtype = e.dtype(node)
    gate, x = (e.stretched(node, o, dtype) for o in node.inputs)
    if e.graph.input_types(node)[0].is_signed:
        return Tensor(e.writer.op("Mul", [gate, x], node.name), dtype, e.steps_of(node))
    closed = e.writer.number(0, dtype)
    chosen = [closed, x] if operator(node, Mask).invert else [x, closed]
    y = e.writer.op("Where", [e.writer.cast(gate, TensorProto.BOOL), *chosen], node.name)
    return Tensor(y, dtype, e.steps_of(node))


def scale(e: Emission, node: Node) -> Tensor:
    """Mul by a constant (float graphs only)."""
    dtype = e.dtype(node)
    factor = e.writer.number(operator(node, Scale).factor, dtype)
    y = e.writer.op("Mul", [e.operand(node.inputs[0], dtype, node.name), factor], node.name)
    return Tensor(y, dtype, e.steps_of(node))


def shift(e: Emission, node: Node) -> Tensor:
    """floor((x + 2^(bits-1)) / 2^bits): Add, Mul by a power of two, Floor (integer graphs only)."""
    op, w = operator(node, Shift), e.writer
    amounts = op.amounts(len(node.type.shape)).astype(np.float64)
    half = np.where(amounts > 0, 2.0 ** (amounts - 1), 0.0)
    entering = e.widths[node.inputs[0].node].value
    dtype = carrier(max(abs(v) for v in entering) + int(half.max()), node.name)
    x = w.op("Add", [e.operand(node.inputs[0], dtype, node.name), w.real(half, dtype)], f"{node.name}.half")
    y = w.op("Floor", [w.op("Mul", [x, w.real(2.0**-amounts, dtype)], f"{node.name}.scaled")], node.name)
    return Tensor(y, dtype, e.steps_of(node))


def matmul(e: Emission, node: Node) -> Tensor:
    """MatMul of two activations; over chunks of time steps ReduceSum over the stacked steps, repeated by Tile."""
    dtype, w, chunk = e.dtype(node), e.writer, node.op.steps_awaited
    if chunk > 1 and e.stateful:
        raise UnsupportedError(
            f"is not causal: it sums over chunks of {chunk} time steps, and a graph of one step knows no later one",
            where=node.name,
            hint="use the form 'sequence'",
        )
    y = w.op("MatMul", [e.stretched(node, o, dtype) for o in node.inputs], node.name)
    steps = e.steps_of(node)
    if chunk > 1 and steps > 1:
        stacked = w.reshape(y, (steps // chunk, chunk, -1, *node.type.shape), f"{node.name}.chunks")
        sums = w.op("ReduceSum", [stacked, w.ints([1])], f"{node.name}.sums", keepdims=1)
        repeated = w.op("Tile", [sums, w.ints([1, chunk, 1, *[1] * len(node.type.shape)])], f"{node.name}.repeated")
        y = w.reshape(repeated, (-1, *node.type.shape), f"{node.name}.steps")
    elif chunk > 1:
        y = w.op("Mul", [y, w.number(chunk, dtype)], f"{node.name}.chunk")
    return Tensor(y, dtype, steps)


def sum_axes(e: Emission, node: Node) -> Tensor:
    """ReduceSum over per-step axes."""
    op = operator(node, Sum)
    dtype = e.dtype(node)
    axes = e.writer.ints([a + 1 for a in op.axes])
    x = e.operand(node.inputs[0], dtype, node.name)
    return Tensor(e.writer.op("ReduceSum", [x, axes], node.name, keepdims=int(op.keepdims)), dtype, e.steps_of(node))


def readout(e: Emission, node: Node) -> Tensor:
    """Sum over time: an accumulator state in the single-step form, ReduceSum over the stacked steps otherwise."""
    dtype, w = e.dtype(node), e.writer
    operand = node.inputs[0]
    x = e.operand(operand, dtype, node.name)
    shape, weights = node.type.shape, operator(node, Readout).weights
    if e.stateful:
        if weights:
            x = w.op("Mul", [x, _weight_of_this_step(e, node, weights, dtype)], f"{node.name}.weighted")
        state_type = TensorProto.INT64 if e.integer else dtype
        state = w.add_input(f"{node.name}/sum_in", state_type, ("batch", *shape))
        y = w.op("Add", [w.cast(state, dtype) if state_type != dtype else state, x], node.name)
        w.add_output(
            w.cast(y, state_type) if state_type != dtype else y, f"{node.name}/sum_out", state_type, ("batch", *shape)
        )
    elif e.values[operand.node].steps == 1:
        y = w.op("Mul", [x, w.number(sum(weights) if weights else e.graph.time_steps, dtype)], node.name)
    else:
        stacked = w.reshape(x, (e.steps, -1, *shape), f"{node.name}.stacked")
        if weights:
            by_step = w.stored(np.array(weights).reshape(-1, 1, *[1] * len(shape)), dtype, f"{node.name}.step_weight")
            stacked = w.op("Mul", [stacked, by_step], f"{node.name}.weighted")
        y = w.op("ReduceSum", [stacked, w.ints([0])], node.name, keepdims=0)
    return Tensor(y, dtype, 1)


def _weight_of_this_step(e: Emission, node: Node, weights: Sequence[float], dtype: int) -> str:
    """What the operand is multiplied with in the single-step form, where a state counts the steps."""
    w, name = e.writer, f"{node.name}.step_weight"
    step = w.add_input(f"{node.name}/step_in", TensorProto.INT64, ("batch",))
    w.add_output(w.op("Add", [step, w.ints([1])], name), f"{node.name}/step_out", TensorProto.INT64, ("batch",))
    chosen = w.op("Gather", [w.stored(np.array(weights), dtype, name), step], name, axis=0)
    return w.reshape(chosen, (-1, *[1] * len(node.type.shape)), name)


def forward(e: Emission, node: Node) -> Tensor:
    """The output node: its operand, view applied."""
    source = e.values[node.inputs[0].node]
    return Tensor(e.operand(node.inputs[0], source.dtype, node.name), source.dtype, source.steps)


#: How each operator is written; ``input`` is declared by the exporter itself.
LOWERINGS: Mapping[str, Lowering] = {
    "conv": conv,
    "linear": linear,
    "batch_norm": batch_norm,
    "neuron": neuron,
    "integer_neuron": neuron,
    "max_pool": max_pool,
    "sum_pool": sum_pool,
    "add": add,
    "concat": concat,
    "mask": mask,
    "scale": scale,
    "shift": shift,
    "matmul": matmul,
    "sum": sum_axes,
    "readout": readout,
    "output": forward,
}
