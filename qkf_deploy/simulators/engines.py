"""Engines by name; each is imported when it is asked for."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from qkf_deploy.errors import MissingComponent, UsageError
from qkf_deploy.ir import Graph
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
    "onnx": EngineInfo("qkf_deploy.simulators.onnx", "onnxruntime", "onnx", options=("threads", "form", "precision")),
    "lava": EngineInfo("qkf_deploy.simulators.lava.bridge", integer_only=True, options=("timeout_s", "granularity")),
}


def get(name: str, graph: Graph, options: Mapping[str, Any]) -> Engine:
    """The engine of that name, its options bound.

    Raises:
        UsageError: unknown engine or option, or an engine that cannot run this graph.
        MissingComponent: its package is not installed.
    """
    if name == "auto":
        name = "event" if graph.arithmetic == "integer" and _installed(ENGINES["event"]) else "reference"
        options = {k: v for k, v in options.items() if k in ENGINES[name].options}
    if name not in ENGINES:
        raise UsageError(f"no engine {name!r}", hint=f"use auto, {', '.join(ENGINES)}")
    info = ENGINES[name]
    if info.integer_only and graph.arithmetic != "integer":
        raise UsageError(
            f"the {name} engine runs integer graphs only", hint="quantize the graph, or use --engine reference"
        )
    if not _installed(info):
        raise MissingComponent(f"the {name} engine is not installed", hint=f'pip install "qkf-deploy[{info.extra}]"')
    unknown = [k for k in options if k not in info.options]
    if unknown:
        raise UsageError(f"the {name} engine has no option {unknown[0]!r}")
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
