"""Leaky integrators behind the last neuron: what they give is a sum of the time steps, each with its weight."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch

from qkf_deploy.converters.torch.trace.capture import NEURON_CALL, Call, Program, Ref
from qkf_deploy.converters.torch.trace.constants import Aliases, Constants
from qkf_deploy.converters.torch.trace.needed import needed

#: A tensor as a sum of others with factors.
_Sum = dict[str, float]
_SAME = frozenset({"clone", "alias", "contiguous", "detach"})


def integrated(program: Program) -> Program:
    """The program with results such as ``o = a * o + y[t]``, and means of them, as weighted sums of the ``y[t]``."""
    steps = max(Counter(c.args[1] for c in program.calls if c.target == NEURON_CALL).values(), default=1)
    if steps == 1:
        return program
    sums, calls = _Sums(program), list(program.calls)
    shapes, tensors, outputs = dict(program.shapes), dict(program.tensors), list[str]()
    for output in program.outputs:
        weights = sums.of.get(output, {})
        parts = [c for c in program.calls if c.name in weights]
        one_layer = len({(c.path, c.target) for c in parts}) == 1 and len(parts) == len(weights) == steps
        if not one_layer or len(set(weights.values())) == 1:
            outputs.append(output)
            continue
        names = [f"{output}.{what}" for what in ("steps", "weights", "weighted", "sum")]
        shape = shapes[output]
        shapes |= {names[0]: (steps, *shape), names[2]: (steps, *shape), names[3]: shape}
        factors = torch.tensor([weights[c.name] for c in parts], dtype=torch.float64)
        tensors[names[1]] = factors.reshape(-1, *[1] * len(shape))
        made = replace(parts[-1], path="", is_module=False, kwargs={})
        calls.append(replace(made, name=names[0], target="aten.stack.default", args=([Ref(c.name) for c in parts], 0)))
        calls.append(replace(made, name=names[2], target="aten.mul.Tensor", args=(Ref(names[0]), Ref(names[1]))))
        calls.append(replace(made, name=names[3], target="aten.sum.dim_IntList", args=(Ref(names[2]), [0])))
        outputs.append(names[3])
    if outputs == list(program.outputs):
        return program
    kept = needed(calls, outputs, {*sums.of, *sums.stacks}, set())
    return replace(program, calls=kept, shapes=shapes, tensors=tensors, outputs=tuple(outputs))


class _Sums:
    """What is a sum of other tensors, by name, and what stacks such sums along its first axis."""

    def __init__(self, program: Program) -> None:
        self.of: dict[str, _Sum] = {}
        self.stacks: dict[str, list[_Sum]] = {}
        self._constants = Constants(program)
        self._changed = {c.references()[0] for c in program.calls if Aliases.in_place(c)}
        for call in program.calls:
            if not call.target.startswith("aten.") or self._constants.evaluate(call) or call.name in self._changed:
                continue
            what = call.target.split(".")[1]
            stacked = [self._terms(v) for v in call.args[0]] if what == "stack" and call.args[1:] in ((), (0,)) else []
            if stacked and None not in stacked:
                self.stacks[call.name] = [t for t in stacked if t is not None]
            found = self._sum(call, what)
            if found is not None:
                self.of[call.name] = found

    def _terms(self, value: Any) -> _Sum | None:
        """An argument as a sum; ``None`` for a constant that is not 0, and for what is written to."""
        number = self._constants.number(value)
        if number is not None or not isinstance(value, Ref) or value.name in self._constants.values:
            return {} if number == 0.0 else None
        return None if value.name in self._changed else self.of.get(value.name, {value.name: 1.0})

    def _sum(self, call: Call, what: str) -> _Sum | None:
        args = call.args
        if what in _SAME:
            return self._terms(args[0])
        if what in ("add", "sub"):
            sign = float(call.kwargs.get("alpha", 1)) * (1 if what == "add" else -1)
            return _plus([(self._terms(args[0]), 1.0), (self._terms(args[1]), sign)])
        if what in ("mul", "div"):
            first, second = (self._constants.number(a) for a in args[:2])
            if second and not call.kwargs:
                return _plus([(self._terms(args[0]), second if what == "mul" else 1.0 / second)])
            return _plus([(self._terms(args[1]), first)]) if first and what == "mul" else None
        stacked = self.stacks.get(args[0].name) if args and isinstance(args[0], Ref) else None
        if stacked is None or what not in ("sum", "mean", "select"):
            return None
        if what == "select":
            return stacked[int(args[2])] if args[1] == 0 else None
        share = 1.0 / len(stacked) if what == "mean" else 1.0
        return _plus([(t, share) for t in stacked]) if args[1:] == ([0],) and not call.kwargs else None


def _plus(terms: list[tuple[_Sum | None, float]]) -> _Sum | None:
    out: _Sum = {}
    for sum_, factor in terms:
        if sum_ is None:
            return None
        for name, value in sum_.items():
            out[name] = out.get(name, 0.0) + factor * value
    return out
