"""The walk from a captured program to a graph. What each operator of the program means is in :mod:`.aten`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from qkf_deploy.converters.trace.capture import TRACE_BATCH, Call, Program, Ref
from qkf_deploy.converters.trace.symbols import Layout, Symbol, place
from qkf_deploy.errors import GraphError, QkfError, UnsupportedError
from qkf_deploy.ir import Graph, GraphBuilder, Operand, Operator, ValueType
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import Input, Output, Readout, Scale

#: How the model takes its input: one image ``(B, C, H, W)`` that it repeats itself, a sequence ``(T, B, C, H, W)``
#: (the same image at every step), or event frames ``(B, T, C, H, W)``.
InputLayout = Literal["image", "sequence", "frames"]

Rule = Callable[["Lowering", Call], Symbol]


@dataclass(frozen=True)
class InputSpec:
    """The input a model is traced with.

    Attributes:
        layout: see :data:`InputLayout`.
        shape: ``(C, H, W)``.
        time_steps: T; for ``image`` what the model does is checked against it.
    """

    layout: InputLayout
    shape: tuple[int, ...]
    time_steps: int

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the example tensor."""
        if self.layout == "image":
            return (TRACE_BATCH, *self.shape)
        lead = (TRACE_BATCH, self.time_steps) if self.layout == "frames" else (self.time_steps, TRACE_BATCH)
        return (*lead, *self.shape)


@dataclass(frozen=True)
class Offender:
    """Something that could not be lowered."""

    path: str
    source: str
    reason: str

    def __str__(self) -> str:
        at = f" ({self.source})" if self.source else ""
        return f"{self.path or '<model>'}{at}: {self.reason}"


class Lowering:
    """Builds the graph call by call; collects everything that cannot be lowered before it gives up."""

    def __init__(self, program: Program, spec: InputSpec, rules: Mapping[str, Rule]) -> None:
        self.program = program
        self.spec = spec
        self.rules = rules
        self.builder = GraphBuilder()
        self.symbols: dict[str, Symbol | list[Symbol]] = {}
        self.broken: set[str] = set()
        self.offenders: list[Offender] = []
        self.notices: list[str] = []
        self.steps = spec.time_steps if spec.layout != "image" else None

    def run(self) -> Graph:
        """The verified graph.

        Raises:
            UnsupportedError: lists every operation that has no meaning here, with module path and source line.
        """
        self._input()
        for call in self.program.calls:
            self._call(call)
        if self.offenders:
            lines = "\n  ".join(dict.fromkeys(str(o) for o in self.offenders))
            raise UnsupportedError(
                f"{len(self.offenders)} operations cannot be lowered:\n  {lines}",
                hint="replace them by operators of docs/operators.md, or move them outside the traced module",
            )
        self._output()
        steps = self.steps or self.spec.time_steps
        if steps != self.spec.time_steps:
            self.notices.append(f"the model runs {steps} time steps itself, not {self.spec.time_steps}")
        graph = Graph(
            prune(self.builder.nodes),
            steps,
            "frames" if self.spec.layout == "frames" else "direct",
            notices=tuple(self.notices),
        )
        return graph.verify()

    def _input(self) -> None:
        layout, shape = self.spec.layout, self.spec.shape
        self.builder.add("input", Input(shape, "frames" if layout == "frames" else "real"))
        leads: dict[str, Layout] = {"image": [(1,)], "sequence": [(0,), (1,)], "frames": [(1,), (0,)]}
        axes: Layout = [*leads[layout], *([None] * len(shape))]
        self.symbols[self.program.input] = place("input", axes, shape, self.steps)

    def _call(self, call: Call) -> None:
        if any(name in self.broken for name in _refs(call)):
            self.broken.add(call.name)
            return
        rule = self.rules.get(call.target)
        try:
            if rule is None:
                raise UnsupportedError(f"{call.target} has no spiking or integer form")
            self.symbols[call.name] = rule(self, call)
        except (UnsupportedError, GraphError) as error:
            self._offend(call, error)

    def _offend(self, call: Call, error: QkfError) -> None:
        """Note the offender and, where the shape allows it, go on as if it did nothing, to find the others too."""
        self.offenders.append(Offender(call.path, call.source, error.message))
        first = next((self.symbols.get(n) for n in _refs(call)), None)
        shape = self.program.shapes.get(call.name)
        if isinstance(first, Symbol) and first.shape == shape:
            self.symbols[call.name] = first
        else:
            self.broken.add(call.name)

    def _output(self) -> None:
        symbol = self.symbols.get(self.program.outputs[0])
        if not isinstance(symbol, Symbol):
            raise UnsupportedError("the model's first result is not a tensor computed from its input")
        if len(self.program.outputs) > 1:
            self.notices.append(f"the model returns {len(self.program.outputs)} results; the first one is the output")
        operand = symbol.operand()
        if self.type_of(operand).timing is not Timing.IMAGE:
            readout = self.add("readout", Readout(), (operand,), path="output")
            operand = Operand(
                self.add("mean", Scale(1.0 / (self.steps or self.spec.time_steps)), (readout,), path="output")
            )
            self.notices.append(
                "the model returns one result per time step; the graph's logits are their mean over time"
            )
        self.builder.add("output", Output(), (operand,))

    # -- what the rules use ------------------------------------------------------------------------------------------

    def symbol(self, value: Any) -> Symbol:
        """The traced tensor an argument refers to."""
        if isinstance(value, Ref):
            symbol = self.symbols.get(value.name)
            if isinstance(symbol, Symbol):
                return symbol
        raise UnsupportedError("takes a constant where a traced tensor is expected")

    def is_traced(self, value: Any) -> bool:
        """True if an argument depends on the input."""
        return isinstance(value, Ref) and value.name in self.symbols

    def constant(self, value: Any) -> np.ndarray | None:
        """A parameter or constant as an array, ``None`` for a missing optional one."""
        if value is None:
            return None
        if isinstance(value, Ref) and value.name in self.program.tensors:
            tensor = self.program.tensors[value.name].detach()
            return tensor.to(torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype).numpy()
        raise UnsupportedError("takes a computed tensor where a parameter is expected")

    def type_of(self, operand: Operand) -> ValueType:
        """Type of an operand's value as it is seen."""
        type_ = self.builder.nodes[operand.node].type
        return type_ if operand.view is None else replace(type_, shape=operand.view.shape)

    def add(
        self,
        what: str,
        op: Operator,
        inputs: Sequence[Operand | str],
        params: Mapping[str, np.ndarray] | None = None,
        *,
        path: str = "",
        is_module: bool = False,
        source: str = "",
    ) -> str:
        """Append a node named after the module path; functions inside a module get ``path.what``."""
        base = path if is_module and path else ".".join(p for p in (path, what) if p)
        name, count = base, 1
        while name in self.builder.nodes:
            count += 1
            name = f"{base}#{count}"
        return self.builder.add(name, op, inputs, params, source)

    def emit(
        self,
        call: Call,
        what: str,
        op: Operator,
        operands: Sequence[Operand],
        layout: Layout,
        steps: int | None,
        **params: np.ndarray | None,
    ) -> Symbol:
        """Append the node of a call and lay its output out like its input."""
        given = {k: v for k, v in params.items() if v is not None}
        name = self.add(what, op, operands, given, path=call.path, is_module=call.is_module, source=call.source)
        return place(name, layout, self.builder.nodes[name].type.shape, steps)

    def timed(self, steps: int) -> int:
        """Note the number of time steps the model uses; all places must agree."""
        if self.steps is not None and self.steps != steps:
            raise UnsupportedError(f"runs {steps} time steps where {self.steps} were seen before")
        self.steps = steps
        return steps


def _refs(call: Call) -> list[str]:
    out: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, Ref):
            out.append(value.name)
        elif isinstance(value, list | tuple):
            for item in value:
                walk(item)

    walk(list(call.args))
    walk(list(call.kwargs.values()))
    return out


def prune(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes the output depends on (and the input), in order: what a model computes and drops is not part of it."""
    needed = {"output"}
    for name in reversed(list(nodes)):
        if name in needed:
            needed |= {o.node for o in nodes[name].inputs}
    return {name: node for name, node in nodes.items() if name in needed or node.op.kind == "input"}
