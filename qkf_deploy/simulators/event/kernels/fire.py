"""The canonical neuron on 32 channels at once, in 32 bits (in 16: :mod:`qkf_deploy.simulators.event.kernels.fire16`).

U = ((M * m) >> k) + (X << f);  S = U >= theta;  M = 0 (hard) or U - theta (soft) where S, else U
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import overload

from qkf_deploy.simulators.event.kernels import vector_ir as v

#: Entries of the int64 array that describes a neuron to a kernel: m, k, f, 1 for soft reset.
MULTIPLIER, SHIFT, FRACTION, SOFT = range(4)
#: Added to a count of non-zero drives where 16 bits were not enough: what was computed must be computed again.
SPOILT = 2**40


class _Neuron32:
    """Writes the code of 32 canonical neurons in 32 bits.

    Args:
        b: builder.
        form: address of 4 x s64 (see above).
        multiply: the multiplier is not 1.
    """

    def __init__(self, b: v.Builder, form: v.Value, *, multiply: bool) -> None:
        self.b, self.kind, self.multiply = b, v.vec(v.I32, 32), multiply
        words = (b.trunc(v.load(b, b.add(form, v.const(8 * i)), v.I64), v.I32) for i in range(4))
        self.form = [v.splat(b, word, 32) for word in words]

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


@v.intrinsic(prefer_literal=True)
def fire32(
    typingctx: Any, multiply: Any, keep: Any, x: Any, m: Any, theta: Any, form: Any, spikes: Any, u_out: Any
) -> Any:
    """One step of 32 neurons; arguments but the two literal flags are addresses. Returns the number of non-zero drives.

    ``x``, ``m``, ``theta``: 32 x s32; ``form``: 4 x s64 (see above); ``spikes``: u32; ``u_out``: 32 x s32, if ``keep``.
    """
    signature = types.int64(multiply, keep, *[types.int64] * 6)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        _, _, x, m, theta, form, spikes, u_out = args
        neuron = _Neuron32(b, form, multiply=bool(multiply.literal_value))
        drive, state, threshold = (v.load(b, at, neuron.kind) for at in (x, m, theta))
        u, fired = neuron.step(state, neuron.charge(drive), threshold)
        v.store(b, neuron.after(u, fired, threshold), m)
        v.store(b, b.bitcast(fired, v.I32), spikes)
        if keep.literal_value:
            v.store(b, u, u_out)
        return neuron.driven(drive)

    return signature, generate


def fire(
    isa: Any,
    x: np.ndarray,
    x0: int,
    m: np.ndarray,
    m0: int,
    theta: np.ndarray,
    th0: int,
    form: np.ndarray,
    units: int,
    spikes: np.ndarray,
    row: int,
    word: int,
) -> int:
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
    raise NotImplementedError("compiled code only")


@overload(fire, strict=False, jit_options=v.BORROW)
def _overload_fire(
    isa: Any,
    x: Any,
    x0: Any,
    m: Any,
    m0: Any,
    theta: Any,
    th0: Any,
    form: Any,
    units: Any,
    spikes: Any,
    row: Any,
    word: Any,
) -> Any:
    if isa == v.PLAIN:
        return _fire_plain

    def vectorized(isa, x, x0, m, m0, theta, th0, form, units, spikes, row, word):  # type: ignore[no-untyped-def]
        xa, ma, ta = v.address(x) + 4 * x0, v.address(m) + 4 * m0, v.address(theta) + 4 * th0
        fa, sa = v.address(form), v.address(spikes) + 4 * (row * spikes.shape[1] + word)
        driven = np.int64(0)
        if form[0] == 1:
            for i in range(units):
                driven += fire32(0, 0, xa + 128 * i, ma + 128 * i, ta + 128 * i, fa, sa + 4 * i, 0)
        else:
            for i in range(units):
                driven += fire32(1, 0, xa + 128 * i, ma + 128 * i, ta + 128 * i, fa, sa + 4 * i, 0)
        return driven

    return vectorized


def _fire_plain(isa, x, x0, m, m0, theta, th0, form, units, spikes, row, word):  # type: ignore[no-untyped-def]
    driven = np.int64(0)
    for i in range(units):
        bits = np.uint32(0)
        for j in range(32):
            c = 32 * i + j
            drive = np.int64(x[x0 + c])
            u = ((np.int64(m[m0 + c]) * form[0]) >> form[1]) + (drive << form[2])
            threshold = np.int64(theta[th0 + c])
            if u >= threshold:
                bits |= np.uint32(1) << np.uint32(j)
                m[m0 + c] = u - threshold if form[3] else 0
            else:
                m[m0 + c] = u
            if drive != 0:
                driven += 1
        spikes[row, word + i] = bits
    return driven


@v.intrinsic(prefer_literal=True)
def _fire32_constant(
    typingctx: Any, multiply: Any, x: Any, theta: Any, form: Any, spikes: Any, stride: Any, steps: Any
) -> Any:
    """All steps of 32 neurons that meet the same drive at each; arguments but the literal flag as for :func:`fire32`.

    ``stride``: bytes between the spikes of two steps. Returns the number of non-zero drives over all steps.
    """

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        _, x, theta, form, spikes, stride, steps = args
        neuron = _Neuron32(b, form, multiply=bool(multiply.literal_value))
        drive, threshold = v.load(b, x, neuron.kind), v.load(b, theta, neuron.kind)
        charge = neuron.charge(drive)
        (state,) = v.accumulators(b, [neuron.kind])
        with v.counted_loop(b, steps) as t:
            u, fired = neuron.step(b.load(state), charge, threshold)
            b.store(neuron.after(u, fired, threshold), state)
            v.store(b, b.bitcast(fired, v.I32), b.add(spikes, b.mul(t, stride)))
        return b.mul(neuron.driven(drive), steps)

    return types.int64(multiply, *[types.int64] * 6), generate


def fire_constant(
    isa: Any, x: np.ndarray, m: np.ndarray, theta: np.ndarray, form: np.ndarray, spikes: np.ndarray, row: int,
    steps: int,
) -> int:  # fmt: skip
    """All time steps of the neurons of a row of spikes that meet the same drive at each, from the state 0 on.

    Args:
        isa: instruction set tag.
        x: drive; m: scratch; theta: s32, 32 per word of spikes.
        form: as for :func:`fire`.
        spikes: u32 ``(rows, words)``; the rows ``row .. row + steps`` are written.

    Returns:
        Number of non-zero drives over all steps.
    """
    raise NotImplementedError("compiled code only")


@overload(fire_constant, strict=False, jit_options=v.BORROW)
def _overload_fire_constant(isa: Any, x: Any, m: Any, theta: Any, form: Any, spikes: Any, row: Any, steps: Any) -> Any:
    if isa == v.PLAIN:

        def plain(isa, x, m, theta, form, spikes, row, steps):  # type: ignore[no-untyped-def]
            m[:] = 0
            driven = np.int64(0)
            for t in range(steps):
                driven += fire(isa, x, 0, m, 0, theta, 0, form, spikes.shape[1], spikes, row + t, 0)
            return driven

        return plain

    def vectorized(isa, x, m, theta, form, spikes, row, steps):  # type: ignore[no-untyped-def]
        xa, ta, fa, words = v.address(x), v.address(theta), v.address(form), spikes.shape[1]
        sa = v.address(spikes) + 4 * row * words
        driven = np.int64(0)
        for i in range(words):
            o = 128 * i
            if form[0] == 1:
                driven += _fire32_constant(0, xa + o, ta + o, fa, sa + 4 * i, 4 * words, steps)
            else:
                driven += _fire32_constant(1, xa + o, ta + o, fa, sa + 4 * i, 4 * words, steps)
        return driven

    return vectorized


def fire_keeping(
    isa: Any,
    x: np.ndarray,
    x0: int,
    m: np.ndarray,
    m0: int,
    theta: np.ndarray,
    th0: int,
    form: np.ndarray,
    units: int,
    spikes: np.ndarray,
    row: int,
    word: int,
    u_out: np.ndarray,
) -> int:
    """:func:`fire`, storing the charged membranes U in ``u_out[row, 32 * word:]`` (s32 ``(rows, columns)``)."""
    raise NotImplementedError("compiled code only")


@overload(fire_keeping, strict=False, jit_options=v.BORROW)
def _overload_fire_keeping(
    isa: Any,
    x: Any,
    x0: Any,
    m: Any,
    m0: Any,
    theta: Any,
    th0: Any,
    form: Any,
    units: Any,
    spikes: Any,
    row: Any,
    word: Any,
    u_out: Any,
) -> Any:
    if isa == v.PLAIN:

        def plain(isa, x, x0, m, m0, theta, th0, form, units, spikes, row, word, u_out):  # type: ignore[no-untyped-def]
            for c in range(32 * units):
                u_out[row, 32 * word + c] = ((np.int64(m[m0 + c]) * form[0]) >> form[1]) + (
                    np.int64(x[x0 + c]) << form[2]
                )
            return fire(isa, x, x0, m, m0, theta, th0, form, units, spikes, row, word)

        return plain

    def vectorized(isa, x, x0, m, m0, theta, th0, form, units, spikes, row, word, u_out):  # type: ignore[no-untyped-def]
        xa, ma, ta = v.address(x) + 4 * x0, v.address(m) + 4 * m0, v.address(theta) + 4 * th0
        fa, sa = v.address(form), v.address(spikes) + 4 * (row * spikes.shape[1] + word)
        ua = v.address(u_out) + 4 * (row * u_out.shape[1] + 32 * word)
        driven = np.int64(0)
        for i in range(units):
            driven += fire32(1, 1, xa + 128 * i, ma + 128 * i, ta + 128 * i, fa, sa + 4 * i, ua + 128 * i)
        return driven

    return vectorized
