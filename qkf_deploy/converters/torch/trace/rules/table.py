"""The table of rules, and what all rules use to read the arguments of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.lowering import Rule
from qkf_deploy.converters.torch.trace.symbols import Layout, Symbol
from qkf_deploy.errors import UnsupportedError

RULES: dict[str, Rule] = {}


def rule(*targets: str) -> Callable[[Rule], Rule]:
    """Register a function for these operators."""

    def register(function: Rule) -> Rule:
        for target in targets:
            RULES[target] = function
        return function

    return register


def argument(call: Call, position: int, name: str, default: Any = None) -> Any:
    """An argument by position or keyword."""
    return call.args[position] if len(call.args) > position else call.kwargs.get(name, default)


def positive(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis + rank if axis < 0 else axis


def per_axis(value: Any, rank: int) -> tuple[int, ...]:
    """One entry per spatial axis."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * rank if len(values) == 1 else values)


def batch_first(x: Symbol, features: int) -> Layout:
    """Layout of a tensor whose last ``features`` axes are features and whose first are time and batch."""
    layout = x.layout()
    if len(layout) < features or any(lead is not None for lead in layout[-features:]) or None in layout[:-features]:
        raise UnsupportedError("expects the time and batch axes first")
    return layout
