"""What ONNX does for each operator: one function per operator, in the table :data:`LOWERINGS`.

Integer graphs: every value is an integer carried in float32 where the width proof keeps all partial sums within 2**24,
else in float64 (2**53), so that results are exact in any order of summation. ``ConvInteger`` is not used: ONNX
Runtime's x86 kernels for uint8 x int8 may saturate at 16 bits (onnxruntime.ai, "Quantize ONNX models", on U8S8).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from onnx import TensorProto

from qkf_deploy.converters.onnx_builder import OnnxWriter, Tensor, carrier
from qkf_deploy.errors import GraphError, UnsupportedError
from qkf_deploy.ir import Graph, Node, Operand, View, Widths
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import BatchNorm, Conv, IntegerNeuron, Mask, MaxPool, Neuron, Scale, Sum, SumPool
from qkf_deploy.ops.geometry import Axis


@dataclass
class Emission:
    """One graph on its way to ONNX.

    Attributes:
        graph: what is exported.
        writer: what collects the nodes.
        steps: time steps inside the ONNX graph: 1 (states are inputs and outputs) or T (states are internal).
        stateful: True for the single-step form.
        float_type: element type of float graphs.
        widths: proven ranges (integer graphs).
        values: ONNX tensor of every graph node emitted so far.
        membranes: charged membranes by neuron, for whoever wants them as outputs.
    """

    graph: Graph
    writer: OnnxWriter
    steps: int
    stateful: bool
    float_type: int
    widths: dict[str, Widths]
    values: dict[str, Tensor] = field(default_factory=dict)
    membranes: dict[str, Tensor] = field(default_factory=dict)

    @property
    def integer(self) -> bool:
        """True for integer graphs."""
        return self.graph.arithmetic == "integer"

    def dtype(self, node: Node) -> int:
        """Element type in which this node's sums are exact."""
        if not self.integer:
            return self.float_type
        return carrier(max(abs(v) for v in self.widths[node.name].partial), node.name)

    def operand(self, operand: Operand, dtype: int, name: str) -> str:
        """An operand in an element type, its view applied."""
        value = self.writer.carried(self.values[operand.node], dtype)
        if operand.view is None:
            return value
        return apply_view(self.writer, value, operand.view, f"{name}.view")

    def stretched(self, node: Node, operand: Operand, dtype: int) -> str:
        """An operand, repeated over time where the node's other operands change from step to step."""
        value = self.operand(operand, dtype, node.name)
        steps = self.steps_of(node)
        if self.values[operand.node].steps == steps:
            return value
        repeats = self.writer.ints([steps] + [1] * len(self.graph.operand_type(operand).shape))
        return self.writer.op("Tile", [value, repeats], f"{node.name}.every_step")

    def steps_of(self, node: Node) -> int:
        """Time steps stacked in this node's output."""
        return self.steps if node.type.timing is Timing.STEP else 1


Lowering = Callable[[Emission, Node], Tensor]
Op = TypeVar("Op")


def operator(node: Node, kind: type[Op]) -> Op:
    """The node's operator, known to be of this class. Raises GraphError where it is not."""
    if not isinstance(node.op, kind):
        raise GraphError(f"is {node.op.kind}, not {kind.__name__}", where=node.name)
    return node.op


def apply_view(writer: OnnxWriter, value: str, view: View, name: str) -> str:
    """Reshape, slice, transpose, reshape; steps that change nothing are left out."""
    value = writer.reshape(value, (-1, *view.split), name)
    cut = [a for a, (part, n) in enumerate(zip(view.take, view.split, strict=True)) if part != (0, n)]
    if cut:
        bounds = ([view.take[a][i] for a in cut] for i in (0, 1))
        starts, stops = (writer.ints(b) for b in bounds)
        value = writer.op("Slice", [value, starts, stops, writer.ints([a + 1 for a in cut])], name)
    if list(view.perm) != sorted(view.perm):
        value = writer.op("Transpose", [value], name, perm=[0, *(p + 1 for p in view.perm)])
    return writer.reshape(value, (-1, *view.shape), name)


def conv(e: Emission, node: Node) -> Tensor:
    """Conv in float32; beyond 24 bits one float64 MatMul per tap, because runtimes lack a float64 Conv."""
    op = operator(node, Conv)
    dtype = e.dtype(node)
    x = e.operand(node.inputs[0], dtype, node.name)
    (type_,) = e.graph.input_types(node)
    axes = op.axes(type_.shape, node.params["weight"])
    y = _windowed(e, node, x, node.params["weight"], axes, op.groups, dtype)
    if "bias" in node.params:
        y = e.writer.op("Add", [y, _bias(e, node, axes, dtype)], node.name)
    return Tensor(y, dtype, e.steps_of(node))


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


def mask(e: Emission, node: Node) -> Tensor:
    """Where(gate, x, 0)."""
    dtype = e.dtype(node)
    gate, x = (e.stretched(node, o, dtype) for o in node.inputs)
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


def matmul(e: Emission, node: Node) -> Tensor:
    """MatMul of two activations."""
    dtype = e.dtype(node)
    y = e.writer.op("MatMul", [e.stretched(node, o, dtype) for o in node.inputs], node.name)
    return Tensor(y, dtype, e.steps_of(node))


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
    shape = node.type.shape
    if e.stateful:
        state_type = TensorProto.INT64 if e.integer else dtype
        state = w.add_input(f"{node.name}/sum_in", state_type, ("batch", *shape))
        y = w.op("Add", [w.cast(state, dtype) if state_type != dtype else state, x], node.name)
        w.add_output(
            w.cast(y, state_type) if state_type != dtype else y, f"{node.name}/sum_out", state_type, ("batch", *shape)
        )
    elif e.values[operand.node].steps == 1:
        y = w.op("Mul", [x, w.number(e.graph.time_steps, dtype)], node.name)
    else:
        stacked = w.reshape(x, (e.steps, -1, *shape), f"{node.name}.stacked")
        y = w.op("ReduceSum", [stacked, w.ints([0])], node.name, keepdims=0)
    return Tensor(y, dtype, 1)


def forward(e: Emission, node: Node) -> Tensor:
    """The output node: its operand, view applied."""
    source = e.values[node.inputs[0].node]
    return Tensor(e.operand(node.inputs[0], source.dtype, node.name), source.dtype, source.steps)


@dataclass(frozen=True)
class _Dynamics:
    """How one neuron charges and resets, in ONNX terms."""

    dtype: int
    theta: np.ndarray
    soft: bool
    charge: Callable[[str | None, str], str]


def neuron(e: Emission, node: Node) -> Tensor:
    """Unrolled over the steps inside the graph; Greater-or-equal fires, Where resets."""
    if getattr(node.op, "carry", "own") != "own":
        raise UnsupportedError(
            "the membrane is carried over between images of a batch, which an ONNX graph per image cannot say",
            where=node.name,
            hint="trace with batch size 1 semantics (carry 'own')",
        )
    dynamics = _integer_dynamics(e, node) if isinstance(node.op, IntegerNeuron) else _float_dynamics(e, node)
    w, operand = e.writer, node.inputs[0]
    drive = e.operand(operand, dynamics.dtype, node.name)
    stacked = e.values[operand.node].steps
    drives = w.split(drive, stacked, f"{node.name}.drive") if stacked > 1 else [drive] * e.steps
    state, state_type = _state_input(e, node, dynamics.dtype)
    charged, fired = [], []
    theta = w.constant(
        dynamics.theta.astype(np.float64 if dynamics.dtype == TensorProto.DOUBLE else np.float32), "theta"
    )
    for x in drives:
        u = dynamics.charge(state, x)
        s = w.op("GreaterOrEqual", [u, theta], f"{node.name}.fires")
        after = w.op("Sub", [u, theta], f"{node.name}.reset") if dynamics.soft else w.number(0, dynamics.dtype)
        state = w.op("Where", [s, after, u], f"{node.name}.membrane")
        charged.append(u)
        fired.append(s)
    if e.stateful and state is not None:
        kept = w.cast(state, state_type) if state_type != dynamics.dtype else state
        w.add_output(kept, f"{node.name}/membrane_out", state_type, ("batch", *node.type.shape))
    e.membranes[node.name] = Tensor(_stack(w, charged, f"{node.name}.charged"), dynamics.dtype, e.steps)
    dtype = TensorProto.FLOAT if e.integer else e.float_type
    return Tensor(w.op("Cast", [_stack(w, fired, f"{node.name}.fired")], node.name, to=dtype), dtype, e.steps)


def _state_input(e: Emission, node: Node, dtype: int) -> tuple[str | None, int]:
    state_type = TensorProto.INT64 if e.integer else dtype
    if not e.stateful:
        return None, state_type
    state = e.writer.add_input(f"{node.name}/membrane_in", state_type, ("batch", *node.type.shape))
    return (e.writer.cast(state, dtype) if state_type != dtype else state), state_type


def _stack(w: OnnxWriter, parts: Sequence[str], name: str) -> str:
    return parts[0] if len(parts) == 1 else w.op("Concat", parts, name, axis=0)


def _integer_dynamics(e: Emission, node: Node) -> _Dynamics:
    """U = floor(M * m / 2^k) + X * 2^f. Multiplying by m / 2^k is exact within the carrier and Floor is the
    arithmetic shift; ONNX's own integer Div truncates towards zero and its BitShift takes unsigned types only."""
    op, w = operator(node, IntegerNeuron), e.writer
    membrane = e.widths[node.name].membrane
    if membrane is None:
        raise UnsupportedError("no width proof for this neuron", where=node.name, hint="quantize again")
    theta = node.params["theta"]
    largest = max(abs(v) for v in membrane)
    reach = max(abs(int(theta.max())), abs(int(theta.min())), largest)
    kept = largest + reach if op.soft_reset else largest
    (drive_low, drive_high) = e.widths[node.inputs[0].node].value
    driven = max(abs(drive_low), abs(drive_high)) << op.fraction_bits
    dtype = carrier(max(reach, kept * max(op.decay_multiplier, 1), driven), node.name)
    decays = op.decay_multiplier != 1 << op.decay_shift

    def charge(state: str | None, x: str) -> str:
        if op.fraction_bits:
            x = w.op("Mul", [x, w.number(2.0**op.fraction_bits, dtype)], f"{node.name}.scaled")
        if state is None:
            return x
        if decays:
            factor = w.number(op.decay_multiplier / 2.0**op.decay_shift, dtype)
            state = w.op("Floor", [w.op("Mul", [state, factor], f"{node.name}.decay")], f"{node.name}.decayed")
        return w.op("Add", [state, x], f"{node.name}.charged")

    return _Dynamics(dtype, theta, op.soft_reset, charge)


def _float_dynamics(e: Emission, node: Node) -> _Dynamics:
    """The state is V - V_reset, in the order of operations of :class:`qkf_deploy.ops.Neuron`."""
    op, w, dtype = operator(node, Neuron), e.writer, e.float_type
    tau = None if op.tau is None else w.number(op.tau, dtype)

    def charge(state: str | None, x: str) -> str:
        if state is None:
            return x if tau is None or not op.decay_input else w.op("Div", [x, tau], f"{node.name}.input")
        if tau is None:
            return w.op("Add", [state, x], f"{node.name}.charged")
        if op.decay_input:
            gap = w.op("Sub", [x, state], f"{node.name}.gap")
            return w.op("Add", [state, w.op("Div", [gap, tau], f"{node.name}.step")], f"{node.name}.charged")
        leak = w.op("Div", [state, tau], f"{node.name}.leak")
        return w.op("Add", [w.op("Sub", [state, leak], f"{node.name}.rest"), x], f"{node.name}.charged")

    return _Dynamics(dtype, np.array(op.v_threshold - (op.v_reset or 0.0)), op.v_reset is None, charge)


#: How each operator is written; ``input`` is declared by the exporter itself.
LOWERINGS: dict[str, Lowering] = {
    "conv": conv,
    "linear": linear,
    "batch_norm": batch_norm,
    "neuron": neuron,
    "integer_neuron": neuron,
    "max_pool": max_pool,
    "sum_pool": sum_pool,
    "add": add,
    "mask": mask,
    "scale": scale,
    "matmul": matmul,
    "sum": sum_axes,
    "readout": readout,
    "output": forward,
}
