"""What a model returns: which results become outputs of the graph, and what is done to each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qkf_deploy.converters.torch.trace.capture import Ref
from qkf_deploy.converters.torch.trace.symbols import BATCH, Symbol
from qkf_deploy.errors import UnsupportedError, UsageError
from qkf_deploy.ir import Operand, View
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import Concat, Output, Readout, Scale

if TYPE_CHECKING:
    from qkf_deploy.converters.torch.trace.lowering import Lowering

#: All results that depend on the input.
ALL = "all"


def emit_results(low: Lowering) -> None:
    """Append the output node: the first result, or those that were asked for, side by side.

    Raises:
        UsageError: a result that the model does not return, or several that could be class logits.
        UnsupportedError: a result that does not depend on the input, or is that of some time steps.
    """
    program, asked = low.program, low.spec.outputs
    names = program.output_names or tuple(map(str, range(len(program.outputs))))
    refs = dict(zip(names, program.outputs, strict=True))
    if not asked:
        if len(refs) > 1:
            low.notices.append(
                f"the model returns {len(refs)} results; the first one is the output (--outputs gives more: "
                f"{', '.join(refs)}, or all)"
            )
        low.add("output", Output(), (_result(low, refs[names[0]], "the model's result"),))
        return
    chosen = [n for n in names if low.is_traced(Ref(refs[n]))] if tuple(asked) == (ALL,) else list(asked)
    if not chosen:
        raise UnsupportedError("no result of the model is a tensor computed from its input")
    for name in chosen:
        if name not in refs:
            raise UsageError(f"the model returns no {name!r}", hint=f"it returns {', '.join(refs)}")
    operands = [_result(low, refs[name], f"the result {name!r}") for name in chosen]
    op = Output(tuple(chosen), tuple(low.type_of(o).shape for o in operands))
    vectors = [part.name for part in op.parts if part.is_classes]
    if tuple(asked) == (ALL,) and len(vectors) > 1:
        raise UsageError(
            f"{', '.join(vectors)} could all be class logits",
            hint=f"give all names, that of the class logits first: --outputs {','.join(chosen)}",
        )
    flat = [_flat(low, operand) for operand in operands]
    joined = flat[0]
    for operand in flat[1:]:
        joined = Operand(low.add("cat", Concat(0), (joined, operand), path="output"))
    low.add("output", op, (joined,))


def _flat(low: Lowering, operand: Operand) -> Operand:
    shape = low.builder.nodes[operand.node].type.shape
    view = operand.view or View.of(shape, range(len(shape)), shape)
    return Operand(operand.node, view.then((math.prod(view.shape),)))


def _result(low: Lowering, ref: str, what: str) -> Operand:
    """One value per image: the result, or its mean over time."""
    if not low.is_traced(Ref(ref)):
        raise UnsupportedError(f"{what} is not a tensor computed from its input")
    symbol = _without_ended_time(low.symbol(Ref(ref)))
    _check_time(low, symbol)
    operand, steps = symbol.operand(), low.steps or low.spec.time_steps
    if low.type_of(operand).timing is Timing.IMAGE:
        return operand
    if symbol.at:
        (step,) = symbol.at
        low.notices.append(f"{what} is that of time step {step} alone, counted from 0")
        return Operand(
            low.add("readout", Readout(_one_of(step, low.loops.steps, low.steps)), (operand,), path="output")
        )
    if low.spec.outputs:
        low.notices.append(f"{what} has one value per time step; the graph's is their mean over time")
    else:
        low.notices.append("the model returns one result per time step; the graph's logits are their mean over time")
    readout = low.add("readout", Readout(), (operand,), path="output")
    return Operand(low.add("mean", Scale(1.0 / steps), (readout,), path="output"))


def _without_ended_time(symbol: Symbol) -> Symbol:
    """The result without the axis of size 1 in front of the batch that a sum over time has kept."""
    kept = symbol.layout()[:1] == [None] and symbol.shape[0] == 1 and (BATCH,) in symbol.layout()
    return symbol.reshaped(symbol.shape[1:]) if kept else symbol


def _one_of(step: int, looped: int, steps: int | None) -> tuple[float, ...]:
    return tuple(float(t == step) for t in range(steps or looped))


def _check_time(low: Lowering, result: Symbol) -> None:
    """The result must not be that of some steps, and a model that gets a plain image must make its own steps."""
    if len(result.at) > 1:
        raise UnsupportedError(
            f"the result is that of time steps {_listed(result.at)} alone", hint="sum or average it over all time steps"
        )
    if low.spec.layout == "image" and low.steps is None and low.spec.time_steps > 1:
        raise UnsupportedError(
            "the model makes no time steps of its own: it computes one step per call",
            hint="trace it with --input step (one call per time step)",
        )
    if low.spec.layout == "step" and (low.loops.steps > 1 or result.steps):
        raise UnsupportedError("the model makes its own time steps", hint="trace it with --input image")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
