"""Counts that are limited after they were rounded: the same as limiting first, which is how neurons are found."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from qkf_deploy.converters.torch.trace.capture import Call, Program, Ref
from qkf_deploy.converters.torch.trace.constants import Constants

#: Ends the name of what is rounded after it was limited; the model's own result of that name is not limited yet.
LIMITED = ".limited"
_ROUND = ("aten.round.default", "aten.floor.default")
_SCALE = ("aten.mul.Tensor", "aten.div.Tensor")


def limited_first(program: Program) -> Program:
    """The program with ``clamp(floor(x) / n, 0, 1)`` as ``floor(clamp(x, 0, n)) / n``, for whole n."""
    if not any(c.target in _ROUND for c in program.calls):
        return program
    made, constants = {c.name: c for c in program.calls}, Constants(program)
    read = Counter(name for c in program.calls for name in c.references()) + Counter(program.outputs)
    shapes, instead = dict(program.shapes), dict[str, list[Call]]()
    for call in program.calls:
        constants.evaluate(call)
        chain = _chain(call, made, read)
        most = _most(call, chain[:-1], constants) if chain else None
        if most is None:
            continue
        rounded, below = chain[-1], f"{chain[-1].name}.below"
        within = Ref(f"{rounded.name}{LIMITED}")
        instead[rounded.name] = [
            replace(call, name=below, target="aten.clamp.default", args=(rounded.args[0], 0, most), kwargs={}),
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
    if call.target != "aten.clamp.default":
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


def _most(call: Call, steps: list[Call], constants: Constants) -> int | None:
    """The largest count: what becomes of it is exactly the upper limit; ``None`` if the lower one is not 0."""
    low, high = (constants.number(v) for v in (*call.args[1:3], None)[:2])
    factors = [(s.target, constants.number(s.args[1])) for s in reversed(steps)]
    if low != 0.0 or high is None or any(f is None or f <= 0.0 for _, f in factors):
        return None

    def scaled(count: float) -> float:
        for target, factor in factors:
            count = count / (factor or 1.0) if target == "aten.div.Tensor" else count * (factor or 1.0)
        return count

    most = round(high / scaled(1.0))
    return most if scaled(float(most)) == high else None
