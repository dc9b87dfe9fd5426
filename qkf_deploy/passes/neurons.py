"""A float neuron in the integers of its drive: thresholds, decays, initial membranes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qkf_deploy.errors import ProofError
from qkf_deploy.ir import Node, Params
from qkf_deploy.ops import IntegerNeuron, Neuron
from qkf_deploy.passes.decay import Decay, nearest
from qkf_deploy.passes.widths import UNREACHABLE

#: Fraction bits of neurons whose floor would change spikes: soft resets, several spikes per step, and decays other
#: than 1 and 1 / 2^k.
_FRACTION_BITS = 8
#: From this many units on, a threshold rounded up to the next unit is as good as the weights.
_FINE = 64


@dataclass(frozen=True)
class Quantized:
    """An integer neuron.

    Attributes:
        op, params: of its node.
        rounded: decays that are not dyadic, as they became.
    """

    op: IntegerNeuron
    params: Params
    rounded: tuple[Decay, ...]


def integer_neuron(node: Node, op: Neuron, scale: np.ndarray, fraction_bits: int | None, decay_bits: int) -> Quantized:
    """The integer form of a float neuron (docs/integer-semantics.md).

    Args:
        node, op: the neuron.
        scale: of its drive, broadcastable to its per-step shape.
        fraction_bits: extra membrane bits; ``None`` for 0 where flooring never changes a spike, else up to 8.
        decay_bits: largest k of m / 2^k for decays that are not dyadic.

    Raises:
        ProofError: an initial, lowest or stored membrane beyond 61 bits.
    """
    levels = op.levels(node.params)
    multiplier, shift, decays = _decay(levels.kept, decay_bits)
    given = fraction_bits
    if fraction_bits is None:
        fraction_bits = default_fraction_bits(node, op, decay_bits)
    gain = levels.tau if levels.tau is not None and op.decay_input else np.ones(())
    threshold = gain * (levels.v_threshold - levels.base) / scale
    if given is None and fraction_bits == 0 and any(d.shift for d in decays):
        fraction_bits = _bits_between(threshold)
    threshold = threshold * 2.0**fraction_bits
    # A strict neuron that forgets what it had fires from the next integer on; one that keeps the rest must say so.
    strict = op.strict and op.v_reset is None
    whole = _level(op, threshold) + (op.strict and not strict)
    theta = np.minimum(whole, UNREACHABLE).astype(np.int64)
    params = {"theta": theta}
    starts = {"initial": node.params.get("initial")}
    starts["lowest"] = None if levels.v_min is None else levels.v_min - levels.base
    for name, value in starts.items():
        if value is not None:
            params[name] = _beside(theta, threshold, value * gain * 2.0**fraction_bits / scale, node)
    if op.carry == "stored":
        left = node.params["leftover"] * gain * 2.0**fraction_bits / scale
        if op.graded or op.strict or op.reset_delay:
            params["leftover"] = np.rint(left).astype(np.int64)
        else:  # nothing but the spikes of this step depends on it
            kept = left if levels.kept is None else left * levels.kept
            params["leftover"] = _before_decay(_beside(theta, threshold, kept, node), multiplier, shift)
    if multiplier.size > 1:
        params["decay_multiplier"] = multiplier
    integer = IntegerNeuron(
        int(multiplier.max()), shift, fraction_bits, op.v_reset is None, op.carry, op.time_merged_with_batch,
        op.max_spikes, op.rounding, strict, op.reset_delay, op.signed,
    )  # fmt: skip
    return Quantized(integer, params, tuple(d for d in decays if not d.exact))


def smaller_by(op: Neuron, params: Params, gain: np.ndarray) -> tuple[Neuron, dict[str, np.ndarray]]:
    """A float neuron whose membrane is in units of ``gain``: what it fires at for a drive divided by it.

    Args:
        op, params: the neuron; its reset voltage is 0, or it subtracts.
        gain: positive, broadcastable to the per-step shape.
    """
    levels = op.levels(params)
    out = dict(params)
    out["v_threshold"] = levels.v_threshold / gain
    if levels.v_min is not None:
        out["v_min"] = levels.v_min / gain
    if "initial" in params:
        out["initial"] = params["initial"] / gain
    largest = {name: float(out[name].max()) for name in ("v_threshold", "v_min") if name in out}
    return replace(op, **largest), out  # type: ignore[arg-type]  # both are floats


def default_fraction_bits(node: Node, op: Neuron, decay_bits: int) -> int:
    """Extra membrane bits of a neuron where none are given: none where flooring never changes a spike.

    Floors do not nest below a threshold that must be passed: 8.5 passes 8, its floor does not.
    """
    one_spike = op.v_reset is not None and not op.graded
    decays = _decay(op.levels(node.params).kept, decay_bits)[2]
    whole = all(d.lossless_without_fraction and not (op.strict and d.floors) for d in decays)
    return 0 if one_spike and whole else _FRACTION_BITS


def _bits_between(threshold: np.ndarray) -> int:
    """Fraction bits that tell a leaking membrane below a coarse threshold, in units of the drive, from one above it.

    Floors nest only where the threshold is whole: a membrane of 3.5 units reaches 3.5, its floor does not reach 4.
    """
    if threshold.min() >= _FINE:
        return 0
    enough = (bits for bits in range(_FRACTION_BITS) if _near(threshold * 2.0**bits).all())
    return next(enough, _FRACTION_BITS)


def _near(x: np.ndarray) -> np.ndarray:
    """True where a quotient of floats is an integer up to the rounding of its operands, or never reached (infinite)."""
    finite = np.where(np.isfinite(x), x, 0.0)
    return np.asarray(np.abs(finite - np.rint(finite)) <= 8 * np.finfo(np.float64).eps * np.abs(finite))


def _level(op: Neuron, threshold: np.ndarray) -> np.ndarray:
    """The threshold in whole units: up to the next one, which a membrane reaches with it; down to the last one where
    it must be passed; the nearest where membranes are rounded to its multiples."""
    if op.strict:
        return -_ceil(-threshold)
    return _ceil(threshold) if op.rounding == "floor" else np.maximum(np.rint(threshold), 1.0)


def _ceil(x: np.ndarray) -> np.ndarray:
    """Ceiling; what is an integer up to rounding is that integer."""
    return np.where(_near(x), np.rint(x), np.ceil(x))


def _decay(kept: np.ndarray | None, decay_bits: int) -> tuple[np.ndarray, int, list[Decay]]:
    """(multipliers, the shift they share, every different decay); ``(m << j) >> (k + j)`` is ``m >> k``."""
    values, which = np.unique(np.ones(()) if kept is None else kept, return_inverse=True)
    decays = [nearest(float(value), decay_bits) for value in values]
    shift = max(d.shift for d in decays)
    multipliers = np.array([d.multiplier << (shift - d.shift) for d in decays], np.int64)
    return multipliers[which].reshape(np.shape(kept) if kept is not None else ()), shift, decays


def _before_decay(kept: np.ndarray, multiplier: np.ndarray, shift: int) -> np.ndarray:
    """The smallest M with (M m) >> k = ``kept``; 0 where m is 0, and nothing is kept."""
    m = np.broadcast_to(multiplier, kept.shape)
    # Python integers: kept << k need not fit 64 bits.
    wide = [-((-int(v) << shift) // int(n)) if n else 0 for v, n in zip(kept.flat, m.flat, strict=True)]
    return np.array(wide, np.int64).reshape(kept.shape)


def _beside(theta: np.ndarray, threshold: np.ndarray, value: np.ndarray, node: Node) -> np.ndarray:
    """The integer as far below Θ as the drive must be to bridge ``threshold - value``: Θ - ceil(threshold - value).

    A drive is whole, so with the membrane at ``value`` it fires exactly where it fires with the membrane here. Where
    the threshold is whole this is floor(value).
    """
    if not np.abs(value).max() < UNREACHABLE / 2:
        raise ProofError("an initial, lowest or stored membrane of more than 61 bits", where=node.name)
    reachable = threshold < UNREACHABLE / 2
    gap = _ceil(np.where(reachable, threshold - value, 0.0)).astype(np.int64)
    return np.where(reachable, theta - gap, np.floor(value).astype(np.int64))
