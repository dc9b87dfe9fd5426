"""Calls that are made of others: written out, so that only the others need a meaning here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch._decomp import get_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from qkf_deploy.converters.torch.trace.capture import Call, Program, Ref, argument_of, capture
from qkf_deploy.converters.torch.trace.constants import overload
from qkf_deploy.converters.torch.trace.written.buffers import renamed

_NORM = "aten.batch_norm.default"
#: Permutations and reshapes, and one matrix product of a product of named axes.
_COMPOSITE = frozenset({
    "aten.einsum.default", "aten.pixel_shuffle.default", "aten.pixel_unshuffle.default", "aten.channel_shuffle.default",
    "aten.native_channel_shuffle.default",
})  # fmt: skip


def captured(model: torch.nn.Module, input_shape: tuple[int, ...]) -> Program:
    """A module's program as :func:`capture` gives it, written out. Raises UnsupportedError, InputError: as it does."""
    return _written_out(capture(model, input_shape))


def _written_out(program: Program) -> Program:
    """The program with such calls replaced by what they are made of: products of named axes (``einsum``) by what torch
    makes of them, norms of membranes by a factor and a shift per channel."""
    norms = _norms_of_membranes(program)
    if not norms and not any(c.target in _COMPOSITE for c in program.calls):
        return program
    shapes, tensors, calls = dict(program.shapes), dict(program.tensors), list[Call]()
    for call in program.calls:
        if call.target in _COMPOSITE:
            calls += _parts(call, shapes)
        elif call.name in norms:
            calls += _affine(call, shapes, tensors)
        else:
            calls.append(call)
    return replace(program, calls=tuple(calls), shapes=shapes, tensors=tensors)


def _norms_of_membranes(program: Program) -> set[str]:
    """Batch norms between a membrane and its threshold (arXiv 2308.08359): what one reads in a time step depends on
    what it gave in the step before."""
    same: dict[str, list[int]] = defaultdict(list)
    for place, call in enumerate(program.calls):
        if call.target == _NORM and all(r.name in program.tensors for r in call.args[1:5] if isinstance(r, Ref)):
            same[repr(call.args[1:])].append(place)
    places = {c.name: i for i, c in enumerate(program.calls)} if any(len(found) > 1 for found in same.values()) else {}
    loops = (found for found in same.values() if any(_depends(program, places, a, b) for a, b in pairwise(found)))
    return {program.calls[place].name for found in loops for place in found}


def _depends(program: Program, places: dict[str, int], first: int, last: int) -> bool:
    """True if the result of one call is needed for another one."""
    waiting, seen = {last}, set[int]()
    while waiting:
        place = waiting.pop()
        if place == first:
            return True
        seen.add(place)
        waiting |= {places[r] for r in program.calls[place].references() if places.get(r, -1) >= first} - seen
    return False


def _affine(call: Call, shapes: dict[str, tuple[int, ...]], tensors: dict[str, torch.Tensor]) -> Iterator[Call]:
    """A batch norm with running statistics as a factor and a shift per channel."""
    weight, bias, mean, var = (tensors[r.name].double() if isinstance(r, Ref) else None for r in call.args[1:5])
    if mean is None or var is None:  # its statistics are the batch's, which is said where it is lowered
        yield call
        return
    gain = (1.0 if weight is None else weight) / torch.sqrt(var + call.args[7])
    shift = (0.0 if bias is None else bias) - mean * gain
    shape = shapes[call.name]
    made = {"gain": gain, "shift": shift}
    for what, value in made.items():
        tensors[f"{call.name}.{what}"] = value.reshape(1, -1, *[1] * (len(shape) - 2))
    scaled = f"{call.name}.scaled"
    shapes[scaled] = shape
    yield replace(call, name=scaled, target="aten.mul.Tensor", args=(call.args[0], Ref(f"{call.name}.gain")))
    yield replace(call, target="aten.add.Tensor", args=(Ref(scaled), Ref(f"{call.name}.shift")), is_module=False)


def _parts(call: Call, shapes: dict[str, tuple[int, ...]]) -> list[Call]:
    """The calls that compute one, the last one under its name; their shapes are noted."""
    names = list(dict.fromkeys(call.references()))

    def compute(*tensors: torch.Tensor) -> Any:
        return overload(call.target)(*_given(call.args, dict(zip(names, tensors, strict=True))))

    table: Any = get_decompositions([overload(target) for target in _COMPOSITE])
    with FakeTensorMode():
        traced = make_fx(compute, table)(*(torch.empty(shapes[name]) for name in names))
    made = [n for n in traced.graph.nodes if n.op == "call_function"]
    if not made:  # the tensor itself
        return [replace(call, target="aten.alias.default", args=(Ref(names[0]),))]
    own = dict(zip((n.name for n in traced.graph.nodes if n.op == "placeholder"), names, strict=True))
    own |= {n.name: f"{call.name}.{n.name}" for n in made[:-1]} | {made[-1].name: call.name}
    shapes |= {own[n.name]: tuple(n.meta["val"].shape) for n in made}
    refs = {name: Ref(new) for name, new in own.items()}

    def part(node: torch.fx.Node) -> Call:
        args = renamed(tuple(argument_of(a) for a in node.args), refs)
        return replace(call, name=own[node.name], target=str(node.target), args=args, kwargs={}, is_module=False)

    return [part(n) for n in made]


def _given(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Arguments with tensors in place of their names."""
    if isinstance(value, Ref):
        return tensors[value.name]
    return [_given(v, tensors) for v in value] if isinstance(value, list | tuple) else value
