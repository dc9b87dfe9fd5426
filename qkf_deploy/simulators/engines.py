"""Engines by name; each is imported when it is asked for."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from qkf_deploy.errors import MissingComponent, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ir.needs import need_integers
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops.remember import Remembered
from qkf_deploy.options import EngineOptions
from qkf_deploy.simulators import startup, stretches
from qkf_deploy.simulators.carried import Carried
from qkf_deploy.simulators.run import Progress, Record, Run
from qkf_deploy.simulators.stretches import Stretches

_NOTHING = Record()


class Engine(Protocol):
    """What every engine is: see :func:`qkf_deploy.simulators.reference.run`."""

    def __call__(self, graph: Graph, inputs: np.ndarray, record: Record, progress: Progress | None) -> Run: ...


class Comparable(Protocol):
    """An engine whose nodes can be made to read other values than their own network's."""

    def __call__(
        self,
        graph: Graph,
        inputs: np.ndarray,
        record: Record,
        *,
        replace_value: Callable[[str, np.ndarray], np.ndarray] | None = None,
    ) -> Run: ...


@dataclass(frozen=True)
class EngineInfo:
    """Where an engine is.

    Attributes:
        module: has a function ``run``.
        needs: package that must be installed, or "".
        extra: the extra that installs it.
        integer_only: runs integer graphs only.
        options: keyword arguments it takes beyond the common ones.
        batches: may be faster on more images at once, depending on the device.
        stretches: runs some time steps from where others ended.
    """

    module: str
    needs: str = ""
    extra: str = ""
    integer_only: bool = False
    options: tuple[str, ...] = ()
    batches: bool = False
    stretches: bool = False


ENGINES: Mapping[str, EngineInfo] = {
    "reference": EngineInfo("qkf_deploy.simulators.reference", stretches=True),
    "event": EngineInfo("qkf_deploy.simulators.event", "numba", "event", True, ("threads",), stretches=True),
    "torch": EngineInfo(
        "qkf_deploy.simulators.torch",
        "torch",
        "torch",
        batches=True,
        stretches=True,
        options=("device", "precision", "threads"),
    ),
    "onnx": EngineInfo("qkf_deploy.simulators.onnx", "onnxruntime", "onnx", options=("threads", "form", "precision")),
    "lava": EngineInfo("qkf_deploy.simulators.lava.bridge", integer_only=True, options=("timeout_s", "granularity")),
}


#: What engines may be told; which of them takes what stands in :data:`ENGINES`.
OPTIONS = tuple(f.name for f in fields(EngineOptions) if f.name != "engine")


def given(options: EngineOptions) -> dict[str, Any]:
    """The engine options a user chose."""
    return {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}


#: Multiply-accumulates of a dense execution for which loading torch pays: the reference needs several seconds for
#: them, loading torch takes two.
_WORTH_TORCH = 10**10


def torch_pays(graph: Graph, images: int) -> bool:
    """True if the torch engine is installed and sooner done than the reference, loading torch included."""
    return _installed(ENGINES["torch"]) and images * dense_macs(graph) >= _WORTH_TORCH


def dense_macs(graph: Graph) -> int:
    """Multiply-accumulates of a dense execution of one image, all time steps."""
    total = 0
    for node in graph:
        types = graph.input_types(node)
        once = bool(types) and types[0].timing is not Timing.STEP
        total += node.op.static_cost(types, node.params).dense_macs * (1 if once else graph.time_steps)
    return total


def comparable(graph: Graph, images: int) -> Comparable:
    """The fastest engine that gives the reference's spikes of any graph and lets values be replaced."""
    loaded = "torch" in sys.modules and _installed(ENGINES["torch"])
    name = "torch" if loaded or torch_pays(graph, images) else "reference"
    run: Comparable = importlib.import_module(ENGINES[name].module).run
    return run


def get(name: str, graph: Graph, options: Mapping[str, Any], images: int = 1) -> Engine:
    """The engine of that name, its options bound.

    ``auto`` is the event engine for integer graphs. For float graphs it is the torch engine in float64 where that is
    sooner done, else the reference: the same spikes, counts and, behind a readout, logits.

    Args:
        name: of an engine, or ``auto``.
        graph: what it will run.
        options: of the engine.
        images: how many it will run.

    Raises:
        UsageError: unknown engine or option, or an engine that cannot run this graph.
        MissingComponent: its package is not installed.
    """
    name, options = resolve(name, graph, options, images)
    if name not in ENGINES:
        raise UsageError(f"no engine {name!r}", hint=f"use auto, {', '.join(ENGINES)}")
    info = ENGINES[name]
    if info.integer_only:
        hint = "quantize the graph, or use --engine reference"
        need_integers(graph, f"the {name} engine runs integer graphs only", hint)
    if not _installed(info):
        raise MissingComponent(f"the {name} engine is not installed", hint=f'pip install "qkf-deploy[{info.extra}]"')
    for option in options:
        if option not in info.options:
            having = ", ".join(other for other, i in ENGINES.items() if option in i.options)
            raise UsageError(f"the {name} engine has no option {option!r}", hint=having and f"use --engine {having}")
    if info.needs == "numba":
        startup.import_numba()
    run = importlib.import_module(info.module).run
    bound = functools.partial(run, **options) if options else run
    return _with_parts(_over_time(bound, graph, info), graph)


_STRETCHES = Remembered[Stretches](most=4)


def _over_time(run: Callable[..., Run], graph: Graph, info: EngineInfo) -> Engine:
    """The engine, which holds some of many time steps at a time; where it cannot, its results say why."""
    steps = stretches.length(graph, in_kernels=info.needs == "numba") if info.stretches else graph.time_steps
    why = stretches.why_whole(graph) if info.stretches and graph.time_steps > stretches.AT_ONCE else None
    said = () if why is None else (f"memory grows with T = {graph.time_steps}: {why}",)

    def some(part: Graph, inputs: np.ndarray, record: Record, carried: Carried) -> Run:
        return run(part, inputs, record, None, carried=carried)

    if steps == graph.time_steps and not said:
        return run

    @functools.wraps(run)
    def over_time(graph: Graph, inputs: np.ndarray, record: Record = _NOTHING, progress: Progress | None = None) -> Run:
        if steps < graph.time_steps:
            cut = _STRETCHES.get(graph, steps, lambda: Stretches(graph, steps))
            return cut.run(some, inputs, record, progress)
        found = run(graph, inputs, record, progress)
        return replace(found, notices=(*found.notices, *said))

    return over_time


def _with_parts(run: Engine, graph: Graph) -> Engine:
    """The engine; its results know the outputs of a graph that has several."""
    if not graph.parts:
        return run

    @functools.wraps(run)
    def named(*given: Any, **options: Any) -> Run:
        return replace(run(*given, **options), parts=graph.parts)

    return named


def resolve(name: str, graph: Graph, options: Mapping[str, Any], images: int = 1) -> tuple[str, dict[str, Any]]:
    """The engine that ``auto`` stands for here, with those options that it has; any other name as it is."""
    if name != "auto":
        return name, dict(options)
    if graph.arithmetic == "integer":
        name = "event" if _installed(ENGINES["event"]) else "reference"
    else:
        name = "torch" if torch_pays(graph, images) else "reference"
    unused = {option for e in ("event", "torch") for option in ENGINES[e].options} - set(ENGINES[name].options)
    return name, {k: v for k, v in options.items() if k not in unused}


def _installed(info: EngineInfo) -> bool:
    """True if the engine and what it needs can be imported; imports nothing heavy."""
    try:
        return (not info.needs or importlib.util.find_spec(info.needs) is not None) and (
            importlib.util.find_spec(info.module) is not None
        )
    except ModuleNotFoundError:
        return False
