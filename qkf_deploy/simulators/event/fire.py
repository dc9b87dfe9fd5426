"""The canonical neuron on 32 channels at once.

U = ((M * m) >> k) + (X << f);  S = U >= theta;  M = 0 (hard) or U - theta (soft) where S, else U
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import overload

from qkf_deploy.simulators.event import vector_ir as v

#: Entries of the int64 array that describes a neuron to a kernel: m, k, f, 1 for soft reset.
MULTIPLIER, SHIFT, FRACTION, SOFT = range(4)


def fire_vectors(
    b: v.Builder, drives: list[v.Value], m: v.Value, theta: v.Value, form: v.Value, spikes: v.Value
) -> v.Value:
    """Write the code of one step of neurons with multiplier 1 and no fraction bits, in the width of the drives.

    Args:
        b: builder.
        drives: an even number of vectors of s16 or s32.
        m, theta: addresses of the same; form: address of 4 x s64; spikes: address of u32.

    Returns:
        Number of non-zero drives, 64-bit.
    """
    kind = drives[0].type
    lanes, bits = kind.count, kind.element.width

    def parameter(index: int) -> v.Value:
        return v.splat(b, b.trunc(v.load(b, b.add(form, v.const(8 * index)), v.I64), kind.element), lanes)

    shift, soft = parameter(SHIFT), b.neg(parameter(SOFT))
    driven = v.const(0)
    fired_halves, driven_halves = [], []
    for i, drive in enumerate(drives):
        offset = v.const(bits // 8 * lanes * i)
        state, threshold = (v.load(b, b.add(address, offset), kind) for address in (m, theta))
        u = b.add(b.ashr(state, shift), drive)
        fired = b.icmp_signed(">=", u, threshold)
        v.store(b, b.select(fired, b.and_(b.sub(u, threshold), soft), u), b.add(m, offset))
        fired_halves.append(fired)
        driven_halves.append(b.icmp_signed("!=", drive, ir.Constant(kind, None)))
    word = v.int_of(2 * lanes)
    both = list(range(2 * lanes))
    for part in range(len(drives) // 2):
        flags = v.shuffle(b, fired_halves[2 * part], fired_halves[2 * part + 1], both)
        v.store(b, b.bitcast(flags, word), b.add(spikes, v.const(lanes // 4 * part)))
        flags = v.shuffle(b, driven_halves[2 * part], driven_halves[2 * part + 1], both)
        count_bits = v.population(b, b.bitcast(flags, word))
        driven = b.add(driven, count_bits if word.width == 64 else b.zext(count_bits, v.I64))
    return driven


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
        kind = v.vec(v.I32, 32)

        def parameter(index: int) -> v.Value:
            return v.splat(b, b.trunc(v.load(b, b.add(form, v.const(8 * index)), v.I64), v.I32), 32)

        drive, state, threshold = v.load(b, x, kind), v.load(b, m, kind), v.load(b, theta, kind)
        if multiply.literal_value:
            state = b.mul(state, parameter(MULTIPLIER))
        u = b.add(b.ashr(state, parameter(SHIFT)), b.shl(drive, parameter(FRACTION)))
        fired = b.icmp_signed(">=", u, threshold)
        soft = b.and_(b.sub(u, threshold), b.neg(parameter(SOFT)))
        v.store(b, b.select(fired, soft, u), m)
        v.store(b, b.bitcast(fired, v.I32), spikes)
        if keep.literal_value:
            v.store(b, u, u_out)
        driven = b.bitcast(b.icmp_signed("!=", drive, ir.Constant(kind, None)), v.I32)
        return b.zext(v.population(b, driven), v.I64)

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


@v.intrinsic
def _fire16(typingctx: Any, x: Any, m: Any, theta: Any, form: Any, spikes: Any) -> Any:
    """One step of 32 neurons in 16 bits; arguments are addresses. Returns the number of non-zero drives."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        half = v.vec(v.I16, 16)
        drives = [v.load(b, b.add(args[0], v.const(32 * i)), half) for i in range(2)]
        return fire_vectors(b, drives, *args[1:])

    return types.int64(*[types.int64] * 5), generate


def fire16(x: np.ndarray, m: np.ndarray, theta: np.ndarray, form: np.ndarray, spikes: np.ndarray, row: int) -> int:
    """One time step in 16 bits, for all words of a row: multiplier 1, no fraction bits, membranes proven to fit.

    Args:
        x: drive; m: state, updated; theta: thresholds; all s16, 32 per word.
        form: as for :func:`fire`.
        spikes: u32 ``(rows, words)``.

    Returns:
        Number of non-zero drives.
    """
    raise NotImplementedError("compiled code only")


@overload(fire16, strict=False, jit_options=v.BORROW)
def _overload_fire16(x: Any, m: Any, theta: Any, form: Any, spikes: Any, row: Any) -> Any:
    if x.dtype != types.int16:  # wider drives never get here
        return lambda x, m, theta, form, spikes, row: np.int64(0)

    def vectorized(x, m, theta, form, spikes, row):  # type: ignore[no-untyped-def]
        xa, ma, ta, fa = v.address(x), v.address(m), v.address(theta), v.address(form)
        sa = v.address(spikes) + 4 * row * spikes.shape[1]
        driven = np.int64(0)
        for i in range(spikes.shape[1]):
            driven += _fire16(xa + 64 * i, ma + 64 * i, ta + 64 * i, fa, sa + 4 * i)
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
