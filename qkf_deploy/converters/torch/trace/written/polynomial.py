"""Polynomials in tensors with constant coefficients: what element-by-element code computes, whatever its order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: A tensor as an unknown: ``("x", name)`` of the program; of firing i, ``("u", i)`` its membrane, ``("s", i)`` its
#: spikes, and ``("q", i)`` the magnitude of spikes of either polarity, 0 or 1.
Atom = tuple[str, str | int]
Monomial = tuple[Atom, ...]
Poly = Mapping[Monomial, np.ndarray]

#: Coefficients that agree to this (relative) are the same constant, computed in another order.
_CLOSE = 1e-9


def constant(value: object) -> Poly:
    """A number or an array that broadcasts."""
    return {(): np.asarray(value, np.float64)}


def atom(kind: str, name: str | int) -> Poly:
    """One unknown."""
    return {((kind, name),): np.ones(())}


def plus(a: Poly, b: Poly) -> Poly:
    """a + b."""
    out = dict(a)
    for monomial, factor in b.items():
        out[monomial] = out[monomial] + factor if monomial in out else factor
    return {m: f for m, f in out.items() if f.any()}


def scaled(a: Poly, factor: np.ndarray | float) -> Poly:
    """a times a constant."""
    return {m: f * factor for m, f in a.items() if np.any(f * factor)}


def times(a: Poly, b: Poly, binary: frozenset[Atom]) -> Poly:
    """a b; atoms that are 0 or 1 are their own squares, and -1, 0 or 1 have their magnitude as their square."""
    out: Poly = {}
    for first, f in a.items():
        for second, g in b.items():
            once = {x for x in (*first, *second) if x in binary}
            rest = [x for x in (*first, *second) if x not in binary]
            for x in {x for x in rest if ("q", x[1]) in binary and x[0] == "s"}:
                odd = rest.count(x) % 2
                rest = [y for y in rest if y != x] + [x] * odd
                once = once - {("q", x[1])} if odd else once | {("q", x[1])}
            out = plus(out, {tuple(sorted([*once, *rest], key=str)): f * g})
    return out


def replaced(a: Poly, old: Atom, new: Poly, binary: frozenset[Atom]) -> Poly:
    """a with a polynomial in the place of one of its unknowns."""
    out: Poly = {}
    for monomial, factor in a.items():
        rest: Poly = {tuple(x for x in monomial if x != old): factor}
        out = plus(out, times(rest, new, binary) if old in monomial else rest)
    return out


def ordered(a: Poly) -> list[tuple[Atom, np.ndarray]]:
    """The terms of a sum of tensors, without its constant, always in the same order."""
    return sorted(((m[0], f) for m, f in a.items() if m), key=lambda term: str(term[0]))


def number(a: Poly) -> np.ndarray | None:
    """The constant a polynomial is, ``None`` if it has unknowns."""
    return None if set(a) - {()} else a.get((), np.zeros(()))


def unknowns(a: Poly) -> set[Atom]:
    """All atoms."""
    return {x for monomial in a for x in monomial}


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """True if two constants agree up to the rounding of their own computation."""
    return bool(np.all(np.abs(a - b) <= _CLOSE * np.maximum(np.abs(a), np.abs(b))))


def uniform(a: np.ndarray) -> np.ndarray:
    """An array whose elements are all the same as one number: a constant met a tensor of zeros on its way."""
    return a.reshape(-1)[0] * np.ones(()) if a.size > 1 and (a == a.reshape(-1)[0]).all() else a
