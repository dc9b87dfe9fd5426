"""The canonical neuron on 32 channels at once, in 32 bits (in 16: :mod:`qkf_deploy.simulators.event.kernels.fire16`).

U = ((M * m) >> k) + (X << f);  S = U >= theta;  M = 0 (hard) or U - theta (soft) where S, else U
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from qkf_deploy.simulators.event.kernels import vector_ir as v
from qkf_deploy.simulators.event.kernels.compiled_only import Address, Int, Literal, by_type, emitted

#: Entries of the int64 array that describes a neuron to a kernel: m, k, f, 1 for soft reset.
MULTIPLIER, SHIFT, FRACTION, SOFT = range(4)
#: Added to a count of non-zero drives where 16 bits were not enough: what was computed must be computed again.
SPOILT = 2**40


class _Neuron32:
    """Writes the code of 32 canonical neurons in 32 bits.

    Registers, each 32 values wide: m, k, f and the soft mask, the same for all neurons; the drive, the state that
    becomes U, and the threshold. The comparisons are a vector of bits: select the state, and are stored as a word.

    Args:
        b: builder.
        form: address of 4 x s64 (see above).
        multiply: the multiplier is not 1.
    """

    def __init__(self, b: v.Builder, form: v.Value, *, multiply: bool) -> None:
        self.b, self.kind, self.multiply = b, v.vec(v.I32, v.WORD), multiply
        entries = (v.load(b, b.add(form, v.const(v.BYTES_64 * i)), v.I64) for i in range(4))
        self.form = [v.splat(b, b.trunc(entry, v.I32), v.WORD) for entry in entries]

    def charge(self, drive: v.Value) -> v.Value:
        """What a drive adds to the membrane."""
        return self.b.shl(drive, self.form[FRACTION])

    def step(self, state: v.Value, charge: v.Value, threshold: v.Value) -> tuple[v.Value, v.Value]:
        """(charged membranes, which fire)."""
        b = self.b
        state = b.mul(state, self.form[MULTIPLIER]) if self.multiply else state
        u = b.add(b.ashr(state, self.form[SHIFT]), charge)
        return u, b.icmp_signed(">=", u, threshold)

    def after(self, u: v.Value, fired: v.Value, threshold: v.Value) -> v.Value:
        """The states that firing leaves."""
        b = self.b
        return b.select(fired, b.and_(b.sub(u, threshold), b.neg(self.form[SOFT])), u)

    def driven(self, drive: v.Value) -> v.Value:
        """Number of non-zero drives, 64-bit."""
        bits = self.b.bitcast(self.b.icmp_signed("!=", drive, ir.Constant(self.kind, None)), v.I32)
        return self.b.zext(v.population(self.b, bits), v.I64)


@emitted
def fire32(
    b: v.Builder, multiply: Literal, keep: Literal, drives: Address, states: Address, thresholds: Address,
    form: Address, spikes: Address, charged: Address,
) -> Int:  # fmt: skip
    """One step of 32 neurons; returns the number of non-zero drives.

    Args:
        multiply: 1 if the multiplier may be other than 1.
        keep: 1 to store the charged membranes.
        drives, thresholds: 32 x s32; states: the same, updated.
        form: 4 x s64 (see above).
        spikes: u32, written; charged: 32 x s32, written if ``keep``.
    """
    neuron = _Neuron32(b, form, multiply=bool(multiply))
    drive, state, threshold = (v.load(b, at, neuron.kind) for at in (drives, states, thresholds))
    u, fired = neuron.step(state, neuron.charge(drive), threshold)
    v.store(b, neuron.after(u, fired, threshold), states)
    v.store(b, b.bitcast(fired, v.I32), spikes)
    if keep:
        v.store(b, u, charged)
    return neuron.driven(drive)


@by_type()
def fire(
    isa: Any, x: Any, x0: Any, m: Any, m0: Any, theta: Any, th0: Any, form: Any, units: Any, spikes: Any, row: Any,
    word: Any,
) -> Any:  # fmt: skip
    """One time step of ``32 * units`` neurons.

    Args:
        isa: instruction set tag.
        x: drive, s32 flat, from ``x0``. ``m``: state M, s32 flat, from ``m0``, updated. ``theta``: s32 flat, from
            ``th0``.
        form: int64 ``(4,)``: multiplier, shift, fraction bits, soft reset.
        units: neurons / 32.
        spikes: u32 ``(rows, words)``; ``spikes[row, word:]`` is written.

    Returns:
        Number of non-zero drives.
    """
    if isa == v.PLAIN:
        return _fire_plain

    def vectorized(isa, x, x0, m, m0, theta, th0, form, units, spikes, row, word):  # type: ignore[no-untyped-def]
        drives, states = v.address(x) + v.BYTES_32 * x0, v.address(m) + v.BYTES_32 * m0
        thresholds, entries = v.address(theta) + v.BYTES_32 * th0, v.address(form)
        words = v.address(spikes) + v.BYTES_32 * (row * spikes.shape[1] + word)
        driven = np.int64(0)
        if form[MULTIPLIER] == 1:
            for i in range(units):
                at, spike_word = v.WORD_32 * i, words + v.BYTES_32 * i
                driven += fire32(0, 0, drives + at, states + at, thresholds + at, entries, spike_word, 0)
        else:
            for i in range(units):
                at, spike_word = v.WORD_32 * i, words + v.BYTES_32 * i
                driven += fire32(1, 0, drives + at, states + at, thresholds + at, entries, spike_word, 0)
        return driven

    return vectorized


def _fire_plain(isa, x, x0, m, m0, theta, th0, form, units, spikes, row, word):  # type: ignore[no-untyped-def]
    driven = np.int64(0)
    for i in range(units):
        bits = np.uint32(0)
        for j in range(32):
            c = 32 * i + j
            drive = np.int64(x[x0 + c])
            u = ((np.int64(m[m0 + c]) * form[MULTIPLIER]) >> form[SHIFT]) + (drive << form[FRACTION])
            threshold = np.int64(theta[th0 + c])
            if u >= threshold:
                bits |= np.uint32(1) << np.uint32(j)
                m[m0 + c] = u - threshold if form[SOFT] else 0
            else:
                m[m0 + c] = u
            if drive != 0:
                driven += 1
        spikes[row, word + i] = bits
    return driven


@emitted
def _fire32_constant(
    b: v.Builder, multiply: Literal, drives: Address, thresholds: Address, form: Address, spikes: Address, stride: Int,
    steps: Int,
) -> Int:  # fmt: skip
    """All steps of 32 neurons that meet the same drive at each, from the state 0 on; arguments as for :func:`fire32`.

    ``stride``: bytes between the spikes of two steps. Returns the number of non-zero drives over all steps.
    """
    neuron = _Neuron32(b, form, multiply=bool(multiply))
    drive, threshold = v.load(b, drives, neuron.kind), v.load(b, thresholds, neuron.kind)
    charge = neuron.charge(drive)
    (state,) = v.accumulators(b, [neuron.kind])
    with v.counted_loop(b, steps) as t:
        u, fired = neuron.step(b.load(state), charge, threshold)
        b.store(neuron.after(u, fired, threshold), state)
        v.store(b, b.bitcast(fired, v.I32), b.add(spikes, b.mul(t, stride)))
    return b.mul(neuron.driven(drive), steps)


@by_type()
def fire_constant(isa: Any, x: Any, m: Any, theta: Any, form: Any, spikes: Any, row: Any, steps: Any) -> Any:
    """All time steps of the neurons of a row of spikes that meet the same drive at each, from the state 0 on.

    Args:
        isa: instruction set tag.
        x: drive; m: scratch; theta: s32, 32 per word of spikes.
        form: as for :func:`fire`.
        spikes: u32 ``(rows, words)``; the rows ``row .. row + steps`` are written.

    Returns:
        Number of non-zero drives over all steps.
    """
    if isa == v.PLAIN:

        def plain(isa, x, m, theta, form, spikes, row, steps):  # type: ignore[no-untyped-def]
            m[:] = 0
            driven = np.int64(0)
            for t in range(steps):
                driven += fire(isa, x, 0, m, 0, theta, 0, form, spikes.shape[1], spikes, row + t, 0)
            return driven

        return plain

    def vectorized(isa, x, m, theta, form, spikes, row, steps):  # type: ignore[no-untyped-def]
        drives, thresholds, entries = v.address(x), v.address(theta), v.address(form)
        words, stride = v.address(spikes) + v.BYTES_32 * row * spikes.shape[1], v.BYTES_32 * spikes.shape[1]
        driven = np.int64(0)
        for i in range(spikes.shape[1]):
            at, spike_word = v.WORD_32 * i, words + v.BYTES_32 * i
            if form[MULTIPLIER] == 1:
                driven += _fire32_constant(0, drives + at, thresholds + at, entries, spike_word, stride, steps)
            else:
                driven += _fire32_constant(1, drives + at, thresholds + at, entries, spike_word, stride, steps)
        return driven

    return vectorized


@by_type()
def fire_keeping(
    isa: Any, x: Any, x0: Any, m: Any, m0: Any, theta: Any, th0: Any, form: Any, units: Any, spikes: Any, row: Any,
    word: Any, u_out: Any,
) -> Any:  # fmt: skip
    """:func:`fire`, storing the charged membranes U in ``u_out[row, 32 * word:]`` (s32 ``(rows, columns)``)."""
    if isa == v.PLAIN:

        def plain(isa, x, x0, m, m0, theta, th0, form, units, spikes, row, word, u_out):  # type: ignore[no-untyped-def]
            for c in range(32 * units):
                decayed = (np.int64(m[m0 + c]) * form[MULTIPLIER]) >> form[SHIFT]
                u_out[row, 32 * word + c] = decayed + (np.int64(x[x0 + c]) << form[FRACTION])
            return fire(isa, x, x0, m, m0, theta, th0, form, units, spikes, row, word)

        return plain

    def vectorized(isa, x, x0, m, m0, theta, th0, form, units, spikes, row, word, u_out):  # type: ignore[no-untyped-def]
        drives, states = v.address(x) + v.BYTES_32 * x0, v.address(m) + v.BYTES_32 * m0
        thresholds, entries = v.address(theta) + v.BYTES_32 * th0, v.address(form)
        words = v.address(spikes) + v.BYTES_32 * (row * spikes.shape[1] + word)
        charged = v.address(u_out) + v.BYTES_32 * (row * u_out.shape[1] + v.WORD * word)
        driven = np.int64(0)
        for i in range(units):
            at, spike_word = v.WORD_32 * i, words + v.BYTES_32 * i
            driven += fire32(1, 1, drives + at, states + at, thresholds + at, entries, spike_word, charged + at)
        return driven

    return vectorized
