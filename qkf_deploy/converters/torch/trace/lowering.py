"""The walk from a captured program to a graph. What each operator of the program means is in :mod:`.aten`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from qkf_deploy.converters.torch.trace.capture import TRACE_BATCH, Call, Program, Ref
from qkf_deploy.converters.torch.trace.constants import Aliases, Constants
from qkf_deploy.converters.torch.trace.loops import Loops
from qkf_deploy.converters.torch.trace.refusals import refusal
from qkf_deploy.converters.torch.trace.results import emit_results
from qkf_deploy.converters.torch.trace.symbols import Layout, Symbol, place
from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import GraphError, QkfError, UnsupportedError
from qkf_deploy.ir import Graph, GraphBuilder, Operand, Operator, ValueType
from qkf_deploy.ops import Input, Readout, Scale

#: How the model takes its input: one image ``(B, C, H, W)`` that it repeats itself, a sequence ``(T, B, C, H, W)``
#: (the same image at every step), event frames ``(B, T, C, H, W)``, or one step ``(B, C, H, W)`` per call (the model is
#: called T times and its results are averaged).
InputLayout = Literal["image", "sequence", "frames", "step"]

Rule = Callable[["Lowering", Call], Any]


@dataclass(frozen=True)
class InputSpec:
    """The input a model is traced with.

    Attributes:
        layout: see :data:`InputLayout`.
        shape: ``(C, H, W)``.
        time_steps: T; for ``image`` what the model does is checked against it.
        outputs: names of the results that become outputs, ``("all",)``; empty: the first one.
    """

    layout: InputLayout
    shape: tuple[int, ...]
    time_steps: int
    outputs: tuple[str, ...] = ()

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of the example tensor."""
        if self.layout in ("image", "step"):
            return (TRACE_BATCH, *self.shape)
        lead = (TRACE_BATCH, self.time_steps) if self.layout == "frames" else (self.time_steps, TRACE_BATCH)
        return (*lead, *self.shape)


@runtime_checkable
class Deferred(Protocol):
    """A tensor that becomes part of the graph when something reads it."""

    def symbol(self) -> Symbol:
        """The tensor in the graph."""
        ...


@dataclass(frozen=True)
class Offender:
    """Something that could not be lowered."""

    path: str
    source: str
    reason: str
    hint: str | None = None

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
        self.symbols: dict[str, Any] = {}
        self.constants = Constants(program)
        self.aliases = Aliases(program)
        self.loops = Loops(program)
        self.broken: set[str] = set()
        self.offenders: list[Offender] = []
        #: What computes the membrane of something that fires and is no neuron, which is said for it.
        self.consequences: list[Offender] = []
        #: Calls of every neuron node, in order of time.
        self.fired: dict[str, list[str]] = {}
        self.notices: list[str] = list(program.notices)
        self.merged: list[str] = []
        self.steps = spec.time_steps if spec.layout != "image" else None

    def run(self) -> Graph:
        """The verified graph.

        Raises:
            UnsupportedError: lists every operation that has no meaning here, with module path and source line.
        """
        if self.loops.steps > 1:
            self.steps = None if self.spec.layout == "step" else self.steps  # which is refused where the result is read
            self.timed(self.loops.steps)
        self._input()
        for index, call in enumerate(self.program.calls):
            self._call(index, call)
        offenders = self.offenders or self.consequences
        if offenders:
            lines = list(dict.fromkeys(str(o) for o in offenders))
            count = "1 operation" if len(lines) == 1 else f"{len(lines)} operations"
            hints = list(dict.fromkeys(o.hint for o in offenders if o.hint))
            raise UnsupportedError(
                f"{count} cannot be lowered:\n  " + "\n  ".join(lines),
                hint="\n       ".join(hints)
                or "replace them by operators of docs/graph.md, or move them out of the model",
            )
        emit_results(self)
        steps = self.steps or self.spec.time_steps
        if steps != self.spec.time_steps:
            self.notices.append(f"the model runs {quantity(steps, 'time step')} itself, not {self.spec.time_steps}")
        if self.merged:
            self.notices.append(_merged_notice(self.merged))
        graph = Graph(
            prune(self.builder.nodes),
            steps,
            "frames" if self.spec.layout == "frames" else "direct",
            notices=tuple(dict.fromkeys(self.notices)),
        )
        return graph.verify()

    def _input(self) -> None:
        layout, shape = self.spec.layout, self.spec.shape
        name = self.add("input", Input(shape, "frames" if layout == "frames" else "real"), ())
        leads: dict[str, Layout] = {"image": [(1,)], "step": [(1,)], "sequence": [(0,), (1,)], "frames": [(1,), (0,)]}
        axes: Layout = [*leads[layout], *([None] * len(shape))]
        timed = layout in ("sequence", "frames")
        self.symbols[self.program.input] = place(name, axes, shape, self.steps if timed else None)

    def _call(self, index: int, call: Call) -> None:
        refs = call.references()
        if any(r in self.broken for r in refs):
            self.broken.add(call.name)
            return
        if not any(r in self.symbols for r in refs) and self.constants.evaluate(call):
            return
        if "_assert" in call.target:
            return
        try:
            written = self.symbols.get(refs[0]) if refs else None
            self.symbols[call.name] = self._lowered(call)
            if not isinstance(written, Deferred):  # which keeps what is written for all who read it
                self.aliases.check(index, call)
        except (UnsupportedError, GraphError) as error:
            self._offend(call, error)
        if self.aliases.in_place(call) and call.name in self.symbols:
            self.symbols[refs[0]] = self.symbols[call.name]

    def _lowered(self, call: Call) -> Any:
        if call.name in self.program.refused:
            raise self.program.refused[call.name]
        rule = self.rules.get(call.target)
        if rule is None:
            reason, hint = refusal(call.target)
            raise UnsupportedError(reason, hint=hint)
        result: Any = rule(self, call)
        shape = self.program.shapes.get(call.name)
        if isinstance(result, Symbol) and shape is not None and result.shape != shape:
            raise UnsupportedError(f"{call.target} broadcasts {result.shape} to {shape}")
        return result

    def _offend(self, call: Call, error: QkfError) -> None:
        """Note the offender and, where the shape allows it, go on as if it did nothing, to find the others too."""
        told = self.consequences if call.name in self.program.membranes else self.offenders
        told.append(Offender(call.path, call.source, error.message, error.hint))
        first = next((self.symbols.get(n) for n in call.references()), None)
        shape = self.program.shapes.get(call.name)
        if isinstance(first, Symbol) and first.shape == shape and not first.inverted:
            self.symbols[call.name] = first
        else:
            self.broken.add(call.name)

    # -- what the rules use ------------------------------------------------------------------------------------------

    def symbol(self, value: Any, *, inverted: bool = False, weighted: bool = False) -> Symbol:
        """The traced tensor an argument refers to; ``inverted`` allows a complement of spikes, ``weighted`` weights of
        the time steps."""
        if isinstance(value, Ref):
            symbol = self.symbols.get(value.name)
            symbol = symbol.symbol() if isinstance(symbol, Deferred) else symbol
            if isinstance(symbol, Symbol):
                if symbol.inverted and not inverted:
                    raise UnsupportedError(
                        "uses 1 - spikes as a value", hint="only a product x * (1 - spikes), a gate, is understood"
                    )
                if symbol.weights and not weighted:
                    raise UnsupportedError(
                        "uses values that have a weight for each time step",
                        hint="only their sum over time is understood",
                    )
                return symbol
        raise UnsupportedError("takes a constant where a traced tensor is expected")

    def is_traced(self, value: Any) -> bool:
        """True if an argument depends on the input."""
        return isinstance(value, Ref) and value.name in self.symbols

    def constant(self, value: Any) -> np.ndarray | None:
        """A parameter or constant as an array, ``None`` for a missing optional one."""
        return None if value is None else self.constants.array(value)

    def array(self, value: Any) -> np.ndarray:
        """A parameter or constant as an array."""
        return self.constants.array(value)

    def number(self, value: Any) -> float | None:
        """A scalar argument, or a constant tensor whose elements are all the same."""
        return self.constants.number(value)

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
        """Append a node named after the module path; functions inside a module get ``path.what``.

        Module paths are taken before anything runs: what is not a module's own first call is numbered (``output#2``).
        """
        own = is_module and path != ""
        base = path if own else ".".join(p for p in (path, what) if p)
        name, count = base, 1
        while name in self.builder.nodes or (name in self.program.modules and not (own and count == 1)):
            count += 1
            name = f"{base}#{count}"
        for key, array in (params or {}).items():
            if not np.isfinite(array).all():
                raise UnsupportedError(
                    f"{key} has values that are not finite", hint="use weights from before training diverged"
                )
        return self.builder.add(name, op, inputs, params, source)

    def emit(
        self,
        call: Call,
        what: str,
        op: Operator,
        symbols: Sequence[Symbol],
        layout: Layout,
        *,
        operands: Sequence[Operand] | None = None,
        path: str | None = None,
        ends_time: bool = False,
        **params: np.ndarray | None,
    ) -> Symbol:
        """Append the node of a call and lay its output out.

        Args:
            call: names the node.
            what: name of the operation inside a module.
            op: the operator.
            symbols: what it reads; they say at which time steps the result is.
            layout: of the result.
            operands: what it reads as operands, where not simply the symbols'.
            path: of the node, where it is not the calling module's.
            ends_time: True if the result has no time axis any more.
            **params: parameters; ``None`` is left out.
        """
        operands = tuple(s.operand() for s in symbols) if operands is None else tuple(operands)
        steps = None if ends_time else next((s.steps for s in symbols if s.steps is not None), None)
        at = _joint(symbols)
        given = {k: v for k, v in params.items() if v is not None}
        name = self._node(call, what, op, operands, given, at, path)
        return place(name, layout, self.builder.nodes[name].type.shape, steps, at=at)

    def _node(
        self,
        call: Call,
        what: str,
        op: Operator,
        operands: tuple[Operand, ...],
        params: Mapping[str, np.ndarray],
        at: tuple[int, ...],
        path: str | None = None,
    ) -> str:
        key = (call.path, call.target, what, op, operands, call.constants(self.symbols, self.constants.same))
        name = self.loops.known(key, at)
        if name is None:
            where = call.path if path is None else path
            is_module = call.is_module or path is not None
            name = self.add(what, op, operands, params, path=where, is_module=is_module, source=call.source)
            self.loops.remember(key, name)
        return name

    def scaled(self, call: Call, x: Symbol, factor: float) -> Symbol:
        """``factor * x``. The scale reads the whole value: scaling element by element commutes with every view."""
        if factor == 1.0:
            return x
        return replace(x, node=self._node(call, "scale", Scale(factor), (Operand(x.node),), {}, _joint([x])))

    def accumulated(self, call: Call, left: Symbol, right: Symbol) -> Symbol:
        """The sum of different time steps of one value; with the last step it becomes a readout."""
        same = left.node == right.node and left.view == right.view
        if not same or set(left.at) & set(right.at):
            raise UnsupportedError(
                "adds values of different time steps", hint="connections from step to step have no form here"
            )
        at = tuple(sorted(left.at + right.at))
        total = replace(left, at=at)
        if at != tuple(range(self.steps or self.loops.steps)):
            return total
        whole = replace(left, at=())
        return self.emit(call, "readout", Readout(), (whole,), whole.layout(), ends_time=True)

    def timed(self, steps: int) -> int:
        """Note the number of time steps the model uses; all places must agree."""
        if self.steps is not None and self.steps != steps:
            raise UnsupportedError(
                f"runs {steps} time steps where {self.steps} were seen before", hint="check --time-steps and --input"
            )
        self.steps = steps
        return steps


def _joint(symbols: Sequence[Symbol]) -> tuple[int, ...]:
    """The time steps of a result.

    Raises:
        UnsupportedError: the operands belong to different steps, or to a running sum.
    """
    found = {s.at for s in symbols if s.at}
    if len(found) > 1:
        raise UnsupportedError(
            "combines values of different time steps", hint="only sums over all steps are understood"
        )
    at = found.pop() if found else ()
    if len(at) > 1:
        raise UnsupportedError(
            "uses a sum over some of the time steps", hint="add up all time steps before anything else is computed"
        )
    return at


def _merged_notice(paths: Sequence[str]) -> str:
    """About all neurons whose time axis the model merged with the batch."""
    shown = ", ".join(paths) if len(paths) <= 3 else f"{paths[0]} to {paths[-1]}, {len(paths)} neurons"
    return (
        f"{shown}: run over a merged time and batch axis, so with more than one image their membranes carry over from "
        "image to image; the graph gives every image its own (batch size 1) until another carry is chosen"
    )


def prune(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes the last one, the output, depends on, and the input: what a model computes and drops is left out."""
    names = list(nodes)
    needed = set(names[-1:])
    for name in reversed(names):
        if name in needed:
            needed |= {o.node for o in nodes[name].inputs}
    return {name: node for name, node in nodes.items() if name in needed or node.op.kind == "input"}
