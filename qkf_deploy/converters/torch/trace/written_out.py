"""Operators that torch itself makes of others: written out, so that only the others need a meaning here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from qkf_deploy.converters.torch.trace.capture import Call, Program, Ref, argument_of
from qkf_deploy.converters.torch.trace.constants import overload
from qkf_deploy.converters.torch.trace.written.buffers import renamed

#: A product of named axes: permutations, reshapes and one matrix product.
_COMPOSITE = frozenset({"aten.einsum.default"})


def written_out(program: Program) -> Program:
    """The program with such calls replaced by what they are made of."""
    if not any(c.target in _COMPOSITE for c in program.calls):
        return program
    shapes, calls = dict(program.shapes), list[Call]()
    for call in program.calls:
        calls += _parts(call, shapes) if call.target in _COMPOSITE else [call]
    return replace(program, calls=tuple(calls), shapes=shapes)


def _parts(call: Call, shapes: dict[str, tuple[int, ...]]) -> list[Call]:
    """The calls that compute one, the last one under its name; their shapes are noted."""
    names = list(dict.fromkeys(call.references()))

    def compute(*tensors: torch.Tensor) -> Any:
        return overload(call.target)(*_given(call.args, dict(zip(names, tensors, strict=True))))

    with FakeTensorMode():
        traced = make_fx(compute)(*(torch.empty(shapes[name]) for name in names))
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
