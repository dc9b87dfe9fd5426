"""A torch module out of ``module:factory`` or ``file.py:factory``."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from qkf_deploy.converters.torch.compat import old_names
from qkf_deploy.converters.torch.imports import Imports, imports_of, load_file
from qkf_deploy.converters.torch.trace.capture import quiet
from qkf_deploy.converters.torch.trace.places import raised
from qkf_deploy.errors import InputError

_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def call_factory(text: str, arguments: Mapping[str, Any], usual: Mapping[str, Any]) -> tuple[torch.nn.Module, Imports]:
    """Import a file or module and call a function of it; older files get the names they import (:mod:`.compat`).

    Args:
        text: ``package.module:function`` or ``file.py:function``.
        arguments: keyword arguments; a string ``module:name`` stands for that object.
        usual: values passed too where the function has a parameter of that name.

    Returns:
        The model, and the imports that must be active while it runs.

    Raises:
        InputError: nothing of that name, or its code raises; says where.
    """
    place, _, name = text.rpartition(":")
    imports = _imports(place)
    with quiet(), old_names(), imports.active():
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
        factory = getattr(module, name, None)
        if not callable(factory):
            known = ", ".join(n for n in dir(module) if callable(getattr(module, n)) and not n.startswith("_"))
            raise InputError(f"no factory {name!r} in it", where=place, hint=f"it has: {known[:300]}")
        given = {k: _object(v) for k, v in arguments.items()}
        parameters = _parameters(factory)
        given |= {k: v for k, v in usual.items() if k in parameters and k not in given}
        try:
            model = factory(**given)
        except (Exception, SystemExit) as error:
            raise InputError(
                f"the factory raised {raised(error)}{_raised_at(error)}",
                where=text,
                hint=_hint(parameters, given, error),
            ) from error
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"the factory returned a {type(model).__name__}, not an nn.Module", where=text)
    return model, imports


def _imports(place: str) -> Imports:
    """Where the code of a factory is imported from: a file's own folders, or the current one, as `python -m` does."""
    path = Path(place).absolute()
    if place.endswith(".py") and path.is_file():
        return imports_of(path)
    return Imports((str(Path.cwd()),))


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}


def _hint(parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any], error: BaseException) -> str:
    if "spiking_neuron" in parameters and "spiking_neuron" not in given and "NoneType" in str(error):
        return "pass --factory-arg spiking_neuron=spikingjelly.activation_based.neuron:LIFNode"
    return "call it in Python; pass arguments with --factory-arg NAME=VALUE"


def _object(value: Any) -> Any:
    """The object a string ``module:name`` stands for; other values, and strings that name nothing, as they are."""
    if not isinstance(value, str) or not _OBJECT.fullmatch(value):
        return value
    module, _, name = value.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"no object {name!r} in {module!r}: {error}", hint="write NAME=package.module:object"
        ) from error


def _raised_at(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f" (at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"cannot be imported: {raised(error)}{_raised_at(error)}",
            where=name,
            hint="run `python -c 'import ...'` to see why",
        ) from error


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError("no such file", where=str(path), hint="name a Python file or an importable module")
    try:
        return load_file(path.absolute())
    except (Exception, SystemExit) as error:
        raise InputError(f"cannot be loaded: {raised(error)}{_raised_at(error)}", where=str(path)) from error
