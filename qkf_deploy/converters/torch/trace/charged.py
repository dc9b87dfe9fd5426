"""Membranes that a model charges before its first time step, by calling a neuron on a constant.

Networks converted from quantized activations do so to start from half a threshold (QCFS, arXiv 2303.04347).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from qkf_deploy.converters.torch.trace.capture import NEURON_CALL, Call, Program, Ref, run_on_shapes
from qkf_deploy.converters.torch.trace.constants import Aliases, Constants
from qkf_deploy.converters.torch.trace.layouts import Recorder
from qkf_deploy.converters.torch.trace.lowering import InputSpec
from qkf_deploy.converters.torch.trace.needed import needed
from qkf_deploy.converters.torch.trace.neurons import NeuronModule
from qkf_deploy.converters.torch.untouched import working_copy
from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import UnsupportedError


def started(model: torch.nn.Module, program: Program, spec: InputSpec) -> Program:
    """The program without calls that only charge a membrane before the first step: the neuron starts from there.

    Args:
        model: the module that was captured; a copy of it runs on shapes alone.
        program: of it.
        spec: its input. Where the model computes one step per call, its second call must do without.

    Raises:
        UnsupportedError: the second call charges it, too.
    """
    charging = _charging(program)
    if not charging:
        return program
    if spec.layout == "step" and not _only_at_first(model, program, charging, spec):
        raise UnsupportedError(
            "charges its membrane by a constant, and not in front of the first time step alone",
            where=str(charging[0][0].args[1]),
            hint="add the constant to what the neuron reads",
        )
    neurons, gone = dict(program.neurons), {call.name for call, _ in charging}
    for call, drive in charging:
        neurons[str(call.args[1])] = _charged(neurons[str(call.args[1])], drive)
    count = quantity(len({str(call.args[1]) for call, _ in charging}), "neuron")
    notice = f"membranes charged by a constant before the first time step start from there: {count}"
    used = {name for call in program.calls for name in call.references()}
    calls = needed([c for c in program.calls if c.name not in gone], program.outputs, set(), used)
    return replace(program, calls=calls, neurons=neurons, notices=(*program.notices, notice))


def _charging(program: Program) -> list[tuple[Call, np.ndarray]]:
    """Calls of single-step neurons on a constant, the same for every image, that nothing reads, before any other call
    of that neuron; with the constant."""
    if max(_calls(program).values(), default=1) == 1:
        return []
    constants, found = Constants(program), list[tuple[Call, np.ndarray]]()
    read = {name for call in program.calls for name in call.references()} | set(program.outputs)
    running: set[str] = set()
    for call in program.calls:
        if call.target != NEURON_CALL:
            if not constants.evaluate(call) and Aliases.in_place(call):
                constants.values.pop(call.references()[0], None)
            continue
        x, path = call.args[0], str(call.args[1])
        drive = constants.values.get(x.name) if isinstance(x, Ref) else None
        if path in running or drive is None or call.name in read or program.neurons[path].untimed:
            running.add(path)
        elif bool((drive == drive[:1]).all()):
            found.append((call, drive[:1].double().numpy()))
    return [(call, drive) for call, drive in found if str(call.args[1]) in running]


def _charged(neuron: NeuronModule, drive: np.ndarray) -> NeuronModule:
    params, base = dict(neuron.params), neuron.op.levels(neuron.params).base
    if "initial" in params:
        params["initial"] = params["initial"] - base
    after = (neuron.op.leftovers([drive[None]], params, 1) + base)[0]
    same = bool((after == after.flat[0]).all())
    return replace(neuron, params={**neuron.params, "initial": after.flat[0].reshape(()) if same else after})


def _only_at_first(
    model: torch.nn.Module, program: Program, charging: list[tuple[Call, np.ndarray]], spec: InputSpec
) -> bool:
    """True if a second call of the model calls each neuron once less for each call that charges it."""
    seen = Recorder()
    run_on_shapes(working_copy(model), spec.tensor_shape, seen, times=2)
    first = _calls(program)
    second = first - Counter(str(call.args[1]) for call, _ in charging)
    return Counter(path for path, _ in seen.calls) == first + second


def _calls(program: Program) -> Counter[str]:
    """How often each neuron is called."""
    return Counter(str(call.args[1]) for call in program.calls if call.target == NEURON_CALL)
