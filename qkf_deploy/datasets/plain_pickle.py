"""The few pickle instructions that the published CIFAR files consist of, interpreted without running anything.

Python's own unpickler calls what a file names and takes what memory it says. Here names stay names, and an array is
made of its bytes only after they fit its shape. Protocol 2 as Python 2 wrote it; `pickletools` splits the instructions.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy import limits
from qkf_deploy.errors import InputError

#: Memory that a byte of the file may take, a one-byte number in a list at worst.
_BYTES_PER_BYTE = 32
_HINT = "is it a batch of CIFAR-10 or CIFAR-100 as published, `python version`?"
_RECONSTRUCT = ("numpy.core.multiarray", "_reconstruct")
_NAMES = {_RECONSTRUCT, ("numpy", "ndarray"), ("numpy", "dtype")}
_CONSTANTS = {
    *("BININT", "BININT1", "BININT2", "SHORT_BINSTRING", "BINSTRING", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"),
    *("STRING", "INT", "NONE", "NEWTRUE", "NEWFALSE"),
}
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class _Name:
    """Something that the file names."""

    of: tuple[str, str]


@dataclass
class _Made:
    """What the file would have made by a call."""

    name: _Name
    arguments: tuple[Any, ...]
    state: Any = None


def read(path: Path) -> dict[str, Any]:
    """The dictionary of a file: texts, whole numbers, lists of them and uint8 arrays.

    Raises:
        InputError: not such a file, or beyond the memory limit.
    """
    data = limits.read_whole(path, bytes_per_byte=_BYTES_PER_BYTE)
    try:
        found = _array_made(_Machine().run(data))
        if not isinstance(found, dict):
            raise ValueError("it holds no dictionary")
        return {_text(key): _array_made(value) for key, value in found.items()}
    except _DAMAGE as error:
        what = " ".join(str(error).split())[:200]
        raise InputError(f"not a readable pickle of arrays: {what}", where=str(path), hint=_HINT) from error


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError("a key that is no text")
    return key


class _Machine:
    """Stack and memory of the interpreter."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lies below each open mark
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for instruction, argument, _ in pickletools.genops(data):
            if instruction.name == "STOP":
                if len(self.stack) != 1 or self.below:
                    raise ValueError("it ends in the middle")
                return self.stack[0]
            self.step(instruction.name, argument)
        raise ValueError("it has no end")

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            value = _FIXED.get(name, argument)
            self.stack.append(value.decode("latin-1") if isinstance(value, bytes) and len(value) < 256 else value)
        elif name in _TUPLES:
            count = _TUPLES[name]
            self.stack.append(tuple(self.stack.pop() for _ in range(count))[::-1])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        else:
            _STEPS[name](self, argument)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def close_tuple(self) -> None:
        items = tuple(self.since_mark())
        self.stack.append(items)

    def fill(self, items: list[Any]) -> None:
        """Put items into the list, or pairs into the dictionary, on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, dict) and len(items) % 2 == 0:
            target.update(zip(items[::2], items[1::2], strict=True))
        else:
            raise ValueError("items of nothing")

    def call(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of something else than numpy's arrays")
        self.stack.append(_Made(name, arguments))

    def build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, _Made):
            raise ValueError("a state of something else than numpy's arrays")
        made.state = state


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    if (module, name) not in _NAMES:
        raise ValueError(f"it names {argument[:80]!r}")
    machine.stack.append(_Name((module, name)))


_STEPS = {
    "PROTO": lambda machine, version: None,
    "MARK": lambda machine, _: machine.mark(),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "TUPLE": lambda machine, _: machine.close_tuple(),
    "APPENDS": lambda machine, _: machine.fill(machine.since_mark()),
    "SETITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "APPEND": lambda machine, _: machine.fill([machine.stack.pop()]),
    "SETITEM": lambda machine, _: machine.fill([machine.stack.pop(), machine.stack.pop()][::-1]),
    "GLOBAL": _global,
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}


def _array_made(value: Any) -> Any:
    """An array of unsigned bytes where the file would have made one; everything else as it is."""
    if not isinstance(value, _Made):
        return value
    _, shape, kind, fortran, data = value.state
    wanted = isinstance(kind, _Made) and kind.name.of == ("numpy", "dtype") and kind.arguments[0] == "u1"
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if value.name.of != _RECONSTRUCT or not wanted or fortran is not False or not sizes:
        raise ValueError("an array of something else than bytes")
    raw = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(raw, bytes) or len(raw) != math.prod(shape):
        raise ValueError(f"an array of {shape} with other data")
    return np.frombuffer(raw, np.uint8).reshape(shape)
