"""Keyword arguments that are written once: the fields of a frozen dataclass, each with its help.

:class:`takes` makes a function accept them, with the types and defaults an editor shows; :mod:`qkf_deploy.cli.options`
makes command line options of the same fields, and `tools/api_reference.py` the documentation.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from qkf_deploy.errors import KeywordError, UsageError

P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
R = TypeVar("R")


@dataclass(frozen=True)
class Help:
    """What a keyword means, and how it is written on the command line.

    Attributes:
        text: one or two sentences, with unit and what holds where it is not given.
        flags: names on the command line, by default one made of the keyword's name.
        least, most: limits of a number, both allowed.
        metavar: placeholder on the command line.
        command_line: whether commands offer it.
    """

    text: str
    flags: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    metavar: str | None = None
    command_line: bool = True


@dataclass(frozen=True)
class Keyword:
    """One field of an options class.

    Attributes:
        name: of the argument.
        type: without its help.
        default: or ``dataclasses.MISSING``.
        positional: may be given without its name.
        help: its meaning.
    """

    name: str
    type: Any
    default: Any
    positional: bool
    help: Help

    @property
    def limited(self) -> bool:
        """True if the value has limits."""
        return self.help.least is not None or self.help.most is not None

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a ``Literal``, else nothing."""
        return next((get_args(kind) for kind in self.kinds if get_origin(kind) is Literal), ())

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types a value may have, ``None`` left out."""
        if get_origin(self.type) not in (Union, UnionType):
            return (self.type,)
        return tuple(kind for kind in get_args(self.type) if kind is not NoneType)


@functools.cache
def keywords(options: type[Options]) -> tuple[Keyword, ...]:
    """The fields of an options class, in the order of their declaration."""
    hints = get_type_hints(options, include_extras=True)
    found: list[Keyword] = []
    for field in fields(options):
        kind, help_ = get_args(hints[field.name])
        default = field.default if field.default_factory is MISSING else field.default_factory()
        found.append(Keyword(field.name, kind, default, not field.kw_only, help_))
    return tuple(found)


def part(values: Options | dict[str, Any], options: type[Options]) -> dict[str, Any]:
    """Those values that belong to an options class; they are taken out of a dictionary."""
    names = [keyword.name for keyword in keywords(options)]
    return {name: values.pop(name) if isinstance(values, dict) else getattr(values, name) for name in names}


def as_flags(options: Options, of: type[Options]) -> list[str]:
    """The words of a command line that give those options of a class that do not have their defaults."""
    words: list[str] = []
    for keyword in keywords(of):
        value: Any = getattr(options, keyword.name)
        if keyword.help.command_line and value != keyword.default:
            words += _words(keyword.help.flags[0] if keyword.help.flags else f"--{_dashed(keyword.name)}", value)
    return words


def _words(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, Mapping):
        pairs = cast(Mapping[str, Any], value).items()
        return [word for name, given in pairs for word in (flag, f"{name}={given}")]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [flag, ",".join(map(str, cast(Sequence[Any], value)))]
    return [flag, str(value)]


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def changed(options: Options, *but: str) -> list[str]:
    """Flags of the options that do not have their defaults, some names left out."""
    found = [k for k in keywords(type(options)) if k.name not in but and getattr(options, k.name) != k.default]
    return [k.help.flags[0] if k.help.flags else f"--{_dashed(k.name)}" for k in found]


@dataclass(frozen=True)
class Options:
    """Base of all options: choices and limits are checked when they are made.

    Raises:
        UsageError: a value that is not among the choices, or beyond the limits.
    """

    def __post_init__(self) -> None:
        for keyword in keywords(type(self)):
            _check(keyword, getattr(self, keyword.name))


def _check(keyword: Keyword, value: Any) -> None:
    if value is None and keyword.default is None:
        return
    numeric = not {int, float}.isdisjoint(keyword.kinds)
    if keyword.choices and not (numeric and isinstance(value, Real)):
        if value not in keyword.choices:
            wanted = [*keyword.choices, "a number"] if numeric else keyword.choices
            raise UsageError(f"{keyword.name}: {value!r}", hint=f"use {_or(wanted)}")
        return
    if not numeric:
        return
    least, most = keyword.help.least, keyword.help.most
    for number in _numbers(keyword, value):
        if not (least is None or number >= least) or not (most is None or number <= most):
            span = f"use {least} or more" if most is None else f"use {least} to {most}"
            raise UsageError(f"{keyword.name}: {number}", hint=span)


def _numbers(keyword: Keyword, value: Any) -> tuple[float, ...]:
    """The number, or the numbers where several may be given."""
    numbers: tuple[Any, ...] = (value,)
    if any(get_origin(kind) is Sequence for kind in keyword.kinds) and not isinstance(value, str):
        numbers = tuple(cast(Iterable[Any], value)) if isinstance(value, Iterable) else (value,)
    kind, words = (Real, "a number") if float in keyword.kinds else (Integral, "a whole number")
    if any(isinstance(number, bool) or not isinstance(number, kind) for number in numbers):
        raise UsageError(f"{keyword.name}: {value!r}", hint=f"use {words}")
    return numbers


def _or(names: Sequence[Any]) -> str:
    *first, last = map(str, names)
    return f"{', '.join(first)} or {last}" if first else last


class takes(Generic[P]):  # noqa: N801 - a decorator
    """Gives a function the fields of an options class as keyword arguments.

    The function itself takes the options as its last argument. What is made of it has the fields in their place, in its
    signature, its documentation and for type checkers, and an unknown keyword is a :class:`KeywordError`.
    """

    def __init__(self, options: Callable[P, Options]) -> None:
        self._options: Any = options

    @overload
    def __call__(self, function: Callable[[A, Any], R], /) -> Callable[Concatenate[A, P], R]: ...
    @overload
    def __call__(self, function: Callable[[A, B, Any], R], /) -> Callable[Concatenate[A, B, P], R]: ...
    @overload
    def __call__(self, function: Callable[[A, B, C, Any], R], /) -> Callable[Concatenate[A, B, C, P], R]: ...
    def __call__(self, function: Callable[..., R], /) -> Callable[..., R]:
        cls, known = self._options, keywords(self._options)
        whole = inspect.signature(function)
        *leading, _ = whole.parameters.values()
        signature = whole.replace(parameters=[*leading, *map(_parameter, known)])
        names = {keyword.name for keyword in known}

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> R:
            bound = _bind(function.__name__, signature, args, given).arguments
            own = {name: bound.pop(name) for name in list(bound) if name in names}
            return function(**bound, **{last: cls(**own)})

        last = list(whole.parameters)[-1]
        _show_as(call, signature)
        call.__doc__ = _documented(function.__doc__ or "", known)
        return call


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Makes unknown keywords of a function a :class:`KeywordError` that names the nearest."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> R:
        _bind(function.__name__, signature, args, given)
        return function(*args, **given)

    return call


def _bind(name: str, signature: inspect.Signature, args: Any, given: Any) -> inspect.BoundArguments:
    for keyword in given:
        if keyword not in signature.parameters:
            raise KeywordError(f"{name} has no option {keyword!r}", hint=_nearest(keyword, list(signature.parameters)))
    try:
        return signature.bind(*args, **given)
    except TypeError as error:
        raise KeywordError(f"{name}: {error}", hint=f"help(qkf_deploy.{name}) shows its arguments") from None


def _nearest(name: str, known: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"


def _parameter(keyword: Keyword) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if keyword.positional else inspect.Parameter.KEYWORD_ONLY
    default = inspect.Parameter.empty if keyword.default is MISSING else keyword.default
    return inspect.Parameter(keyword.name, kind, default=default, annotation=keyword.type)


def _show_as(function: Any, signature: inspect.Signature) -> None:
    function.__signature__ = signature
    annotations = {p.name: p.annotation for p in signature.parameters.values()}
    function.__annotations__ = {**annotations, "return": signature.return_annotation}


def _documented(text: str, known: Sequence[Keyword]) -> str:
    """The docstring with the keywords under its arguments."""
    lines = inspect.cleandoc(text).splitlines()
    at = lines.index("Args:") + 1 if "Args:" in lines else len(lines)
    while at < len(lines) and lines[at].startswith(" "):
        at += 1
    return "\n".join([*lines[:at], *(f"    {k.name}: {k.help.text}" for k in known), *lines[at:]])
