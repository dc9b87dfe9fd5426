"""NIR's neurons to ours, as the tool that wrote the file runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qkf_deploy.converters.nir.dialects import CLOSE
from qkf_deploy.converters.nir.parameters import array, reduced, spread
from qkf_deploy.converters.nir.raising import Raise, Raising
from qkf_deploy.converters.nir.safety import RawNode
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Operand
from qkf_deploy.ops import Neuron


@dataclass
class _Cell:
    """A neuron on its way: arrays of the value's shape.

    Attributes:
        threshold, reset: voltages; the reset is 0 where the reset is soft.
        tau: steps, ``None`` for IF.
        factor: of the input; divided by tau too where ``decays``.
        shift: what is added to the input, in the same unit.
        initial: membrane at the start, from the reset voltage.
        decays: the input is divided by tau.
    """

    threshold: np.ndarray
    reset: np.ndarray
    factor: np.ndarray
    shift: np.ndarray
    initial: np.ndarray
    tau: np.ndarray | None = None
    decays: bool = False
    floor: np.ndarray | None = None


def _if(r: Raising, name: str, node: RawNode) -> Operand:
    value = r.operand(name)
    shape = r.shape(value)
    gain = spread(array(node, "r", name), shape, name) * r.dt if r.dialect.gain == "file" else np.ones(shape)
    cell = _cell(r, node, shape, name)
    cell.factor = _settled(gain)
    if r.dialect.floor:
        cell.floor = -cell.threshold
    return _neuron(r, name, value, cell)


def _lif(r: Raising, name: str, node: RawNode) -> Operand:
    return _leaky(r, name, node, "tau", 1.0)


def _cuba_lif(r: Raising, name: str, node: RawNode) -> Operand:
    synaptic = array(node, "tau_syn", name) / r.dt
    if (np.abs(synaptic - 1.0) > CLOSE).any():
        raise UnsupportedError(
            f"a synaptic current with memory (tau_syn is {float(synaptic.max()):.6g} steps, only 1 has a meaning here)"
        )
    weight = array(node, "w_in", name) if "w_in" in node.params else 1.0
    return _leaky(r, name, node, "tau_mem", weight)


def _leaky(r: Raising, name: str, node: RawNode, time_constant: str, weight: np.ndarray | float) -> Operand:
    """tau dv/dt = (v_leak - v) + r x, one step at a time: decaying input for r = 1, undecayed for r = tau / dt."""
    value = r.operand(name)
    shape = r.shape(value)
    cell = _cell(r, node, shape, name)
    cell.tau = _steps(r, spread(array(node, time_constant, name), shape, name))
    resistance = spread(array(node, "r", name) * np.asarray(weight), shape, name)
    gains = {"file": resistance, "leak": np.ones(shape), "one": cell.tau}
    cell.factor = gains[r.dialect.gain]
    leak = spread(array(node, "v_leak", name), shape, name) if "v_leak" in node.params else np.zeros(shape)
    cell.shift = cell.shift + leak - cell.reset
    if r.dialect.from_leak:
        cell.initial = cell.initial + leak - cell.reset
    elif cell.shift.any():
        r.notices.append(f"{name}: leaks towards another voltage than it is reset to; it starts at the reset voltage")
    if r.dialect.reset == "subtract-next":
        _subtract_next(cell, cell.tau)
    cell.decays = bool((np.abs(cell.factor / cell.tau - 1.0) > CLOSE).any())
    if not cell.decays:
        cell.factor, cell.shift = np.ones(shape), cell.shift / cell.tau
    cell.factor = _settled(cell.factor)
    return _neuron(r, name, value, cell)


def _steps(r: Raising, tau: np.ndarray) -> np.ndarray:
    """Time constants in steps, such that a membrane keeps 1 - 1 / tau per step."""
    if r.dialect.exponential:
        if not (tau > 0).all():
            raise UnsupportedError(f"a time constant of {tau.min():.6g} s")
        return -1.0 / np.expm1(-r.dt / tau)
    steps = tau / r.dt
    if not (steps > 1.0).all():
        raise UnsupportedError(f"a time constant of {steps.min():.6g} steps; above 1 is needed", hint="is --dt right?")
    whole = np.rint(steps)
    return np.where(np.abs(steps - whole) < CLOSE * steps, whole, steps)


def _subtract_next(cell: _Cell, tau: np.ndarray) -> None:
    """Lose threshold / decay instead of the threshold: the same spikes with membrane and threshold raised by m.

    With decay b = 1 - 1/tau and m = threshold (1 - b) / b: U + m = b (M + m) + x + (1 - b) m, which fires at
    threshold + m = threshold / b, and that is what a plain subtraction takes away.
    """
    raised = cell.threshold / (tau - 1.0)
    cell.threshold = cell.threshold + raised
    cell.shift = cell.shift + raised
    cell.initial = cell.initial + raised


def _cell(r: Raising, node: RawNode, shape: tuple[int, ...], where: str) -> _Cell:
    """Threshold and reset.

    A network here fires at V_th; where the tool fires above it, V_th becomes the next number of the file's own type, or
    of float64 where the threshold is subtracted too.
    """
    soft = r.dialect.reset != "hard"
    stored = array(node, "v_threshold", where)
    if r.dialect.fires == "above":
        kind = stored.dtype if stored.dtype.kind == "f" and not soft else np.dtype(np.float64)
        stored = np.nextafter(stored.astype(kind), np.array(np.inf, kind))
    threshold = spread(stored, shape, where)
    reset = spread(array(node, "v_reset", where), shape, where) if "v_reset" in node.params else np.zeros(shape)
    if soft and reset.any():
        r.notices.append(f"{where}: the file's v_reset is not used; the threshold is subtracted")
    reset = np.zeros(shape) if soft else reset
    if not (threshold > reset).all():
        raise UnsupportedError("a threshold that is not above the reset voltage")
    return _Cell(threshold, reset, np.ones(shape), np.zeros(shape), np.zeros(shape))


def _settled(factor: np.ndarray) -> np.ndarray:
    """Input gains, those within rounding of 1 as 1."""
    if not (np.isfinite(factor).all() and factor.all()):
        raise UnsupportedError("an input gain of 0, or one that is not finite")
    return np.where(np.abs(factor - 1.0) <= CLOSE, 1.0, factor)


def _neuron(r: Raising, name: str, value: Operand, cell: _Cell) -> Operand:
    soft, params = r.dialect.reset != "hard", {}

    def level(key: str, values: np.ndarray) -> float:
        few = reduced(values)
        if isinstance(few, np.ndarray):
            params[key] = few
        return float(np.max(few))

    if cell.initial.any():
        params["initial"] = np.asarray(reduced(cell.initial))
    op = Neuron(
        tau=None if cell.tau is None else level("tau", cell.tau),
        v_threshold=level("v_threshold", cell.threshold),
        v_reset=None if soft else level("v_reset", cell.reset),
        decay_input=cell.decays if cell.tau is not None else True,
        max_spikes=None if r.dialect.several else 1,
        v_min=None if cell.floor is None else level("v_min", cell.floor),
    )
    drive = r.affine(f"{name}.gain", value, cell.factor, cell.shift, name)
    return r.add(name, op, drive, **params)


def _threshold(r: Raising, name: str, node: RawNode) -> Operand:
    value = r.operand(name)
    level = array(node, "threshold", name)
    if not (r.builder.nodes[value.node].type.is_events and ((level >= 0) & (level < 1)).all()):
        raise UnsupportedError("a threshold without memory; only an OR of spikes has a neuron here that does the same")
    return r.add(name, Neuron(None, 1.0, 0.0), value)


def _no_spikes(r: Raising, name: str, node: RawNode) -> Operand:
    raise UnsupportedError("an integrator that never fires")


#: What each NIR neuron becomes.
SPIKING: Mapping[str, Raise] = {
    "Threshold": _threshold,
    "IF": _if,
    "LIF": _lif,
    "CubaLIF": _cuba_lif,
    "I": _no_spikes,
    "LI": _no_spikes,
    "CubaLI": _no_spikes,
}
