"""Neurons in ONNX: unrolled over the steps inside the graph, or one step with the membrane as state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from qkf_deploy.converters.onnx.builder import OnnxWriter, Tensor, carrier
from qkf_deploy.converters.onnx.emission import Emission, operator
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Node
from qkf_deploy.ops import IntegerNeuron, Neuron


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
    theta = w.real(dynamics.theta, dynamics.dtype, "theta")
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
