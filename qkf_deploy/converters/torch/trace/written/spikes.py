"""Tensors of element-by-element code as polynomials, and of what fires, the spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call, Program, Ref
from qkf_deploy.converters.torch.trace.constants import Constants
from qkf_deploy.converters.torch.trace.written.firing import Clamped, Firing, Root
from qkf_deploy.converters.torch.trace.written.polynomial import (
    Atom,
    Poly,
    atom,
    constant,
    number,
    plus,
    replaced,
    scaled,
    times,
    unknowns,
)  # fmt: skip
from qkf_deploy.errors import UnsupportedError

COMPARE: Mapping[str, Callable[[np.ndarray, np.ndarray | float], np.ndarray]] = {
    "gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal,
    "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip


class Spikes:
    """What is known of the tensors of a program.

    Attributes:
        firings: in order.
        repeated: calls whose results are the spikes of a firing, by name: its number, and True for their complement.
        apart: firings of either polarity whose two directions no call has together.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.constants = Constants(program)
        self.firings: list[Firing] = []
        self.repeated: dict[str, tuple[int, bool]] = {}
        self.apart: set[int] = set()
        self._roots: dict[str, Poly] = {}
        self._values: dict[str, Root] = {}
        self._clamped: dict[str, Clamped] = {}
        self._binary: set[Atom] = set()
        self._fired: dict[str, int] = {}
        self._signs: dict[str, Root] = {}
        self._magnitudes: dict[str, Root] = {}

    # -- values ------------------------------------------------------------------------------------------------------

    def constant_of(self, value: Any) -> np.ndarray | None:
        """A constant argument, ``None`` if it depends on the input."""
        if isinstance(value, bool | int | float):
            return np.asarray(float(value))
        if self._is_constant(value):
            known = self.constants.number(value)  # a tensor of one number has no shape to fit
            return np.array(self.constants.array(value) if known is None else known, np.float64)  # as it is now
        return number(self.poly(value)) if isinstance(value, Ref) and value.name in self._values else None

    def _is_constant(self, value: Any) -> bool:
        """True for a constant of the program that nothing was written to."""
        return isinstance(value, Ref) and value.name in self.constants.values and value.name not in self._values

    def poly(self, value: Any) -> Poly:
        """An argument as a polynomial."""
        if not isinstance(value, Ref) or self._is_constant(value):
            known = self.constant_of(value)
            if known is None:
                raise UnsupportedError("no constant")
            return constant(known)
        root = self._root(value)
        return plus(scaled(self._poly_of(root.name), root.scale), constant(root.offset))

    def _poly_of(self, name: str) -> Poly:
        if name in self._signs:
            return self._sign(name)
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
        self._note_spikes(call, poly)
        return self._keep_root(call, Root(call.name, np.ones(()), np.zeros(())))

    def _keep_root(self, call: Call, root: Root) -> bool:
        self._values[call.name] = root
        return True

    def _note_spikes(self, call: Call, poly: Poly) -> None:
        """Note a result that is exactly the spikes of a firing, and in its shape."""
        for monomial, factor in poly.items():
            if len(poly) > 1 or len(monomial) != 1 or monomial[0][0] != "s" or np.any(factor != 1):
                return
            index = int(monomial[0][1])
            firing = self.firings[index]
            if self.program.shapes.get(call.name) != self.program.shapes.get(firing.call.name):
                return
            if index in self.apart:
                self.firings[index] = replace(firing, call=call)
                self.apart.remove(index)
            elif call is not firing.call:
                self.repeated[call.name] = (index, False)

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

    def written(self, call: Call) -> bool:
        """``x[mask] = value``."""
        x, indices, value = call.args[:3]
        mask = indices[0] if len(indices) == 1 else None
        if mask is None or self.program.shapes[mask.name] != self.program.shapes[x.name] or call.args[3:] > (False,):
            return False
        known = self.constant_of(value)
        return known is not None and known.size == 1 and self.chosen(call, self.poly(mask), float(known.reshape(())), x)

    # -- firing ------------------------------------------------------------------------------------------------------

    def _note(self, found: Firing) -> bool:
        """Note what fires: the first of its membrane, the same again, or its other direction."""
        known = self._fired.get(found.root)
        if known is None:
            index = self._new(found)
            self.apart.discard(index)
            return self._spikes(found, atom("s", index))
        firing = self.firings[known]
        if firing.fires_as(found):
            self.repeated[found.call.name] = (known, found.inverted)
            return self._spikes(found, atom("s", known))
        if firing.counts or found.counts:
            return False
        if not firing.signed:
            if firing.strict == found.strict or not self._either(firing, found.threshold):
                return False
            firing = self.firings[known]
        up, down = self._directions(known)
        for level, strict, above in (
            (firing.threshold, firing.strict, up),
            (firing.lower, not firing.strict, plus(constant(1.0), scaled(down, -1.0))),
        ):
            if strict == found.strict and np.array_equal(np.asarray(level), found.threshold):
                return self._spikes(found, above)
        return False

    def _new(self, found: Firing) -> int:
        index, starts = len(self.firings), found.root not in self._roots
        self.firings.append(replace(found, index=index, charge=self._poly_of(found.root), starts=starts))
        self._fired[found.root] = index
        if not starts:  # from now on the tensor is the membrane of this firing
            self._roots[found.root] = atom("u", index)
        if found.signed:
            self.apart.add(index)
        if found.max_spikes == 1:
            self._binary.add(("q" if found.signed else "s", index))
        return index

    def _either(self, firing: Firing, threshold: np.ndarray) -> bool:
        """Let a firing be of either polarity, its other level being ``threshold``."""
        index, old = firing.index, ("s", firing.index)
        if (threshold < firing.threshold).all():
            found = replace(firing, lower=threshold, inverted=False)
        elif (threshold > firing.threshold).all():
            found = replace(
                firing, threshold=threshold, lower=firing.threshold, strict=not firing.strict, inverted=False
            )
        else:
            return False
        self.firings[index] = found
        self._binary = (self._binary - {old}) | {("q", index)}
        self.apart.add(index)
        self.repeated = {name: to for name, to in self.repeated.items() if to[0] != index}
        up, down = self._directions(index)
        fires = up if found.threshold is firing.threshold else plus(constant(1.0), scaled(down, -1.0))
        for name in reversed(list(self._roots)):  # what was read since the first comparison
            self._roots[name] = replaced(self._roots[name], old, fires, frozenset(self._binary))
            if name == firing.call.name:
                break
        return True

    @staticmethod
    def _directions(index: int) -> tuple[Poly, Poly]:
        """The spikes of each polarity, 0 or 1, in terms of both and their magnitude."""
        size, both = scaled(atom("q", index), 0.5), atom("s", index)
        return plus(size, scaled(both, 0.5)), plus(size, scaled(both, -0.5))

    def _spikes(self, found: Firing, spikes: Poly) -> bool:
        return self._keep(found.call, plus(constant(1.0), scaled(spikes, -1.0)) if found.inverted else spikes)

    # -- what is read of spikes and membranes ------------------------------------------------------------------------

    def sign(self, call: Call) -> bool:
        """The sign of a membrane; which of its spikes it is shows when it is read."""
        self._signs[call.name] = self._root(call.args[0])
        return self._keep_root(call, Root(call.name, np.ones(()), np.zeros(())))

    def _sign(self, name: str) -> Poly:
        """The sign of a membrane: its spikes where it fires, whichever way."""
        root = self._signs[name]
        index = self._fired.get(root.name)
        if index is None or not self._mirrored(self.firings[index]) or root.offset.any():
            return atom("x", name)
        silent = plus(constant(1.0), scaled(atom("q", index), -1.0))
        rest = times(silent, atom("x", name), frozenset(self._binary))
        return plus(scaled(atom("s", index), np.sign(root.scale)), rest)

    @staticmethod
    def _mirrored(firing: Firing) -> bool:
        return firing.lower is not None and np.array_equal(firing.lower, -firing.threshold)

    def magnitude(self, call: Call) -> bool:
        """The magnitude of spikes, or of a membrane that a comparison will read."""
        poly, root = self.poly(call.args[0]), self._root(call.args[0])
        (monomial, factor), *more = poly.items()
        if not more and len(monomial) == 1 and monomial[0][0] == "s":
            index = monomial[0][1]
            size: Atom = ("q" if ("q", index) in self._binary else "s", index)
            return size in self._binary and self._keep(call, scaled(atom(*size), np.abs(factor)))
        if root.offset.any():
            return False
        self._magnitudes[call.name] = Root(root.name, np.abs(root.scale), root.offset)
        return True

    def _of_magnitude(self, call: Call, distance: Root, *, strict: bool, inverted: bool) -> bool:
        """A comparison of a membrane's magnitude."""
        root = self._magnitudes[distance.name]
        if not (distance.scale > 0).all():
            return False
        threshold = -distance.offset / distance.scale / root.scale
        found = Firing(call, root.name, threshold, strict, lower=-threshold)
        index = self._fired.get(root.name)
        if index is None and (threshold > 0).all():
            index = self._new(found)
        elif index is None or not self.firings[index].fires_as(found) or not self._mirrored(self.firings[index]):
            return False
        fires = atom("q", index)
        return self._keep(call, plus(constant(1.0), scaled(fires, -1.0)) if inverted else fires)

    def _fired_atom(self, root: str) -> Atom | None:
        """The spikes that a tensor is."""
        poly = self._roots.get(root, {})
        atoms = [m[0] for m in poly if len(m) == 1]
        if len(poly) != 1 or len(atoms) != 1:
            return None
        kind, index = atoms[0]
        return atoms[0] if atoms[0] in self._binary or (kind == "s" and ("q", index) in self._binary) else None

    def of_spikes(self, call: Call) -> bool:
        """Spikes beside a number."""
        distance = self._difference(call.args[0], call.args[1])
        fired = None if distance is None else self._fired_atom(distance.name)
        if distance is None or fired is None:
            return False
        return self._of_spikes(call, call.target.split(".")[1], fired, distance)

    def _of_spikes(self, call: Call, what: str, fired: Atom, distance: Root) -> bool:
        """A comparison of spikes, such as ``s > 0``."""
        compare = COMPARE.get(what)
        if compare is None:
            return False
        factor = self._roots[distance.name][(fired,)]
        down, off, on = (
            np.asarray(compare(distance.scale * factor * s + distance.offset, 0.0), np.float64)
            for s in (-1.0, 0.0, 1.0)
        )
        if fired in self._binary:
            return self._keep(call, plus(constant(off), scaled({(fired,): np.ones(())}, on - off)))
        size = atom("q", fired[1])
        either = plus(scaled({(fired,): np.ones(())}, (on - down) / 2), scaled(size, (on + down) / 2 - off))
        return self._keep(call, plus(constant(off), either))

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
