"""Which neuron a chain of firings is: one firing per time step, each membrane made of the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from qkf_deploy.converters.torch.trace.written.firing import Firing
from qkf_deploy.converters.torch.trace.written.polynomial import (
    Atom,
    Monomial,
    Poly,
    atom,
    constant,
    plus,
    same,
    scaled,
    uniform,
)  # fmt: skip
from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Neuron

_ONE, _ZERO = np.ones(()), np.zeros(())


@dataclass(frozen=True)
class Form:
    """One way of computing a chain, algebraically equal to the others.

    Attributes:
        op: the neuron; its levels are the largest of ``levels``.
        levels: ``v_threshold``, ``decay``, ``tau``, ``v_reset``, ``initial`` where they apply.
        drives: of every step, a polynomial without membranes of this neuron.
    """

    op: Neuron
    levels: Mapping[str, np.ndarray]
    drives: tuple[Poly, ...]


def chains(firings: Sequence[Firing]) -> list[tuple[Firing, ...]]:
    """The firings as chains over time.

    Raises:
        UnsupportedError: two membranes made of the same one.
    """
    before = {f.index: _predecessor(f, firings) for f in firings}
    after: dict[int, int] = {}
    for index, previous in before.items():
        if previous is not None and after.setdefault(previous, index) != index:
            raise UnsupportedError(
                "two membranes are made of one", hint="only a loop of one membrane per neuron is understood"
            )
    out: list[tuple[Firing, ...]] = []
    for firing in firings:
        if before[firing.index] is None:
            chain = [firing]
            while chain[-1].index in after:
                chain.append(firings[after[chain[-1].index]])
            out.append((_first(chain), *chain[1:]))
    return out


def _predecessor(firing: Firing, firings: Sequence[Firing]) -> int | None:
    """The firing whose membrane this one's is made of: with its spikes, which reset it, or at the same place."""
    if firing.starts:
        return None
    atoms = {x for monomial in firing.charge for x in monomial}
    for kind, index in sorted(atoms, key=str):
        if kind == "x":
            continue
        before = firings[int(index)]
        fired = ("s", index) in atoms or ("q", index) in atoms
        if kind == "u" and (fired or _place(before) == _place(firing)):
            return before.index
        if kind in "sq" and before.starts and ("x", before.root) in atoms:
            return before.index
    return None


def _place(firing: Firing) -> tuple[str, str]:
    return firing.call.path, firing.call.source


def _first(chain: Sequence[Firing]) -> Firing:
    """The first firing of a chain. Where it adds to another neuron's membrane (a shortcut around that), or more terms
    than the next step does, the tensor itself is its drive."""
    first = chain[0]
    adds = any(kind == "u" for monomial in first.charge for kind, _ in monomial)
    if adds or (len(chain) > 1 and not first.starts and _terms(first) > _terms(chain[1])):
        return replace(first, charge=atom("x", first.root))
    return first


def _terms(firing: Firing) -> int:
    return sum(len(monomial) == 1 and monomial[0][0] == "x" for monomial in firing.charge)


@dataclass(frozen=True)
class _Step:
    """u = keep V + gated V |S| + taken S + drive, V and S of the step before."""

    keep: np.ndarray
    gated: np.ndarray
    taken: np.ndarray
    drive: Poly


def forms(chain: Sequence[Firing]) -> Iterator[Form]:
    """The ways to compute a chain, the plainest first.

    Raises:
        UnsupportedError: its steps differ, or its reset is none that is known.
    """
    last = chain[-1]
    if chain[0].starts and (chain[0].rounding, last.rounding) == ("half_up", "floor"):  # half a threshold at the start
        chain = [replace(chain[0], threshold=chain[0].threshold / 2), *chain[1:]]
    if any(not _is_drive(m) for f in chain if f.starts or len(chain) == 1 for m in f.charge):
        raise UnsupportedError("fires on a product of tensors")
    scales = [_scale(chain, f) for f in chain] if len(chain) > 1 else [_Scale(_ONE, _ZERO)]
    _check_polarity(chain, scales)
    if len(chain) == 1:
        if not (last.threshold > 0).all():
            raise UnsupportedError(
                "fires at a drive of 0 or below", hint="a neuron of the graph is silent where nothing arrives"
            )
        levels = {"v_threshold": last.threshold, "decay": _ZERO, "v_reset": _ZERO}
        yield _form(last, levels, (last.charge,))
        return
    if not all((f.threshold > 0).all() for f in chain if not f.starts):
        raise UnsupportedError("fires at 0 or below", hint="a threshold above the reset voltage is needed")
    pairs = zip(pairwise(chain), pairwise(scales), strict=True)
    steps = [_step(before, after, earlier, later.unit, last.threshold) for (before, after), (earlier, later) in pairs]
    first = plus(scaled(chain[0].charge, scales[0].unit), constant(scales[0].offset))
    for step in steps[1:]:
        one = steps[0]
        if not (same(step.keep, one.keep) and same(step.gated, one.gated) and same(step.taken, one.taken)):
            raise UnsupportedError("computes its membrane otherwise in one time step than in another")
    yield from _resets(last, steps[0], [first, *(s.drive for s in steps)])


@dataclass(frozen=True)
class _Scale:
    """A membrane as ``unit * root + offset``, in units in which every step fires at the same threshold."""

    unit: np.ndarray
    offset: np.ndarray


def _scale(chain: Sequence[Firing], firing: Firing) -> _Scale:
    """Scale of one step's root. The first step's may be a drive as it comes: later steps say with which factor it is
    added, and what is missing to the threshold is the initial membrane."""
    threshold = chain[-1].threshold
    gain = _gain(chain) if firing.starts else None
    if gain is None:
        return _Scale(threshold / firing.threshold, _ZERO)
    offset = threshold - gain * firing.threshold
    return _Scale(gain, _settled(offset, threshold))


def _settled(level: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """A voltage, 0 where it is only what rounding left of terms that cancel."""
    return np.where(np.abs(level) <= 1e-12 * threshold, 0.0, level)


def _check_polarity(chain: Sequence[Firing], scales: Sequence[_Scale]) -> None:
    """Raises UnsupportedError unless every step fires upwards alone, or downwards as it does upwards."""
    threshold = chain[-1].threshold
    for firing, scale in zip(chain, scales, strict=True):
        if firing.signed != chain[-1].signed:
            raise UnsupportedError("fires in both directions in one time step and not in another")
        if firing.lower is not None and not same(scale.unit * firing.lower + scale.offset, -threshold):
            raise UnsupportedError(
                "fires upwards at one level and downwards at another", hint="a mirror of the threshold is understood"
            )


def _gain(chain: Sequence[Firing]) -> np.ndarray | None:
    """Factor of the last step's drive, where that is one tensor."""
    before, last = chain[-2:]
    own = {("u", before.index), ("s", before.index), ("x", before.root if before.starts else "")}
    factors = [f for m, f in last.charge.items() if len(m) == 1 and m[0] not in own]
    return factors[0] if len(factors) == 1 and (factors[0] > 0).all() else None


def _step(before: Firing, after: Firing, earlier: _Scale, unit: np.ndarray, threshold: np.ndarray) -> _Step:
    """One step in the units of the chain, whose last threshold is ``threshold``."""
    membrane: Atom = ("x", before.root) if before.starts else ("u", before.index)
    spikes: Atom = ("s", before.index)
    size: Atom = ("q", before.index) if before.signed else spikes
    both: Monomial = tuple(sorted((membrane, size), key=str))
    charge = dict(scaled(after.charge, unit))
    keep, gated = charge.pop((membrane,), _ZERO) / earlier.unit, charge.pop(both, _ZERO) / earlier.unit
    taken = _settled(charge.pop((size,), _ZERO) - gated * earlier.offset, threshold)
    if before.signed:
        if taken.any():
            raise UnsupportedError("is reset to another value than 0 by spikes of either polarity")
        taken = charge.pop((spikes,), _ZERO)
    if before.starts and not any(charge):  # the same drive at every step: as much of it as in the first is this step's
        keep, charge[membrane,] = keep - 1.0, earlier.unit
    charge[()] = _settled(charge.get((), _ZERO) - keep * earlier.offset, threshold)
    if any(spikes in m or not _is_drive(m) for m in charge):
        raise UnsupportedError("multiplies its membrane or its spikes by something else")
    return _Step(keep, gated, taken, {m: f for m, f in charge.items() if np.any(f)})


def _is_drive(monomial: Monomial) -> bool:
    """True for a constant, a tensor of the program and spikes of a neuron; no product, membrane or magnitude."""
    return len(monomial) < 2 and all(kind in "xs" for kind, _ in monomial)


def _resets(last: Firing, step: _Step, drives: list[Poly]) -> Iterator[Form]:
    threshold, keep = last.threshold, step.keep
    levels: dict[str, np.ndarray] = {"v_threshold": threshold}
    late = False
    if not keep.any():
        raise UnsupportedError("keeps nothing of its membrane and reads it")
    if same(step.gated, -keep):
        levels["v_reset"] = step.taken / keep
    elif step.gated.any():
        raise UnsupportedError("a spike takes part of the membrane away")
    elif not same(step.taken, -keep * threshold):
        late = same(step.taken, -threshold)
        if not late:
            levels["v_threshold"] = _subtracted(last, step)
            drives = _lifted(drives, keep, levels["v_threshold"] - threshold)
    rest = levels.get("v_reset", _ZERO)
    shift = drives[1].get((), _ZERO)
    if any(not same(d.get((), _ZERO), shift) for d in drives[1:]):
        raise UnsupportedError("adds another constant in one time step than in another")
    initial = (drives[0].get((), _ZERO) - shift) / keep
    if not same(initial, rest):
        levels["initial"] = initial
    bias = _settled(shift - rest * (1.0 - keep), threshold)
    plain: list[Poly] = [{m: f for m, f in d.items() if m} for d in drives]
    yield from _charges(last, levels, keep, bias, plain, late)


def _subtracted(last: Firing, step: _Step) -> np.ndarray:
    """What a spike takes from the membrane, where that is not the threshold.

    Raises:
        UnsupportedError: nothing, more than there is, or something for each of several spikes.
    """
    value = -step.taken / step.keep
    if not step.taken.any():
        raise UnsupportedError(
            "never resets its membrane", hint="reset by a product, to a value, or by subtracting a value"
        )
    if last.counts or last.signed or not (value > 0).all():
        raise UnsupportedError(
            "subtracts another value than its threshold",
            hint="of a neuron that counts, or fires in both directions, a spike takes the threshold",
        )
    return uniform(value)


def _lifted(drives: Sequence[Poly], keep: np.ndarray, by: np.ndarray) -> list[Poly]:
    """Drives of a membrane that lies higher throughout, so that what a spike takes from it is its threshold:
    u + c = keep (u' + c) + x + c (1 - keep), and c at first."""
    return [plus(d, constant(uniform(by * (1.0 - keep) if t else by))) for t, d in enumerate(drives)]


def _charges(
    last: Firing, levels: dict[str, np.ndarray], keep: np.ndarray, bias: np.ndarray, drives: list[Poly], late: bool
) -> Iterator[Form]:
    """IF or decay · V + X; V - V / τ + X; V + (X - V) / τ, in the order of operations of each."""
    biased = tuple(plus(d, constant(bias)) if bias.any() else d for d in drives)
    whole = same(keep, _ONE)
    yield _form(last, levels if whole else {**levels, "decay": keep}, biased, late)
    if whole or late or not (keep > 0).all():
        return
    tau = 1.0 / (1.0 - keep)
    settled = np.where(np.abs(tau - np.rint(tau)) <= 1e-9 * tau, np.rint(tau), tau)
    yield _form(last, {**levels, "tau": settled}, biased)
    yield _form(last, {**levels, "tau": settled}, tuple(scaled(d, settled) for d in biased), decays=True)


def _form(
    last: Firing, levels: Mapping[str, np.ndarray], drives: tuple[Poly, ...], late: bool = False, decays: bool = False
) -> Form:
    keep = levels.get("decay", _ZERO)
    if not ((keep >= 0).all() and (keep <= 1).all()):
        raise UnsupportedError(f"multiplies its membrane by {float(keep.max()):g} at every step")
    largest = {k: float(v.max()) for k, v in levels.items() if k != "initial"}
    op = Neuron(
        largest.get("tau"), largest["v_threshold"], largest.get("v_reset"), decays, max_spikes=last.max_spikes,
        rounding=last.rounding, strict=last.strict, reset_delay=late, decay=largest.get("decay"), signed=last.signed,
    )  # fmt: skip
    if not (op.levels({}).v_threshold > op.levels({}).base).all():
        raise UnsupportedError("fires at or below the voltage it is reset to")
    return Form(op, levels, drives)


def described(op: Neuron) -> str:
    """``LIF, decay 0.25, threshold 0.5, strict``."""
    if op.decay == 0.0:
        words = ["threshold without memory" if not op.several else "counts without memory"]
    elif op.tau is None and op.decay is None:
        words = ["IF"]
    else:
        words = ["LIF", f"decay {op.decay:g}" if op.tau is None else f"tau {op.tau:g}"]
        words += ["input decays too"] if op.tau is not None and op.decay_input else []
    words.append(f"threshold {op.v_threshold:g}")
    words += ["strict"] if op.strict else []
    words += ["either polarity"] if op.signed else []
    if op.several:
        most = "any number of spikes" if op.max_spikes is None else f"up to {quantity(op.max_spikes, 'spike')}"
        words += [
            most,
            {"floor": "rounded down", "half_up": "halves up", "half_even": "halves to the even"}[op.rounding],
        ]
    if op.decay != 0.0:
        soft = "subtracts one step later" if op.reset_delay else "subtracts"
        words.append(soft if op.v_reset is None else f"reset to {op.v_reset:g}")
    return ", ".join(words)
