"""Neurons in ONNX: unrolled over the steps inside the graph, or one step with the membrane as state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from qkf_deploy.converters.onnx.builder import OnnxWriter, Tensor, carrier
from qkf_deploy.converters.onnx.emission import Emission, operator
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Node
from qkf_deploy.ops import IntegerNeuron, Neuron


def neuron(e: Emission, node: Node) -> Tensor:
    """Unrolled over the steps inside the graph; Greater-or-equal fires, Where resets."""
    _check_carry(e, node)
    dynamics = _integer_dynamics(e, node) if isinstance(node.op, IntegerNeuron) else _float_dynamics(e, node)
    w, operand = e.writer, node.inputs[0]
    drive = e.operand(operand, dynamics.dtype, node.name)
    stacked = e.values[operand.node].steps
    drives = w.split(drive, stacked, f"{node.name}.drive") if stacked > 1 else [drive] * e.steps
    state, state_type = _start(e, node, dynamics)
    charged, fired = [], []
    left = node.params.get("leftover")
    for t, x in enumerate(drives):
        if left is not None:
            state = w.real(left[t], dynamics.dtype, f"{node.name}.leftover")
        u = dynamics.fire.late(state, dynamics.charge(state, x))
        s, state = dynamics.fire(u)
        charged.append(_above(w, u, dynamics, node))
        fired.append(s)
    if e.stateful and state is not None:
        kept = w.cast(state, state_type) if state_type != dynamics.dtype else state
        w.add_output(kept, f"{node.name}/membrane_out", state_type, ("batch", *node.type.shape))
    e.membranes[node.name] = Tensor(_stack(w, charged, f"{node.name}.charged"), dynamics.dtype, e.steps)
    dtype = TensorProto.FLOAT if e.integer else e.float_type
    return Tensor(w.op("Cast", [_stack(w, fired, f"{node.name}.fired")], node.name, to=dtype), dtype, e.steps)


def _check_carry(e: Emission, node: Node) -> None:
    """Raises UnsupportedError for membranes that a graph of one image, or of one step, cannot start from."""
    carry = getattr(node.op, "carry", "own")
    if carry == "official":
        raise UnsupportedError(
            "the membrane is carried over between images of a batch, which an ONNX graph per image cannot say",
            where=node.name,
            hint="choose carry 'own', or 'stored' and the form of all steps",
        )
    if carry == "stored" and e.stateful:
        raise UnsupportedError(
            "every step starts from a membrane stored for it, and a graph of one step does not know which it is",
            where=node.name,
            hint="use the form 'sequence'",
        )


def _start(e: Emission, node: Node, dynamics: _Dynamics) -> tuple[str | None, int]:
    """(state before the first step, ``None`` for 0; element type of the state outside the graph)."""
    w, dtype, initial = e.writer, dynamics.dtype, dynamics.initial
    state_type = TensorProto.INT64 if e.integer else dtype
    if not e.stateful:
        return None if initial is None else w.real(initial, dtype, f"{node.name}.initial"), state_type
    default, rows = None, "batch"
    if initial is not None:  # the input may be left out: then it is this, one row for all images
        default = np.broadcast_to(initial, (1, *node.type.shape)).astype(helper.tensor_dtype_to_np_dtype(state_type))
        rows = f"{node.name}.rows"
    state = w.add_input(f"{node.name}/membrane_in", state_type, (rows, *node.type.shape), default)
    return (w.cast(state, dtype) if state_type != dtype else state), state_type


def _above(w: OnnxWriter, charged: str, dynamics: _Dynamics, node: Node) -> str:
    """The membrane potential of a charged membrane."""
    if not dynamics.base.any():
        return charged
    return w.op("Add", [charged, w.real(dynamics.base, dynamics.dtype, "reset")], f"{node.name}.potential")


def _stack(w: OnnxWriter, parts: Sequence[str], name: str) -> str:
    return parts[0] if len(parts) == 1 else w.op("Concat", parts, name, axis=0)


@dataclass(frozen=True)
class _Firing:
    """Threshold, reset and lower bound of one neuron.

    Attributes:
        w, name, dtype: writer, prefix of names, element type.
        theta: thresholds, what the soft reset subtracts.
        base: added to the membrane before it is compared.
        op: either neuron.
        soft: the reset subtracts.
        lowest: the state is raised to this, ``None`` for no bound.
    """

    w: OnnxWriter
    name: str
    dtype: int
    theta: np.ndarray
    base: np.ndarray
    op: IntegerNeuron | Neuron
    soft: bool
    lowest: np.ndarray | None

    def __call__(self, u: str) -> tuple[str, str]:
        """``(spikes, state after the reset)`` of a charged membrane."""
        w, zero = self.w, self.w.number(0, self.dtype)
        theta = w.real(self.theta, self.dtype, "theta")
        potential = u
        if self.base.any():
            potential = w.op("Add", [u, w.real(self.base, self.dtype, "reset")], f"{self.name}.compared")
        if self.op.signed:
            spikes = self._signed(potential, theta, zero)
            fires = w.op("Cast", [spikes], f"{self.name}.fires", to=TensorProto.BOOL)
            left = self._subtracted(u, spikes, theta) if self.soft else zero
        elif not self.op.several:
            spikes = fires = self._compared(potential)
            if self.op.reset_delay:
                return spikes, u
            left = w.op("Sub", [u, theta], f"{self.name}.reset") if self.soft else zero
        else:
            spikes = self._count(potential, theta, zero)
            fires = w.op("Greater", [spikes, zero], f"{self.name}.fires")
            left = self._subtracted(u, spikes, theta) if self.soft else zero
        state = w.op("Where", [fires, left, u], f"{self.name}.membrane")
        if self.lowest is not None:
            bound = w.real(self.lowest, self.dtype, "lowest")
            state = w.op("Max", [state, bound], f"{self.name}.bounded")
        return spikes, state

    def _subtracted(self, u: str, spikes: str, theta: str) -> str:
        taken = self.w.op("Mul", [spikes, theta], f"{self.name}.taken")
        return self.w.op("Sub", [u, taken], f"{self.name}.reset")

    def _signed(self, potential: str, theta: str, zero: str) -> str:
        """What the magnitude of a membrane fires, with its sign."""
        w, name = self.w, self.name
        magnitude = w.op("Abs", [potential], f"{name}.magnitude")
        if self.op.several:
            count = self._count(magnitude, theta, zero)
        else:
            count = w.op("Cast", [self._compared(magnitude)], f"{name}.one", to=self.dtype)
        return w.op("Mul", [w.op("Sign", [potential], f"{name}.sign"), count], f"{name}.signed")

    def late(self, state: str | None, u: str) -> str:
        """The charge less what the spikes of the last state take, where the reset is delayed."""
        if not self.op.reset_delay or state is None:
            return u
        w = self.w
        fired = w.op("Cast", [self._compared(state)], f"{self.name}.late", to=self.dtype)
        taken = w.op("Mul", [fired, w.real(self.theta, self.dtype, "theta")], f"{self.name}.taken")
        return w.op("Sub", [u, taken], f"{self.name}.reset")

    def _compared(self, potential: str) -> str:
        what = "Greater" if self.op.strict else "GreaterOrEqual"
        theta = self.w.real(self.theta, self.dtype, "theta")
        return self.w.op(what, [potential, theta], f"{self.name}.fires")

    def _count(self, potential: str, theta: str, zero: str) -> str:
        """Of integers a and b with |a| + b within the carrier, the floor of the rounded quotient is that of a / b."""
        w, op, name = self.w, self.op, self.name
        quotient = w.op("Div", [potential, theta], f"{name}.quotient")
        if isinstance(op, Neuron) and op.rounding != "floor":
            return self._rounded(self._limited(quotient, zero))
        whole = w.op("Floor", [quotient], f"{name}.whole")
        if op.rounding != "floor":
            whole = w.op("Add", [whole, self._up(potential, theta, whole)], f"{name}.rounded")
        return self._limited(whole, zero)

    def _limited(self, count: str, zero: str) -> str:
        w, most = self.w, self.op.max_spikes
        count = w.op("Max", [count, zero], f"{self.name}.count")
        return count if most is None else w.op("Min", [count, w.number(most, self.dtype)], f"{self.name}.capped")

    def _rounded(self, ratio: str) -> str:
        if self.op.rounding == "half_even":
            return self.w.op("Round", [ratio], f"{self.name}.rounded")
        above = self.w.op("Add", [ratio, self.w.number(0.5, self.dtype)], f"{self.name}.above")
        return self.w.op("Floor", [above], f"{self.name}.rounded")

    def _up(self, potential: str, theta: str, whole: str) -> str:
        """1 where an integer membrane lies nearer to the next multiple of the threshold, or as near and that wins."""
        w, name = self.w, self.name
        above = w.op("Sub", [potential, w.op("Mul", [whole, theta], f"{name}.below")], f"{name}.above")
        below = w.op("Sub", [theta, above], f"{name}.missing")
        if self.op.rounding == "half_up":
            up = w.op("GreaterOrEqual", [above, below], f"{name}.up")
        else:
            half = w.op("Mul", [whole, w.number(0.5, self.dtype)], f"{name}.half")
            odd = w.op("Greater", [half, w.op("Floor", [half], f"{name}.even")], f"{name}.odd")
            tie = w.op("And", [w.op("Equal", [above, below], f"{name}.tie"), odd], f"{name}.tied")
            up = w.op("Or", [w.op("Greater", [above, below], f"{name}.nearer"), tie], f"{name}.up")
        return w.op("Cast", [up], f"{name}.one", to=self.dtype)


@dataclass(frozen=True)
class _Dynamics:
    """How one neuron charges and fires, in ONNX terms; the state is relative to the reset voltage.

    Attributes:
        dtype: ONNX element type of the membrane.
        initial: state before the first step, ``None`` for 0.
        charge: ``(state or None for 0, drive) -> charged membrane``; of a delayed reset before its spikes are taken.
        fire: spikes and reset.
        base: reset voltage.
    """

    dtype: int
    initial: np.ndarray | None
    charge: Callable[[str | None, str], str]
    fire: _Firing
    base: np.ndarray


def _integer_dynamics(e: Emission, node: Node) -> _Dynamics:
    """U = floor(M * m / 2^k) + X * 2^f. Multiplying by m / 2^k is exact within the carrier and Floor is the
    arithmetic shift; ONNX's own integer Div truncates towards zero and its BitShift takes unsigned types only."""
    op, w, params = operator(node, IntegerNeuron), e.writer, node.params
    membrane = e.widths[node.name].membrane
    if membrane is None:
        raise UnsupportedError("no width proof for this neuron", where=node.name, hint="quantize again")
    theta, lowest, left = params["theta"], params.get("lowest"), params.get("leftover")
    stored = [int(end) for x in (lowest, left) if x is not None for end in (x.min(), x.max())]
    largest = max(abs(v) for v in (*membrane, *stored))
    reach = max(abs(int(theta.max())), abs(int(theta.min())), largest)
    if op.graded or op.reset_delay:
        reach = largest + int(theta.max())
    kept = largest + reach if op.soft_reset else largest
    (drive_low, drive_high) = e.widths[node.inputs[0].node].value
    driven = max(abs(drive_low), abs(drive_high)) << op.fraction_bits
    dtype = carrier(max(reach, kept * max(op.decay_multiplier, 1), driven), node.name)
    multiplier = np.asarray(op.multiplier(params))
    decays = (multiplier != 1 << op.decay_shift).any()

    def charge(state: str | None, x: str) -> str:
        if op.fraction_bits:
            x = w.op("Mul", [x, w.number(2.0**op.fraction_bits, dtype)], f"{node.name}.scaled")
        if state is None:
            return x
        if decays:
            factor = w.real(multiplier / 2.0**op.decay_shift, dtype, "decay")
            state = w.op("Floor", [w.op("Mul", [state, factor], f"{node.name}.decay")], f"{node.name}.decayed")
        return w.op("Add", [state, x], f"{node.name}.charged")

    rest = np.zeros(())
    firing = _Firing(w, node.name, dtype, theta, rest, op, op.soft_reset, lowest)
    return _Dynamics(dtype, params.get("initial"), charge, firing, rest)


def _float_dynamics(e: Emission, node: Node) -> _Dynamics:
    """The state is V - V_reset, in the order of operations of :class:`qkf_deploy.ops.Neuron`."""
    op, w, dtype = operator(node, Neuron), e.writer, e.float_type
    levels = op.levels(node.params)
    tau = None if levels.tau is None else w.real(levels.tau, dtype, "tau")

    def charge(state: str | None, x: str) -> str:
        if state is None:
            return x if tau is None or not op.decay_input else w.op("Div", [x, tau], f"{node.name}.input")
        if tau is None:
            if levels.decay is not None:
                state = w.op("Mul", [state, w.real(levels.decay, dtype, "decay")], f"{node.name}.decayed")
            return w.op("Add", [state, x], f"{node.name}.charged")
        if op.decay_input:
            gap = w.op("Sub", [x, state], f"{node.name}.gap")
            return w.op("Add", [state, w.op("Div", [gap, tau], f"{node.name}.step")], f"{node.name}.charged")
        leak = w.op("Div", [state, tau], f"{node.name}.leak")
        return w.op("Add", [w.op("Sub", [state, leak], f"{node.name}.rest"), x], f"{node.name}.charged")

    lowest = None if levels.v_min is None else levels.v_min - levels.base
    firing = _Firing(w, node.name, dtype, levels.v_threshold, levels.base, op, op.v_reset is None, lowest)
    return _Dynamics(dtype, node.params.get("initial"), charge, firing, levels.base)
