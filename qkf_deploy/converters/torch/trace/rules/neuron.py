"""Neurons: multi-step (the first axis is time) and single-step (called once per time step)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from qkf_deploy.converters.torch.trace.capture import NEURON_CALL, Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.neurons import NeuronModule
from qkf_deploy.converters.torch.trace.refusals import CUT_THERE, ONE_T
from qkf_deploy.converters.torch.trace.rules.axes import separated
from qkf_deploy.converters.torch.trace.rules.table import rule
from qkf_deploy.converters.torch.trace.symbols import BATCH, TIME, Layout, Symbol
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import Neuron
from qkf_deploy.ops.exact import broadcasts_to
from qkf_deploy.ops.neuron import PER_POSITION


@rule(NEURON_CALL)
def neuron(low: Lowering, call: Call) -> Symbol:
    """A spiking neuron, multi-step or single-step."""
    x, path = separated(low.symbol(call.args[0])), str(call.args[1])
    return _lowered(low, call, x, path).reshaped(low.program.shapes[call.name])


def _lowered(low: Lowering, call: Call, x: Symbol, path: str) -> Symbol:
    found = low.program.neurons[path]
    if low.builder.nodes[x.node].type.timing is Timing.IMAGE:
        raise UnsupportedError(f"a neuron behind a sum over time, which fires once: {ONE_T}", hint=CUT_THERE)
    low.notices += [f"{path}: {notice}" for notice in found.notices]
    if found.op.decay == 0.0:  # without memory, the same in every layout
        return _emit(low, call, x, found.op, _parameters(found, x, x.layout()), path)
    if not found.multi_step:
        return _single_step(low, call, x, found, path)
    if low.loops.calls[path] > 1:
        raise UnsupportedError(
            f"one neuron is called {low.loops.calls[path]} times in a forward pass; "
            "its membrane would carry on from call to call",
            hint="give every place its own neuron",
        )
    x = _with_time(low, x)
    op = _over_time(low, x, found.op, path)
    return _emit(low, call, x, op, _parameters(found, x, x.layout()[1:]), path)


def _with_time(low: Lowering, x: Symbol) -> Symbol:
    """A model of one time step may make its time axis like any axis of size 1; in front of a neuron it is known."""
    if low.spec.time_steps != 1 or x.steps is not None or x.at or x.layout()[0] is not None or x.shape[0] != 1:
        return x
    return x.reshaped(x.shape[1:]).over_time(0, low.timed(1))


def _over_time(low: Lowering, x: Symbol, op: Neuron, path: str) -> Neuron:
    lead = x.layout()[0]
    if lead is None or (TIME not in lead and (x.steps or low.spec.time_steps) > 1):
        raise UnsupportedError(
            "a multi-step neuron whose input has no time axis in front",
            hint="is the model given its input as it expects?",
        )
    if BATCH not in lead:
        return op
    low.merged.append(path)
    return replace(op, time_merged_with_batch=True)


def _emit(low: Lowering, call: Call, x: Symbol, op: Neuron, params: Mapping[str, np.ndarray], path: str) -> Symbol:
    tau, decay, v_threshold, v_reset, v_min, initial = (params.get(name) for name in (*PER_POSITION, "initial"))
    out = low.emit(
        call, "neuron", op, (x,), x.layout(), path=path, tau=tau, decay=decay, v_threshold=v_threshold, v_reset=v_reset,
        v_min=v_min, initial=initial,
    )  # fmt: skip
    low.fired.setdefault(out.node, []).append(call.name)
    return out


def _parameters(found: NeuronModule, x: Symbol, step: Layout) -> dict[str, np.ndarray]:
    """Values per position in the per-step shape of the graph.

    Args:
        found: the neuron.
        x: its input.
        step: layout of one step of it.
    """
    shape = tuple(
        1 if lead is not None else n for n, lead in zip(x.shape[len(x.shape) - len(step) :], step, strict=True)
    )
    params: dict[str, np.ndarray] = {}
    for name, value in found.params.items():
        if name not in (*PER_POSITION, "initial"):
            raise UnsupportedError(f"a neuron has no parameter {name}")
        if name == "initial" and value.ndim and value.shape != shape:
            raise UnsupportedError(
                f"its membrane is reset to a tensor {value.shape}, and one step of its input is {shape}: "
                "SpikingJelly replaces it by the reset voltage",
                hint="give it the shape of the input at batch size 1",
            )
        aligned = value.reshape((1,) * (len(shape) - value.ndim) + value.shape) if value.ndim <= len(shape) else value
        if not broadcasts_to(aligned.shape, shape):
            raise UnsupportedError(f"its {name} {value.shape} differs within one step {shape} of one image")
        params[name] = aligned.reshape([n for n, lead in zip(aligned.shape, step, strict=True) if lead is None])
    if "initial" in params:
        params["initial"] = params["initial"] - found.op.levels(params).base
    return params


def _single_step(low: Lowering, call: Call, x: Symbol, found: NeuronModule, path: str) -> Symbol:
    if x.steps is not None and x.steps > 1:
        raise UnsupportedError("a single-step neuron that is given a time axis", hint="set step_mode='m'")
    step = low.loops.step_of(path, x)
    out = _emit(low, call, x, found.op, _parameters(found, x, x.layout()), path)
    return out if step is None else replace(out, at=(step,))
