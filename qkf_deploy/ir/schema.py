"""Attributes have the types that their dataclass declares: one schema per operator, generated from it."""

from __future__ import annotations

import math
import numbers
import types
from dataclasses import fields
from functools import cache
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from qkf_deploy.errors import GraphError

#: Attributes are stored, exchanged and computed with as int64.
_MOST = 2**62
_TRUTH: tuple[type, ...] = (bool, np.bool_)


def check_attributes(op: Any) -> None:
    """Check every field of a frozen dataclass and bring numbers to Python's own types.

    Whole numbers may be numpy's; a float is never taken for a whole number, nor a truth value for a number, and numbers
    are finite and below 2^62.

    Raises:
        GraphError: a field of another type, naming it.
    """
    cls: type[object] = op.__class__
    for name, hint in _schema(cls).items():
        value = getattr(op, name)
        try:
            converted = _convert(value, hint)
        except (TypeError, ValueError):
            shown = repr(value)[:60]
            raise GraphError(f"{cls.__name__}: {name} is {shown}, not {_readable(hint)}") from None
        if converted is not value:
            object.__setattr__(op, name, converted)  # frozen, and still being made


@cache
def _schema(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def _convert(value: Any, hint: Any) -> Any:
    """The value as the hint says. Raises TypeError or ValueError if it is none."""
    origin = get_origin(hint)
    if origin is Literal:
        if isinstance(value, str) and value in get_args(hint):
            return value
        raise ValueError
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, get_args(hint))
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise TypeError
        given, items = tuple(cast("tuple[Any, ...]", value)), get_args(hint)
        items = items[:1] * len(given) if items[1:] == (...,) else items
        return tuple(_convert(v, item) for v, item in zip(given, items, strict=True))
    return _scalar(value, hint)


def _first_that_fits(value: Any, hints: tuple[Any, ...]) -> Any:
    for hint in hints:
        try:
            return _convert(value, hint)
        except (TypeError, ValueError):
            continue
    raise TypeError


def _scalar(value: Any, hint: Any) -> Any:
    if hint is type(None) and value is None:
        return None
    if isinstance(value, _TRUTH):
        if hint is not bool:
            raise TypeError
        return bool(value)
    if hint is int and isinstance(value, numbers.Integral) and abs(int(value)) < _MOST:
        return int(value)
    if hint is float and isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    if hint not in (int, float, bool) and isinstance(value, hint):
        return value
    raise TypeError


def _readable(hint: Any) -> str:
    """A type as people write it."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    names = {
        int: "a whole number of at most 62 bits",
        float: "a finite number",
        bool: "true or false",
        str: "a text",
        type(None): "none",
    }
    if get_origin(hint) is tuple:
        return f"a list, each {_readable(get_args(hint)[0])}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_readable(h) for h in get_args(hint))
    return names.get(hint, f"a {getattr(hint, '__name__', hint)}")
