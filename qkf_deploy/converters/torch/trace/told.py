"""Neuron classes described in words: ``model.py:LIF=decay=0.5,v_threshold=.theta,strict=true`` on the command line."""

from __future__ import annotations

import ast
import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qkf_deploy.errors import GraphError, UnsupportedError, UsageError
from qkf_deploy.ir.schema import check_attributes
from qkf_deploy.ops import Neuron
from qkf_deploy.ops.neuron import PER_POSITION

_WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None}
#: What a description may say: attributes of :class:`qkf_deploy.ops.Neuron`, and whether its first axis is time.
_STEPS = "steps"
_NAMES = tuple(f.name for f in fields(Neuron) if f.name not in ("carry", "time_merged_with_batch"))
_HINT = f"write CLASS=name=value,...: {', '.join(_NAMES)}, steps=multi|single; .name reads an attribute of the object"


@dataclass(frozen=True)
class ToldNeuron:
    """One class.

    Attributes:
        place: file or module it is defined in.
        name: of the class in it.
        values: what was said of it.
    """

    place: str
    name: str
    values: Mapping[str, Any]

    def describes(self, cls: type) -> bool:
        """True for the class itself, not for its subclasses."""
        if cls.__qualname__ != self.name:
            return False
        if not self.place.endswith(".py"):
            return cls.__module__ == self.place
        code = getattr(inspect.unwrap(getattr(cls, "forward", cls)), "__code__", None)
        return code is not None and Path(code.co_filename).resolve() == Path(self.place).resolve()

    def neuron(self, module: Any) -> tuple[Neuron, bool, dict[str, np.ndarray]]:
        """(meaning, multi-step, values per position) of an object.

        Raises:
            UnsupportedError: an attribute that it has not, or values that make no neuron.
        """
        values = {k: self._value(module, v) for k, v in self.values.items()}
        multi = values.pop(_STEPS, "multi") == "multi"
        params = {k: v for k, v in values.items() if isinstance(v, np.ndarray) and v.size > 1}
        plain = {k: float(v.max()) if isinstance(v, np.ndarray) else v for k, v in values.items()}
        try:
            op = Neuron(**{"tau": None, "v_threshold": 1.0, "v_reset": 0.0, "decay_input": False, **plain})
            check_attributes(op)
            op.check_firing(soft=op.v_reset is None, bounded=op.v_min is not None)
        except (GraphError, TypeError) as error:
            raise UnsupportedError(f"as {self.name} is described, it is no neuron: {error}", hint=_HINT) from error
        return op, multi, {k: v for k, v in params.items() if k in PER_POSITION}

    def _value(self, module: Any, value: Any) -> Any:
        if not (isinstance(value, str) and value.startswith(".")):
            return value
        found = getattr(module, value[1:], None)
        if found is None:
            raise UnsupportedError(f"{self.name} has no attribute {value[1:]}", hint=_HINT)
        if isinstance(found, torch.Tensor):
            return found.detach().cpu().double().numpy()
        return found


def parsed(told: Mapping[str, Any]) -> tuple[ToldNeuron, ...]:
    """Descriptions by ``file.py:Class`` or ``package.module:Class``.

    Raises:
        UsageError: one that cannot be read; says how it is written.
    """
    return tuple(_parsed(where, text) for where, text in told.items())


def _parsed(where: str, text: Any) -> ToldNeuron:
    place, colon, name = where.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"--neuron {where!r} names no class", hint=_HINT)
    values: dict[str, Any] = {}
    for part in str(text).split(","):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or key not in (*_NAMES, _STEPS):
            raise UsageError(f"--neuron {where}: {part!r}", hint=_HINT)
        values[key] = _literal(value)
    if values.get(_STEPS, "multi") not in ("multi", "single"):
        raise UsageError(f"--neuron {where}: steps={values[_STEPS]}", hint=_HINT)
    return ToldNeuron(place, name, values)


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


_TOLD: ContextVar[tuple[ToldNeuron, ...]] = ContextVar("told", default=())


@contextlib.contextmanager
def telling(neurons: Sequence[ToldNeuron]) -> Iterator[None]:
    """These classes are known while it lasts."""
    token = _TOLD.set(tuple(neurons))
    try:
        yield
    finally:
        _TOLD.reset(token)


def told_of(cls: type) -> ToldNeuron | None:
    """What was said of a class."""
    return next((t for t in _TOLD.get() if t.describes(cls)), None)


def check_used(neurons: Sequence[ToldNeuron], model: torch.nn.Module) -> None:
    """Raises UsageError for a class that the model has no object of."""
    classes = {type(m) for m in model.modules()}
    for told in neurons:
        if not any(told.describes(c) for c in classes):
            names = ", ".join(sorted(c.__qualname__ for c in classes))
            raise UsageError(
                f"--neuron {told.place}:{told.name}: the model has no such module", hint=f"it has: {names[:300]}"
            )
