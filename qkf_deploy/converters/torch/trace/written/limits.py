"""Counts that are limited after they were rounded: the same as limiting first, which is how neurons are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from qkf_deploy.converters.torch.trace.capture import Call, Program, Ref
from qkf_deploy.converters.torch.trace.constants import Constants

#: Ends the name of what is rounded after it was limited; the model's own result of that name is not limited yet.
LIMITED = ".limited"
_ROUND = ("aten.round.default", "aten.floor.default")
#: What limits, and the names of its limits with the values that they have without an argument.
_LIMITS: Mapping[str, Mapping[str, float | None]] = {
    "aten.clamp.default": {"min": None, "max": None}, "aten.clamp_min.default": {"min": None, "": None},
    "aten.hardtanh.default": {"min_val": -1.0, "max_val": 1.0},
    "aten.relu.default": {"": 0.0, " ": None}, "aten.relu6.default": {"": 0.0, " ": 6.0},
}  # fmt: skip
_SCALE = ("aten.mul.Tensor", "aten.div.Tensor")


def limited_first(program: Program) -> Program:
    """The program with ``clamp(floor(x) / n, 0, 1)`` as ``floor(clamp(x, 0, n)) / n``, n whole; other limits alike."""
    if not any(c.target in _ROUND for c in program.calls):
        return program
    made, constants = {c.name: c for c in program.calls}, Constants(program)
    read = Counter(name for c in program.calls for name in c.references()) + Counter(program.outputs)
    shapes, instead = dict(program.shapes), dict[str, list[Call]]()
    for call in program.calls:
        constants.evaluate(call)
        chain = _chain(call, made, read)
        limits = _counts(call, chain[:-1], constants) if chain else None
        if limits is None:
            continue
        rounded, below = chain[-1], f"{chain[-1].name}.below"
        within = Ref(f"{rounded.name}{LIMITED}")
        instead[rounded.name] = [
            replace(call, name=below, target="aten.clamp.default", args=(rounded.args[0], *limits), kwargs={}),
            replace(rounded, name=within.name, args=(Ref(below),)),
        ]
        shapes |= {below: shapes[rounded.name], within.name: shapes[rounded.name]}
        steps = chain[:-1]
        if steps:
            instead[steps[-1].name] = [replace(steps[-1], args=(within, *steps[-1].args[1:]))]
        last = Ref(steps[0].name) if steps else within
        instead[call.name] = [replace(call, target="aten.alias.default", args=(last,), kwargs={})]
    calls = [new for call in program.calls for new in instead.get(call.name, [call])]
    return replace(program, calls=tuple(calls), shapes=shapes)


def _chain(call: Call, made: dict[str, Call], read: Counter[str]) -> list[Call]:
    """From what a clamp limits back to what was rounded, if nothing else reads any of it; empty if it is none."""
    if call.target not in _LIMITS:
        return []
    found: list[Call] = []
    at = call
    while isinstance(at.args[0], Ref) and at.args[0].name in made and read[at.args[0].name] == 1:
        at = made[at.args[0].name]
        found.append(at)
        if at.target in _ROUND:
            return found
        if at.target not in _SCALE:
            break
    return []


def _counts(call: Call, steps: list[Call], constants: Constants) -> tuple[int, int | None] | None:
    """The smallest count, 0 or the mirror of the largest one, and the largest: what becomes of it is exactly the upper
    limit. ``None`` where the limits are others."""
    given = ((i, name, value) for i, (name, value) in enumerate(_LIMITS[call.target].items(), start=1))
    limits = [call.args[i] if len(call.args) > i else call.kwargs.get(name, value) for i, name, value in given]
    low, high = (None if v is None else constants.number(v) for v in limits)
    factors = [(s.target, constants.number(s.args[1])) for s in reversed(steps)]
    if low is None or any(f is None or f <= 0.0 for _, f in factors):
        return None
    if high is None:
        return (0, None) if low == 0.0 else None

    def scaled(count: float) -> float:
        for target, factor in factors:
            count = count / (factor or 1.0) if target == "aten.div.Tensor" else count * (factor or 1.0)
        return count

    most = round(high / scaled(1.0))
    return (round(low / scaled(1.0)), most) if scaled(float(most)) == high and low in (0.0, -high) else None
