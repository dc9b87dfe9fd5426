"""Neurons: multi-step (the first axis is time) and single-step (called once per time step)."""

from __future__ import annotations

from dataclasses import replace

from qkf_deploy.converters.torch.trace.capture import NEURON_CALL, Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules.table import rule
from qkf_deploy.converters.torch.trace.symbols import BATCH, TIME, Symbol
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Neuron


@rule(NEURON_CALL)
def neuron(low: Lowering, call: Call) -> Symbol:
    """A spiking neuron, multi-step or single-step."""
    x, path = low.symbol(call.args[0]), str(call.args[1])
    found = low.program.neurons[path]
    if not found.multi_step:
        return _single_step(low, call, x, found.op, path)
    if low.loops.calls[path] > 1:
        raise UnsupportedError(
            f"one neuron is called {low.loops.calls[path]} times in a forward pass; "
            "its membrane would carry on from call to call",
            hint="give every place its own neuron",
        )
    return low.emit(call, "neuron", _over_time(low, x, found.op, path), (x,), x.layout(), path=path)


def _over_time(low: Lowering, x: Symbol, op: Neuron, path: str) -> Neuron:
    lead = x.layout()[0]
    if lead is None or (TIME not in lead and (x.steps or low.spec.time_steps) > 1):
        raise UnsupportedError(
            "a multi-step neuron whose input has no time axis in front",
            hint="is the model given its input as it expects?",
        )
    if BATCH not in lead:
        return op
    low.notices.append(
        f"{path}: the model runs this neuron over a merged time and batch axis, so with more than one image its "
        "membrane carries over from image to image; the graph gives every image its own (batch size 1)"
    )
    return replace(op, time_merged_with_batch=True)


def _single_step(low: Lowering, call: Call, x: Symbol, op: Neuron, path: str) -> Symbol:
    if x.steps is not None and x.steps > 1:
        raise UnsupportedError("a single-step neuron that is given a time axis", hint="set step_mode='m'")
    step = low.loops.step_of(path, x)
    out = low.emit(call, "neuron", op, (x,), x.layout(), path=path)
    return out if step is None else replace(out, at=(step,))
