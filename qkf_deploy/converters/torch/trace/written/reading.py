"""Reading element-by-element code: every tensor as a polynomial, and the places where something fires."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call, Program, Ref
from qkf_deploy.converters.torch.trace.constants import Aliases
from qkf_deploy.converters.torch.trace.written.firing import FIRING, Clamped, Firing, Root
from qkf_deploy.converters.torch.trace.written.polynomial import constant, uniform
from qkf_deploy.converters.torch.trace.written.spikes import COMPARE, Spikes
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops.membrane import Rounding

_SAME = frozenset({
    "clone", "detach", "detach_", "alias", "contiguous", "to", "_to_copy", "type_as", "lift_fresh_copy", "view_as",
    "_assert_tensor_metadata",
})  # fmt: skip


#: What rounds, and what was added before -> the rule. Whatever else is added is a membrane's start.
_ROUNDING: Mapping[tuple[str, float], Rounding] = {("floor", 0.5): "half_up", ("round", 0.0): "half_even"}


class Reading(Spikes):
    """One walk over the calls of a program.

    Attributes:
        changed: tensors of the program that a call in place changes, so that a name does not tell which value is meant.
        state: names of calls that only compute membranes, and that nothing else needs to be lowered for.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.changed: set[str] = set()
        self.state: set[str] = set()
        self._traced = {program.input}
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
        if in_place and not any(refs[0] in k for k in (self._values, self._clamped, self.constants.values)):
            self.changed.add(refs[0])
            return
        try:
            done = self._read(call, what if what in _SAME else what.removesuffix("_"))
        except (UnsupportedError, KeyError, IndexError, ValueError):
            done = False
        if not done and in_place:
            for known in (self._values, self._clamped, self.constants.values):
                known.pop(refs[0], None)
            self.changed.add(refs[0])
        if done:
            self.state.add(call.name)
            if in_place:
                for known in (self._values, self._clamped):
                    if call.name in known:
                        known[refs[0]] = known[call.name]  # type: ignore[index]

    def _read(self, call: Call, what: str) -> bool:
        if what in FIRING:
            return self._fire(call, what)
        if what in ("clamp", "hardtanh", "clamp_min", "relu", "relu6"):
            return self._clamp(call, what)
        function = _ELEMENTWISE.get(what)
        if function is None and (what not in _SAME or self._reshapes(call)):
            return False
        if isinstance(call.args[0], Ref) and call.args[0].name in self._clamped and self._of_clamped(call, what):
            return True
        if function is None:
            return self._keep_root(call, self._root(call.args[0]))
        return function(self, call)

    def _reshapes(self, call: Call) -> bool:
        """True for ``view_as`` in another shape."""
        return "view_as" in call.target and self.program.shapes[call.name] != self.program.shapes[call.references()[0]]

    def _clamp(self, call: Call, what: str) -> bool:
        given = [None if v is None else self.constant_of(v) for v in call.args[1:3]]
        low, high = [*given, None, None][:2]
        low = call.kwargs.get("min", low)
        high = call.kwargs.get("max", high)
        if what in ("relu", "relu6"):
            low, high = np.zeros(()), np.asarray(6.0 if what == "relu6" else np.inf)
        root, top = self._root(call.args[0]), np.asarray(np.inf if high is None else high, np.float64)
        if call.args[0].name in self._clamped or low is None:
            return False
        bottom = np.asarray(low, np.float64)
        if bottom.any() and not np.array_equal(bottom, -top):
            return False
        self._clamped[call.name] = Clamped(root, bottom, top, 0.0)
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
            self._clamped[call.name] = Clamped(root, x.low * factor, x.high * factor, 0.0)
            return True
        if what == "add" and other.ndim == 0:
            self._clamped[call.name] = Clamped(x.root, x.low, x.high, x.offset + float(other))
            return True
        return False

    def _round(self, call: Call, what: str) -> bool:
        x = self._clamped.get(call.args[0].name) if isinstance(call.args[0], Ref) else None
        start = np.full(2, np.nan) if x is None else uniform(x.root.offset)
        if x is None or start.size > 1 or not (x.root.scale > 0).all():
            return False
        added = x.offset + float(start.reshape(()))  # limits are whole numbers: in front of them is as good as behind
        rounding = "floor" if what == "floor" and added != 0.5 else _ROUNDING.get((what, added))
        high = np.unique(x.high)
        signed = bool(x.low.any())
        if rounding is None or not added < 1.0 or (signed and (rounding != "half_even" or np.isinf(high).any())):
            return False  # no mirror of itself
        if len(high) != 1 or high[0] != np.rint(high[0]):
            return False
        most = int(high[0]) if np.isfinite(high[0]) else None
        threshold = (1.0 - added if rounding == "floor" else 1.0) / x.root.scale
        lower = -threshold if signed else None
        return self._note(Firing(call, x.root.name, threshold, rounding=rounding, max_spikes=most, lower=lower))

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
        if distance.name in self._magnitudes:
            return self._of_magnitude(call, distance, strict=strict, inverted=inverted)
        fired = self._fired_atom(distance.name)
        if fired is not None:
            return self._of_spikes(call, what, fired, distance)
        if (distance.scale < 0).all():  # -d > 0 is d < 0
            inverted, strict = not inverted, not strict
        elif not (distance.scale > 0).all():
            return False
        threshold = -distance.offset / distance.scale
        return self._note(Firing(call, distance.name, threshold, strict, inverted=inverted))

    def _constant_comparison(self, call: Call, what: str) -> bool:
        a, b = self.constant_of(call.args[0]), self.constant_of(call.args[1])
        if a is None or b is None or what == "heaviside":
            return False
        return self._keep(call, constant(COMPARE[what](a, b)))


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
    "abs": lambda r, c: r.magnitude(c),
    "sign": lambda r, c: r.sign(c),
    "sgn": lambda r, c: r.sign(c),
    "eq": lambda r, c: r.of_spikes(c),
    "ne": lambda r, c: r.of_spikes(c),
    "index_put": lambda r, c: r.written(c),
    "where": lambda r, c: r.chosen(c, r.poly(c.args[0]), c.args[1], c.args[2]),
    "masked_fill": lambda r, c: r.chosen(c, r.poly(c.args[1]), c.args[2], c.args[0]),
}
