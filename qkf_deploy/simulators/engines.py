"""Engines by name; each is imported when it is asked for."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from qkf_deploy.errors import MissingComponent, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.options import EngineOptions
from qkf_deploy.simulators import startup
from qkf_deploy.simulators.run import Progress, Record, Run


class Engine(Protocol):
    """What every engine is: see :func:`qkf_deploy.simulators.reference.run`."""

    def __call__(self, graph: Graph, inputs: np.ndarray, record: Record, progress: Progress | None) -> Run: ...


@dataclass(frozen=True)
class EngineInfo:
    """Where an engine is.

    Attributes:
        module: has a function ``run``.
        needs: package that must be installed, or "".
        extra: the extra that installs it.
        integer_only: runs integer graphs only.
        options: keyword arguments it takes beyond the common ones.
    """

    module: str
    needs: str = ""
    extra: str = ""
    integer_only: bool = False
    options: tuple[str, ...] = ()


ENGINES: Mapping[str, EngineInfo] = {
    "reference": EngineInfo("qkf_deploy.simulators.reference"),
    "event": EngineInfo("qkf_deploy.simulators.event", "numba", "event", True, ("threads",)),
    "torch": EngineInfo("qkf_deploy.simulators.torch", "torch", "torch", options=("device", "precision", "threads")),
    "onnx": EngineInfo("qkf_deploy.simulators.onnx", "onnxruntime", "onnx", options=("threads", "form", "precision")),
    "lava": EngineInfo("qkf_deploy.simulators.lava.bridge", integer_only=True, options=("timeout_s", "granularity")),
}


#: What engines may be told; which of them takes what stands in :data:`ENGINES`.
OPTIONS = tuple(f.name for f in fields(EngineOptions) if f.name != "engine")


def given(options: EngineOptions) -> dict[str, Any]:
    """The engine options a user chose."""
    return {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}


def get(name: str, graph: Graph, options: Mapping[str, Any]) -> Engine:
    """The engine of that name, its options bound.

    Raises:
        UsageError: unknown engine or option, or an engine that cannot run this graph.
        MissingComponent: its package is not installed.
    """
    if name == "auto":
        name = "event" if graph.arithmetic == "integer" and _installed(ENGINES["event"]) else "reference"
        unused = set(ENGINES["event"].options) - set(ENGINES[name].options)
        options = {k: v for k, v in options.items() if k not in unused}
    if name not in ENGINES:
        raise UsageError(f"no engine {name!r}", hint=f"use auto, {', '.join(ENGINES)}")
    info = ENGINES[name]
    if info.integer_only and graph.arithmetic != "integer":
        raise UsageError(
            f"the {name} engine runs integer graphs only", hint="quantize the graph, or use --engine reference"
        )
    if not _installed(info):
        raise MissingComponent(f"the {name} engine is not installed", hint=f'pip install "qkf-deploy[{info.extra}]"')
    for option in options:
        if option not in info.options:
            having = ", ".join(other for other, i in ENGINES.items() if option in i.options)
            raise UsageError(f"the {name} engine has no option {option!r}", hint=having and f"use --engine {having}")
    if info.needs == "numba":
        startup.import_numba()
    run = importlib.import_module(info.module).run
    return functools.partial(run, **options) if options else run


def _installed(info: EngineInfo) -> bool:
    """True if the engine and what it needs can be imported; imports nothing heavy."""
    try:
        return (not info.needs or importlib.util.find_spec(info.needs) is not None) and (
            importlib.util.find_spec(info.module) is not None
        )
    except ModuleNotFoundError:
        return False
