"""Command line options made of the fields of an options class: name, type, default, limits and help stand there."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_args, get_origin

import click

from qkf_deploy.cli.outputs import Place
from qkf_deploy.errors import UsageError
from qkf_deploy.keywords import Keyword, Options, keywords

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def options_of(options: type[Options]) -> Decorator:
    """An option for every field that commands offer; the command gets their values under the fields' names."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for keyword in reversed([k for k in keywords(options) if k.help.command_line]):
            function = _option(keyword)(function)
        return function

    return add


def _option(keyword: Keyword) -> Decorator:
    settings: dict[str, Any] = {"help": keyword.help.text, "metavar": keyword.help.metavar, **_form(keyword)}
    if keyword.default is MISSING:
        settings["required"] = True
    elif not settings.get("callback"):
        settings |= {"default": keyword.default, "show_default": keyword.default not in (None, True, False)}
    return click.option(*_flags(keyword), keyword.name, **settings)


def _flags(keyword: Keyword) -> tuple[str, ...]:
    name = keyword.name.replace("_", "-")
    negated = bool in keyword.kinds and keyword.default is not False
    return keyword.help.flags or ((f"--{name}/--no-{name}",) if negated else (f"--{name}",))


def _form(keyword: Keyword) -> dict[str, Any]:
    """How the text of an option becomes the keyword's value."""
    kinds = keyword.kinds
    origins = [get_origin(kind) or kind for kind in kinds]
    limits: dict[str, Any] = {"min": keyword.help.least, "max": keyword.help.most}
    if keyword.choices and float in kinds:
        return {"type": _NumberOr(keyword.choices)}
    if keyword.choices:
        return {"type": click.Choice(keyword.choices)}
    if bool in kinds:
        return {"is_flag": True}
    if Mapping in origins:
        (kind,) = (get_args(k)[1] for k, origin in zip(kinds, origins, strict=True) if origin is Mapping)
        return {"multiple": True, "callback": _pairs(int if kind is int else _literal)}
    if Sequence in origins:
        (kind,) = (get_args(k)[0] for k, origin in zip(kinds, origins, strict=True) if origin is Sequence)
        return {"callback": _list(kind, single=kind in kinds)}
    if int in kinds:
        return {"type": click.IntRange(**limits) if keyword.limited else int}
    if float in kinds:
        return {"type": click.FloatRange(**limits) if keyword.limited else float}
    return {"type": Place() if Path in kinds else str}


class _NumberOr(click.ParamType):
    """A number, or one of a few words."""

    name = "number"

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return value if value in self._words else float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {' or '.join(self._words)}", param, ctx)


def _list(kind: Callable[[str], Any], *, single: bool) -> Callable[..., Any]:
    """Values separated by commas; ``single``: one alone is not a list, one with a comma behind it is."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        listed = value.removesuffix(",") if single else value
        try:
            values = tuple(kind(part) for part in listed.split(","))
        except ValueError:
            raise click.BadParameter(f"{value!r} is not a list of numbers separated by commas") from None
        return values[0] if single and len(values) == 1 and listed == value else values

    return read


def _pairs(kind: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    """``NAME=VALUE``, any number of times."""

    def read(ctx: click.Context, param: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for pair in pairs:
            name, equals, text = pair.rpartition("=") if kind is int else pair.partition("=")
            try:
                out[name] = kind(text)
            except ValueError:
                equals = ""
            if not equals or not name:
                raise UsageError(f"{param.opts[0]} {pair!r}", hint=f"write {param.metavar}")
        return out

    return read


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
