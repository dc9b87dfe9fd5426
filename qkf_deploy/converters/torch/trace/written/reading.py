"""Reading element-by-element code: every tensor as a polynomial, and the places where something fires."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call, Program, Ref
from qkf_deploy.converters.torch.trace.constants import Aliases, Constants
from qkf_deploy.converters.torch.trace.written.polynomial import (
    Atom,
    Poly,
    atom,
    constant,
    number,
    plus,
    scaled,
    times,
    unknowns,
)  # fmt: skip
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops.membrane import Rounding

#: What fires: comparisons, steps, rounding.
FIRING = frozenset({"gt", "ge", "lt", "le", "heaviside", "round", "floor"})
_SAME = frozenset({
    "clone", "detach", "detach_", "alias", "contiguous", "to", "_to_copy", "type_as", "lift_fresh_copy", "view_as",
    "_assert_tensor_metadata",
})  # fmt: skip
#: Constants that take their shape from a tensor, with their value; ``None`` where it is an argument.
_FILLED: Mapping[str, float | None] = {
    "zeros_like": 0.0, "new_zeros": 0.0, "ones_like": 1.0, "new_ones": 1.0, "full_like": None,
}  # fmt: skip


@dataclass(frozen=True)
class Root:
    """A tensor as ``scale * root + offset``, constants both."""

    name: str
    scale: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class _Clamped:
    """A tensor within limits, times a factor, plus an offset."""

    root: Root
    low: np.ndarray
    high: np.ndarray
    offset: float


@dataclass(frozen=True)
class Firing:
    """One place where a membrane becomes spikes.

    Attributes:
        index: its number, of the atoms ``u`` and ``s``.
        call: the call whose result are the spikes (or their complement).
        root: the tensor whose crossing of ``threshold`` fires.
        charge: that tensor as a polynomial.
        threshold: in units of the root.
        strict, rounding, max_spikes: as in :class:`qkf_deploy.ops.Neuron`.
        inverted: the call gives 1 - spikes.
        starts: True if the root is none of a membrane of before: one of the program's own tensors.
    """

    index: int
    call: Call
    root: str
    charge: Poly
    threshold: np.ndarray
    strict: bool = False
    rounding: Rounding = "floor"
    max_spikes: int = 1
    inverted: bool = False
    starts: bool = False


class Reading:
    """One walk over the calls of a program.

    Attributes:
        firings: in order.
        repeated: calls that fire as another one did, by name: the number of that one.
        changed: tensors of the program that a call in place changes, so that a name does not tell which value is meant.
        state: names of calls that only compute membranes, and that nothing else needs to be lowered for.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.constants = Constants(program)
        self.firings: list[Firing] = []
        self.repeated: dict[str, int] = {}
        self.changed: set[str] = set()
        self.state: set[str] = set()
        self._roots: dict[str, Poly] = {}
        self._values: dict[str, Root] = {}
        self._clamped: dict[str, _Clamped] = {}
        self._traced = {program.input}
        self._binary: set[Atom] = set()
        self._fired: dict[str, list[Firing]] = {}
        for call in program.calls:
            self._call(call)

    def _call(self, call: Call) -> None:
        refs = call.references()
        if not any(r in self._traced for r in refs) and self.constants.evaluate(call):
            return
        self._traced.add(call.name)
        if not call.target.startswith("aten."):
            return
        what = call.target.split(".")[1]
        in_place = Aliases.in_place(call) and what != "detach_"
        if in_place and refs[0] not in self._values and refs[0] not in self._clamped:
            self.changed.add(refs[0])
            return
        try:
            done = self._read(call, what if what in _SAME else what.removesuffix("_"))
        except (UnsupportedError, KeyError, IndexError, ValueError):
            done = False
        if done:
            self.state.add(call.name)
            if in_place:
                for known in (self._values, self._clamped):
                    if call.name in known:
                        known[refs[0]] = known[call.name]  # type: ignore[index]

    def _read(self, call: Call, what: str) -> bool:
        if what in FIRING:
            return self._fire(call, what)
        if what in _FILLED:
            value = _FILLED[what]
            return self._keep(call, constant(self.constant_of(call.args[1]) if value is None else value))
        if what in ("clamp", "hardtanh", "clamp_min", "relu", "relu6"):
            return self._clamp(call, what)
        function = _ELEMENTWISE.get(what)
        if function is None and what not in _SAME:
            return False
        if isinstance(call.args[0], Ref) and call.args[0].name in self._clamped:
            return self._of_clamped(call, what)
        if function is None:
            return self._keep_root(call, self._root(call.args[0]))
        return function(self, call)

    # -- values ------------------------------------------------------------------------------------------------------

    def constant_of(self, value: Any) -> np.ndarray | None:
        """A constant argument, ``None`` if it depends on the input."""
        if isinstance(value, bool | int | float):
            return np.asarray(float(value))
        if isinstance(value, Ref) and value.name in self.constants.values:
            return np.asarray(self.constants.array(value), np.float64)
        return number(self.poly(value)) if isinstance(value, Ref) and value.name in self._values else None

    def poly(self, value: Any) -> Poly:
        """An argument as a polynomial."""
        if not isinstance(value, Ref) or value.name in self.constants.values:
            known = self.constant_of(value)
            if known is None:
                raise UnsupportedError("no constant")
            return constant(known)
        root = self._root(value)
        return plus(scaled(self._poly_of(root.name), root.scale), constant(root.offset))

    def _poly_of(self, name: str) -> Poly:
        return self._roots[name] if name in self._roots else atom("x", name)

    def _root(self, value: Any) -> Root:
        if not isinstance(value, Ref):
            raise UnsupportedError("no tensor")
        return self._values.get(value.name, Root(value.name, np.ones(()), np.zeros(())))

    def _keep(self, call: Call, poly: Poly) -> bool:
        """Note a result; one without membranes or spikes is a tensor of the program like any other."""
        if number(poly) is None and not any(kind != "x" or name in self._fired for kind, name in unknowns(poly)):
            return False
        self._roots[call.name] = poly
        return self._keep_root(call, Root(call.name, np.ones(()), np.zeros(())))

    def _keep_root(self, call: Call, root: Root) -> bool:
        self._values[call.name] = root
        return True

    def affine(self, call: Call, value: Any, scale: np.ndarray, offset: np.ndarray) -> bool:
        """Note ``scale * value + offset``."""
        if number(self.poly(value)) is not None:
            return self._keep(call, plus(scaled(self.poly(value), scale), constant(offset)))
        root = self._root(value)
        return self._keep_root(call, Root(root.name, root.scale * scale, root.offset * scale + offset))

    def added(self, call: Call, a: Any, b: Any, factor: float) -> bool:
        """a + factor b."""
        first, second = self.constant_of(a), self.constant_of(b)
        if second is not None:
            return self.affine(call, a, np.ones(()), second * factor)
        if first is not None:
            return self.affine(call, b, np.asarray(factor), first)
        return self._keep(call, plus(self.poly(a), scaled(self.poly(b), factor)))

    def multiplied(self, call: Call, a: Any, b: Any) -> bool:
        """a b."""
        for value, other in ((a, b), (b, a)):
            factor = self.constant_of(other)
            if factor is not None:
                return self.affine(call, value, factor, np.zeros(()))
        return self._keep(call, times(self.poly(a), self.poly(b), frozenset(self._binary)))

    def chosen(self, call: Call, mask: Poly, yes: Any, no: Any) -> bool:
        """yes where the mask is 1, else no."""
        other = plus(constant(1.0), scaled(mask, -1.0))
        binary = frozenset(self._binary)
        return self._keep(call, plus(times(mask, self.poly(yes), binary), times(other, self.poly(no), binary)))

    # -- limits and rounding -----------------------------------------------------------------------------------------

    def _clamp(self, call: Call, what: str) -> bool:
        given = [None if v is None else self.constant_of(v) for v in call.args[1:3]]
        low, high = [*given, None, None][:2]
        low = call.kwargs.get("min", low)
        high = call.kwargs.get("max", high)
        if what in ("relu", "relu6"):
            low, high = np.zeros(()), np.asarray(6.0 if what == "relu6" else np.inf)
        root, top = self._root(call.args[0]), np.asarray(np.inf if high is None else high, np.float64)
        if call.args[0].name in self._clamped or low is None or np.any(np.asarray(low, np.float64) != 0):  # type: ignore[union-attr]
            return False
        self._clamped[call.name] = _Clamped(root, np.zeros(()), top, 0.0)
        return True

    def _of_clamped(self, call: Call, what: str) -> bool:
        x = self._clamped[call.args[0].name]
        if what in _SAME:
            self._clamped[call.name] = x
            return True
        other = self.constant_of(call.args[1])
        if other is None:
            return False
        if what in ("mul", "div") and (other > 0).all() and not x.offset:
            factor = other if what == "mul" else 1.0 / other
            root = Root(x.root.name, x.root.scale * factor, x.root.offset * factor)
            self._clamped[call.name] = _Clamped(root, x.low, x.high * factor, 0.0)
            return True
        if what == "add" and other.ndim == 0:
            self._clamped[call.name] = _Clamped(x.root, x.low, x.high, x.offset + float(other))
            return True
        return False

    def _round(self, call: Call, what: str) -> bool:
        x = self._clamped.get(call.args[0].name) if isinstance(call.args[0], Ref) else None
        if x is None or x.offset != (0.5 if what == "floor" else 0.0) or x.root.offset.any():
            return False
        high = np.unique(x.high)
        if len(high) != 1 or not np.isfinite(high[0]) or high[0] != np.rint(high[0]) or not (x.root.scale > 0).all():
            return False
        rounding: Rounding = "half_up" if what == "floor" else "half_even"
        return self._note(
            call, x.root.name, 1.0 / x.root.scale, rounding=rounding, max_spikes=int(high[0]), strict=False
        )

    # -- firing ------------------------------------------------------------------------------------------------------

    def _fire(self, call: Call, what: str) -> bool:
        if what in ("round", "floor"):
            return self._round(call, what)
        a = call.args[0]
        strict = what in ("gt", "le")
        if what == "heaviside":
            at_zero = self.constant_of(call.args[1])
            if at_zero is None or at_zero.size != 1 or float(at_zero.reshape(())) not in (0.0, 1.0):
                return False
            strict, distance = not at_zero.any(), self._difference(a, 0.0)
        else:
            distance = self._difference(a, call.args[1])
        if distance is None:
            return self._constant_comparison(call, what)
        inverted = what in ("lt", "le")
        fired = self._fired_atom(distance.name)
        if fired is not None:
            return self._of_spikes(call, what, fired, distance)
        if (distance.scale < 0).all():  # -d > 0 is d < 0
            inverted, strict = not inverted, not strict
        elif not (distance.scale > 0).all():
            return False
        threshold = -distance.offset / distance.scale
        return self._note(call, distance.name, threshold, strict=strict, inverted=inverted)

    def _fired_atom(self, root: str) -> Atom | None:
        """The spikes that a tensor is."""
        poly = self._roots.get(root, {})
        atoms = [m[0] for m in poly if len(m) == 1]
        return atoms[0] if len(poly) == len(atoms) == 1 and atoms[0] in self._binary else None

    def _of_spikes(self, call: Call, what: str, fired: Atom, distance: Root) -> bool:
        """A comparison of spikes, such as ``s > 0``."""
        compare = _COMPARE.get(what)
        if compare is None:
            return False
        factor = self._roots[distance.name][(fired,)]
        silent, firing = (compare(distance.scale * factor * s + distance.offset, 0.0) for s in (0.0, 1.0))
        if np.any(firing) and not np.any(silent):
            self.repeated[call.name] = int(fired[1])
        off, on = np.asarray(silent, np.float64), np.asarray(firing, np.float64)
        return self._keep(call, plus(constant(off), scaled({(fired,): np.ones(())}, on - off)))

    def _difference(self, a: Any, b: Any) -> Root | None:
        """a - b as a root's; ``None`` if both are constant."""
        first, second = self.constant_of(a), self.constant_of(b)
        if second is not None and first is None:
            root = self._root(a)
            return Root(root.name, root.scale, root.offset - second)
        if first is not None and second is None:
            root = self._root(b)
            return Root(root.name, -root.scale, first - root.offset)
        if first is None:
            raise UnsupportedError("compares two tensors")
        return None

    def _constant_comparison(self, call: Call, what: str) -> bool:
        a, b = self.constant_of(call.args[0]), self.constant_of(call.args[1])
        if a is None or b is None or what == "heaviside":
            return False
        return self._keep(call, constant(_COMPARE[what](a, b)))

    def _note(
        self, call: Call, root: str, threshold: np.ndarray, *, strict: bool, inverted: bool = False,
        rounding: Rounding = "floor", max_spikes: int = 1,
    ) -> bool:  # fmt: skip
        for known in self._fired.get(root, []):
            same_kind = (known.strict, known.rounding, known.max_spikes) == (strict, rounding, max_spikes)
            if same_kind and np.array_equal(known.threshold, threshold):
                self.repeated[call.name] = known.index
                return self._spikes(call, known.index, inverted)
        if root in self._fired:
            return False  # several thresholds for one membrane
        starts = root not in self._roots
        index = len(self.firings)
        charge = self._poly_of(root)
        firing = Firing(
            index, call, root, charge, np.asarray(threshold, np.float64), strict, rounding, max_spikes, inverted, starts
        )
        self.firings.append(firing)
        self._fired.setdefault(root, []).append(firing)
        if not starts:  # from now on the tensor is the membrane of this firing
            self._roots[root] = atom("u", index)
        if max_spikes == 1 and rounding == "floor":
            self._binary.add(("s", index))
        return self._spikes(call, index, inverted)

    def _spikes(self, call: Call, index: int, inverted: bool) -> bool:
        spikes = atom("s", index)
        return self._keep(call, plus(constant(1.0), scaled(spikes, -1.0)) if inverted else spikes)


_COMPARE: Mapping[str, Callable[[np.ndarray, np.ndarray | float], np.ndarray]] = {
    "gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal,
}  # fmt: skip


def _alpha(call: Call) -> float:
    given = call.args[2] if len(call.args) > 2 else call.kwargs.get("alpha", 1)
    if not isinstance(given, int | float):
        raise UnsupportedError("a factor that is no number")
    return float(given)


def _div(r: Reading, call: Call) -> bool:
    divisor = r.constant_of(call.args[1])
    if divisor is None or not divisor.all() or "rounding_mode" in call.kwargs:
        return False
    return r.affine(call, call.args[0], 1.0 / divisor, np.zeros(()))


def _not(r: Reading, call: Call) -> bool:
    return r.affine(call, call.args[0], -np.ones(()), np.ones(()))


#: Operator -> how its result is noted; False where it has no polynomial.
_ELEMENTWISE: Mapping[str, Callable[[Reading, Call], bool]] = {
    "add": lambda r, c: r.added(c, c.args[0], c.args[1], _alpha(c)),
    "sub": lambda r, c: r.added(c, c.args[0], c.args[1], -_alpha(c)),
    "rsub": lambda r, c: r.added(c, c.args[1], c.args[0], -_alpha(c)),
    "mul": lambda r, c: r.multiplied(c, c.args[0], c.args[1]),
    "div": _div,
    "neg": lambda r, c: r.affine(c, c.args[0], -np.ones(()), np.zeros(())),
    "logical_not": _not,
    "bitwise_not": _not,
    "where": lambda r, c: r.chosen(c, r.poly(c.args[0]), c.args[1], c.args[2]),
    "masked_fill": lambda r, c: r.chosen(c, r.poly(c.args[1]), c.args[2], c.args[0]),
}
