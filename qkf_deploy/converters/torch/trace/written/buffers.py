"""Time steps written one by one into a tensor of zeros (``out[t] = s``): the same as stacking them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from qkf_deploy.converters.torch.trace.capture import Call, Program, Ref

_MADE = frozenset({"zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty", "full", "full_like"})
_WRITE = "aten.copy_.default"


@dataclass
class _Buffer:
    """A tensor that is made and then written to.

    Attributes:
        parts: written tensors by axis and index.
        calls: the calls that only write.
        last: position of the last of them.
        spoilt: True if it is used otherwise before every part is written.
    """

    name: str
    parts: dict[tuple[int, int], Ref] = field(default_factory=dict[tuple[int, int], Ref])
    calls: set[str] = field(default_factory=set[str])
    last: int = -1
    spoilt: bool = False

    def whole(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, list[Ref]] | None:
        """(axis, parts in order) if every index of one axis is written once, and nothing else happens."""
        axes = {axis for axis, _ in self.parts}
        if self.spoilt or len(axes) != 1:
            return None
        (axis,) = axes
        steps = range(shapes[self.name][axis])
        if any((axis, t) not in self.parts for t in steps):
            return None
        return axis, [self.parts[axis, t] for t in steps]


def stacked(program: Program) -> Program:
    """The program with such tensors stacked."""
    if not any(c.target == _WRITE for c in program.calls):
        return program
    found = _buffers(program)
    wholes = {b.last: (b, whole) for b in found.values() if (whole := b.whole(program.shapes)) is not None}
    gone = {name for b, _ in wholes.values() for name in b.calls}
    names: dict[str, Ref] = {}
    shapes, calls = dict(program.shapes), list[Call]()
    for position, call in enumerate(program.calls):
        if call.name not in gone:
            calls.append(replace(call, args=renamed(call.args, names)) if names else call)
        if position in wholes:
            buffer, (axis, parts) = wholes[position]
            name = f"{buffer.name}.stacked"
            shapes[name] = shapes[buffer.name]
            calls.append(replace(call, name=name, target="aten.stack.default", args=(parts, axis), kwargs={}))
            names[buffer.name] = Ref(name)
    outputs = tuple(names[o].name if o in names else o for o in program.outputs)
    return replace(program, calls=tuple(calls), outputs=outputs, shapes=shapes)


def _buffers(program: Program) -> dict[str, _Buffer]:
    buffers: dict[str, _Buffer] = {}
    views: dict[str, tuple[_Buffer, tuple[int, int] | None]] = {}
    for position, call in enumerate(program.calls):
        what = call.target.split(".")[1] if call.target.startswith("aten.") else call.target
        if what in _MADE:
            buffers[call.name] = _Buffer(call.name, calls={call.name})
            views[call.name] = (buffers[call.name], None)
            continue
        refs = call.references()
        seen = views.get(refs[0]) if refs else None
        if seen is not None and _views(call, what, seen, views, program):
            continue
        buffer, part = seen or (None, None)
        if call.target == _WRITE and buffer is not None and part is not None and refs[1:] and refs[1] not in views:
            buffer.spoilt |= part in buffer.parts
            buffer.parts[part] = Ref(refs[1])
            buffer.calls.add(call.name)
            buffer.last = position
            continue
        for name in refs:
            if name in views:  # read: nothing may be written afterwards
                buffer, part = views[name]
                buffer.spoilt |= part is not None or buffer.whole(program.shapes) is None
    return buffers


def _views(
    call: Call, what: str, seen: tuple[_Buffer, tuple[int, int] | None], views: dict[str, Any], program: Program
) -> bool:
    """Note a part of a buffer, or all of it under another name."""
    buffer, part = seen
    if part is not None or (buffer.last >= 0 and buffer.whole(program.shapes) is not None):
        return False
    shape = program.shapes[call.args[0].name]
    if what == "select":
        axis, index = (int(v) for v in call.args[1:3])
        views[call.name] = (buffer, (axis % len(shape), index % shape[axis]))
    elif what == "slice" and program.shapes[call.name] == shape:
        views[call.name] = (buffer, None)
    else:
        return False
    buffer.calls.add(call.name)
    return True


def renamed(value: Any, names: Mapping[str, Ref]) -> Any:
    """Arguments of a call, with other names for some tensors."""
    if isinstance(value, Ref):
        return names.get(value.name, value)
    if isinstance(value, list | tuple):
        changed = [renamed(v, names) for v in value]
        return tuple(changed) if isinstance(value, tuple) else changed
    return value
