"""The canonical neuron on 32 channels at once.

U = ((M * m) >> k) + (X << f);  S = U >= theta;  M = 0 (hard) or U - theta (soft) where S, else U
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import overload

from qkf_deploy.simulators.event import vector_ir as v

#: Entries of the int64 array that describes a neuron to a kernel: m, k, f, 1 for soft reset.
MULTIPLIER, SHIFT, FRACTION, SOFT = range(4)
#: Added to a count of non-zero drives where 16 bits were not enough: what was computed must be computed again.
SPOILT = 2**40


class NeuronWriter:
    """Writes the code of one step of 16-bit neurons with multiplier 1 and no fraction bits.

    Charges are added with saturation. A charge that would pass the highest value reaches every threshold, and a hard
    reset forgets it; one that would pass the lowest is wrong, and stays behind as the state (see :meth:`spoilt`).

    Args:
        b: builder.
        kinds: vectors of s16 that hold the neurons, an even number; each two neighbours alike.
        m, theta: addresses of states and thresholds; form: address of 4 x s64; spikes: address of u32.
    """

    def __init__(
        self, b: v.Builder, kinds: list[Any], m: v.Value, theta: v.Value, form: v.Value, spikes: v.Value
    ) -> None:
        self.b, self.kinds, self.m, self.theta, self.spikes = b, kinds, m, theta, spikes
        counts = sorted({kind.count for kind in kinds})
        self.lowest = [cgutils.alloca_once_value(b, ir.Constant(v.vec(v.I16, n), None)) for n in counts]
        self.shift = b.trunc(v.load(b, b.add(form, v.const(8 * SHIFT)), v.I64), v.I16)

    def fire(self, drives: list[v.Value], *, soft: bool) -> None:
        """One step, with soft or hard reset."""
        b = self.b
        states, thresholds = (v.load_each(b, at, self.kinds) for at in (self.m, self.theta))
        fired, after = [], []
        for state, threshold, drive in zip(states, thresholds, drives, strict=True):
            u = v.add_saturated(b, b.ashr(state, v.splat(b, self.shift, drive.type.count)), drive)
            fires = b.icmp_signed(">=", u, threshold)
            left = b.sub(u, threshold) if soft else ir.Constant(drive.type, None)
            fired.append(fires)
            after.append(b.select(fires, left, u))
        v.store_each(b, after, self.m)
        for lowest, slot in zip(v.reduced(b, v.smallest, after), self.lowest, strict=True):
            b.store(lowest, slot)
        at = 0
        for i in range(0, len(fired), 2):
            word = _word(b, *fired[i : i + 2])
            v.store(b, word, b.add(self.spikes, v.const(at)))
            at += word.type.width // 8

    def spoilt(self) -> v.Value:
        """1 if any state that :meth:`fire` left is at the lowest value, and so may be wrong, else 0."""
        b, found = self.b, v.const(0)
        for lowest in map(b.load, self.lowest):
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
    b: v.Builder, drives: list[v.Value], m: v.Value, theta: v.Value, form: v.Value, spikes: v.Value, *, tried: bool
) -> v.Value:
    """Write the code of :class:`NeuronWriter` for either reset.

    Args:
        b: builder.
        drives: vectors of s16, an even number; each two neighbours alike.
        m, theta, form, spikes: see :class:`NeuronWriter`.
        tried: charges may not fit; only with hard reset.

    Returns:
        Number of non-zero drives, 64-bit; plus :data:`SPOILT` if a charge did not fit.
    """
    neurons = NeuronWriter(b, [drive.type for drive in drives], m, theta, form, spikes)
    # Counted before the branch: within, the compiler would keep all comparisons in memory until it knows the reset.
    driven = _count_driven(b, drives)
    is_soft = b.icmp_signed("!=", v.load(b, b.add(form, v.const(8 * SOFT)), v.I64), v.const(0))
    with b.if_else(is_soft) as (then, otherwise):
        with then:
            neurons.fire(drives, soft=True)
        with otherwise:
            neurons.fire(drives, soft=False)
    if not tried:
        return driven
    return b.add(driven, b.mul(neurons.spoilt(), v.const(SPOILT)))


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
        state = cgutils.alloca_once_value(b, ir.Constant(neuron.kind, None))
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


@v.intrinsic
def _fire16(typingctx: Any, x: Any, m: Any, theta: Any, form: Any, spikes: Any) -> Any:
    """One step of 32 neurons in 16 bits; arguments are addresses. Returns what :func:`fire16` does."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        half = v.vec(v.I16, 16)
        x, m, theta, form, spikes = args
        drives = [v.load(b, b.add(x, v.const(32 * i)), half) for i in range(2)]
        return write_neurons(b, drives, m, theta, form, spikes, tried=True)

    return types.int64(*[types.int64] * 5), generate


def fire16(x: np.ndarray, m: np.ndarray, theta: np.ndarray, form: np.ndarray, spikes: np.ndarray, row: int) -> int:
    """One time step in 16 bits, for all words of a row: multiplier 1, no fraction bits, hard reset.

    Args:
        x: drive; m: state, updated; theta: thresholds; all s16, 32 per word.
        form: as for :func:`fire`.
        spikes: u32 ``(rows, words)``.

    Returns:
        Number of non-zero drives; at least :data:`SPOILT` if a membrane does not fit.
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
