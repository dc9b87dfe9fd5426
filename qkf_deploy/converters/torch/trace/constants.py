"""Constants of a program: parameters, and whatever is computed from them alone; and writes in place."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch

from qkf_deploy.converters.torch.trace.capture import NEURON_CALL, Call, Program, Ref
from qkf_deploy.errors import UnsupportedError


class Constants:
    """Tensors that do not depend on the input.

    What the model computes from parameters alone (a standardized weight, the sigmoid of a learned constant) is computed
    here once, in float64.
    """

    def __init__(self, program: Program) -> None:
        self._given = program.tensors
        self.values: dict[str, Any] = dict(program.tensors)
        self.random: set[str] = set()
        #: What is computed alike at every time step (a standardized weight, a product of factors), by its first name.
        self.same: dict[str, str] = {}
        self._first: dict[tuple[Any, ...], str] = {}

    def evaluate(self, call: Call) -> bool:
        """Compute a call whose arguments are all constants; False if it is not such a call."""
        refs = call.references()
        if call.target == NEURON_CALL or not all(r in self.values or r in self.random for r in refs):
            return False
        function = operator.getitem if call.target == "getitem" else overload(call.target)
        if function is None:
            return False
        if _draws(function, call) or not self.random.isdisjoint(refs):
            self.random.add(call.name)
            return True
        if refs and (Aliases.in_place(call) or _shares(call.target)):
            self._own(refs[0])
        if Aliases.in_place(call):  # what has been computed of it is so no more
            self._first.clear()
        elif self._computed(call):
            return True
        try:
            with torch.no_grad():
                args, kwargs = self._resolve(call.args), {k: self._resolve(v) for k, v in call.kwargs.items()}
                self.values[call.name] = _widened(function(*args, **kwargs))
        except (RuntimeError, TypeError, NotImplementedError):
            return False  # whoever reads it is refused by name
        return True

    def _computed(self, call: Call) -> bool:
        """True if the same call has been evaluated already."""
        first = self._first.setdefault((call.target, *call.constants((), self.same)), call.name)
        if first == call.name or first not in self.values:
            return False
        self.same[call.name], self.values[call.name] = first, self.values[first]
        return True

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._resolve(v) for v in value]
        if not isinstance(value, Ref):
            return value
        return _widened(self.values[value.name])

    def _own(self, name: str) -> None:
        """Let a parameter have memory of its own, in float64: what is written to a part of it is written to it."""
        known = self.values[name]
        if known is self._given.get(name) and isinstance(known, torch.Tensor):
            self.values[name] = _widened(known.detach().clone())

    def array(self, value: Any) -> np.ndarray:
        """A constant as an array.

        Raises:
            UnsupportedError: it depends on the input.
        """
        if isinstance(value, bool | int | float):
            return np.array(float(value))
        known = self.values.get(value.name) if isinstance(value, Ref) else None
        if isinstance(value, Ref) and value.name in self.random:
            raise UnsupportedError(
                "uses random numbers, which are others at every run", hint="make them once, as a buffer of the model"
            )
        if not isinstance(known, torch.Tensor):
            raise UnsupportedError("takes a computed tensor where a parameter is expected")
        short = known.dtype in (torch.float16, torch.bfloat16)
        return known.detach().to(torch.float32 if short else known.dtype).numpy()

    def number(self, value: Any) -> float | None:
        """A number, or a constant tensor whose elements are all the same."""
        if isinstance(value, bool | int | float):
            return float(value)
        known = self.values.get(value.name) if isinstance(value, Ref) else None
        if not isinstance(known, torch.Tensor) or known.numel() == 0:
            return None
        first = known.detach().reshape(-1)[0]
        return float(first) if bool((known == first).all()) else None


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def overload(target: str) -> Any:
    """The operator of a name such as ``aten.add.Tensor``."""
    where: Any = torch.ops
    for part in target.split("."):
        where = getattr(where, part, None)
        if where is None:
            return None
    return where


def _draws(function: Any, call: Call) -> bool:
    """True for random numbers; dropout is none of that in evaluation mode."""
    return torch.Tag.nondeterministic_seeded in getattr(function, "tags", ()) and "dropout" not in call.target


class Aliases:
    """Writes in place: the tensor written to changes, and so does every tensor that shares its memory."""

    def __init__(self, program: Program) -> None:
        self.group: dict[str, set[str]] = {}
        self.last_read: dict[str, int] = {}
        for index, call in enumerate(program.calls):
            for name in call.references():
                self.last_read[name] = index
            if _shares(call.target) and call.references():
                self._join(call.references()[0], call.name)

    def _join(self, a: str, b: str) -> None:
        joined = self.group.get(a, {a}) | self.group.get(b, {b})
        for name in joined:
            self.group[name] = joined

    @staticmethod
    def in_place(call: Call) -> bool:
        """True if a call changes its first argument: its values, or only its shape (``unsqueeze_``)."""
        return call.target.startswith("aten.") and call.target.split(".")[1].endswith("_")

    def check(self, index: int, call: Call) -> None:
        """Raises UnsupportedError if a write in place changes another tensor that is read later."""
        if not self.in_place(call) or _shares(call.target):  # another shape is the tensor's own
            return
        written = call.references()[0]
        others = self.group.get(written, set()) - {written, call.name}
        if any(self.last_read.get(name, -1) > index for name in others):
            raise UnsupportedError(
                "writes in place to a tensor that another one shares its memory with", hint="write x = x + y instead"
            )


_SHARING = (
    "reshape", "view", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "t",
    "mT", "contiguous", "detach", "alias", "dropout", "to", "view_as", "expand", "slice", "select", "narrow", "chunk",
    "split", "unbind", "split_with_sizes", "swapaxes", "movedim",
)  # fmt: skip


def _shares(target: str) -> bool:
    """True if the result of an operator may share memory with its first argument."""
    return target == "getitem" or (target.startswith("aten.") and target.split(".")[1].removesuffix("_") in _SHARING)
