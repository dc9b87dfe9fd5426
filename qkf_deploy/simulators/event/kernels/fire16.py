"""The canonical neuron of :mod:`~qkf_deploy.simulators.event.kernels.fire` in 16 bits: multiplier 1, no fraction."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from qkf_deploy.simulators.event.kernels import vector_ir as v
from qkf_deploy.simulators.event.kernels.compiled_only import Address, Int, by_type, emitted
from qkf_deploy.simulators.event.kernels.fire import SHIFT, SOFT, SPOILT


class NeuronWriter:
    """Writes the code of one step of 16-bit neurons with multiplier 1 and no fraction bits.

    Registers: for each vector of drives, its states, thresholds and charged membranes, and, where a charge may not fit,
    the lowest state so far. Two vectors of bits that say which fire become one word.

    Charges are added with saturation. A charge that would pass the highest value reaches every threshold, and a hard
    reset forgets it; one that would pass the lowest is wrong, and stays behind as the state.

    Args:
        b: builder.
        kinds: vectors of s16 that hold the neurons, an even number; each two neighbours alike.
        states, thresholds, spikes: addresses of s16, s16 and u32; form: address of 4 x s64.
    """

    def __init__(
        self, b: v.Builder, kinds: list[Any], states: v.Value, thresholds: v.Value, form: v.Value, spikes: v.Value
    ) -> None:
        self.b, self.kinds, self.states, self.thresholds, self.spikes = b, kinds, states, thresholds, spikes
        self.shift = b.trunc(v.load(b, b.add(form, v.const(v.BYTES_64 * SHIFT)), v.I64), v.I16)

    def fire(self, drives: list[v.Value], *, soft: bool) -> list[v.Value]:
        """One step, with soft or hard reset; returns the states that are left."""
        b = self.b
        states, thresholds = (v.load_each(b, at, self.kinds) for at in (self.states, self.thresholds))
        fired, after = [], []
        for state, threshold, drive in zip(states, thresholds, drives, strict=True):
            u = v.add_saturated(b, b.ashr(state, v.splat(b, self.shift, drive.type.count)), drive)
            fires = b.icmp_signed(">=", u, threshold)
            left = b.sub(u, threshold) if soft else ir.Constant(drive.type, None)
            fired.append(fires)
            after.append(b.select(fires, left, u))
        v.store_each(b, after, self.states)
        at = 0
        for i in range(0, len(fired), 2):
            word = _word(b, *fired[i : i + 2])
            v.store(b, word, b.add(self.spikes, v.const(at)))
            at += word.type.width // 8
        return after


def _any_lowest(b: v.Builder, states: list[v.Value]) -> v.Value:
    """1 if any state is at the lowest value, and so may be wrong, else 0."""
    found = v.const(0)
    for lowest in v.reduced(b, v.smallest, states):
        extreme = ir.Constant(lowest.type, [-(2**15)] * lowest.type.count)
        found = b.or_(found, v.any_of(b, b.icmp_signed("==", lowest, extreme)))
    return found


def _word(b: v.Builder, first: v.Value, second: v.Value) -> v.Value:
    """Two vectors of bits as one integer."""
    lanes = 2 * first.type.count
    return b.bitcast(v.shuffle(b, first, second, list(range(lanes))), v.int_of(lanes))


def _count_driven(b: v.Builder, drives: list[v.Value]) -> v.Value:
    """Number of non-zero elements, 64-bit."""
    total = v.const(0)
    for i in range(0, len(drives), 2):
        driven = (b.icmp_signed("!=", drive, ir.Constant(drive.type, None)) for drive in drives[i : i + 2])
        count = v.population(b, _word(b, *driven))
        total = b.add(total, count if count.type.width == 64 else b.zext(count, v.I64))
    return total


def write_neurons(
    b: v.Builder, drives: list[v.Value], states: v.Value, thresholds: v.Value, form: v.Value, spikes: v.Value, *,
    tried: bool,
) -> v.Value:  # fmt: skip
    """Write the code of :class:`NeuronWriter` for either reset.

    Args:
        b: builder.
        drives: vectors of s16, an even number; each two neighbours alike.
        states, thresholds, form, spikes: see :class:`NeuronWriter`.
        tried: charges may not fit; only with hard reset.

    Returns:
        Number of non-zero drives, 64-bit; plus :data:`SPOILT` if a charge did not fit.
    """
    neurons = NeuronWriter(b, [drive.type for drive in drives], states, thresholds, form, spikes)
    # Counted before the branch: within, the compiler would keep all comparisons in memory until it knows the reset.
    driven = _count_driven(b, drives)
    is_soft = b.icmp_signed("!=", v.load(b, b.add(form, v.const(v.BYTES_64 * SOFT)), v.I64), v.const(0))
    (spoilt,) = v.accumulators(b, [v.I64])
    with b.if_else(is_soft) as branches:
        for branch, soft in zip(branches, (True, False), strict=True):
            with branch:
                left = neurons.fire(drives, soft=soft)
                if tried:
                    b.store(_any_lowest(b, left), spoilt)
    return b.add(driven, b.mul(b.load(spoilt), v.const(SPOILT)))


@emitted
def _fire16(b: v.Builder, drives: Address, states: Address, thresholds: Address, form: Address, spikes: Address) -> Int:
    """One step of 32 neurons in 16 bits. Returns what :func:`fire16` does."""
    halves = [v.vec(v.I16, v.WORD // 2)] * 2
    return write_neurons(b, v.load_each(b, drives, halves), states, thresholds, form, spikes, tried=True)


@by_type()
def fire16(x: Any, m: Any, theta: Any, form: Any, spikes: Any, row: Any) -> Any:
    """One time step in 16 bits, for all words of a row: multiplier 1, no fraction bits, hard reset.

    Args:
        x: drive; m: state, updated; theta: thresholds; all s16, 32 per word.
        form: as for :func:`fire`.
        spikes: u32 ``(rows, words)``.

    Returns:
        Number of non-zero drives; at least :data:`SPOILT` if a membrane does not fit.
    """
    if x.dtype != types.int16:  # wider drives never get here
        return lambda x, m, theta, form, spikes, row: np.int64(0)

    def vectorized(x, m, theta, form, spikes, row):  # type: ignore[no-untyped-def]
        drives, states, thresholds, entries = v.address(x), v.address(m), v.address(theta), v.address(form)
        words = v.address(spikes) + v.BYTES_32 * row * spikes.shape[1]
        driven = np.int64(0)
        for i in range(spikes.shape[1]):
            at = v.WORD_16 * i
            driven += _fire16(drives + at, states + at, thresholds + at, entries, words + v.BYTES_32 * i)
        return driven

    return vectorized
