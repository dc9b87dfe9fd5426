"""Do classes that a user described compute what was said of them? Both run on the same drives, in float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from qkf_deploy.converters.torch.trace.capture import NEURON_CALL, Program, Ref, quiet
from qkf_deploy.converters.torch.trace.neurons import NeuronModule, is_described
from qkf_deploy.converters.torch.trace.places import named_modules, raised
from qkf_deploy.converters.torch.trace.precision import Float64
from qkf_deploy.errors import QkfError, UnsupportedError
from qkf_deploy.ir import ValueType
from qkf_deploy.ir.values import Kind, Timing
from qkf_deploy.ops import Neuron

#: Steps that a single-step class is called.
_STEPS = 6
#: Membranes this close to a level (in thresholds) may fire or not where the order of operations differs.
_ROUNDING = 1e-9


def tried(model: torch.nn.Module, program: Program) -> Program:
    """The program, its described neurons tried: half of the drives meet the threshold exactly.

    Args:
        model: the module that was captured; copies of its neurons run.
        program: of it.

    Raises:
        UnsupportedError: an object gives other spikes than its description; says at which drives.
    """
    modules, neurons = named_modules(model), dict(program.neurons)
    known: dict[tuple[Any, ...], tuple[str, ...]] = {}
    for call in program.calls:
        if call.target != NEURON_CALL or not is_described(modules[path := str(call.args[1])]):
            continue
        x, neuron = call.args[0], neurons[path]
        shape = program.shapes[x.name if isinstance(x, Ref) else call.name]
        key = (type(modules[path]), shape, neuron.op, *((k, v.tobytes()) for k, v in neuron.params.items()))
        if key not in known:
            known[key] = _tried(modules[path], neuron, shape, path)
        neurons[path] = replace(program.neurons[path], notices=(*program.neurons[path].notices, *known[key]))
    return replace(program, neurons=neurons)


def _tried(module: torch.nn.Module, neuron: NeuronModule, shape: tuple[int, ...], path: str) -> tuple[str, ...]:
    """Notices on one object."""
    steps = shape if neuron.multi_step else (_STEPS, *shape)
    drives = _drives(neuron.op, steps)
    try:
        params = _parameters(neuron, steps[1:])
        neuron.op.infer((ValueType(steps[1:], Kind.DRIVE, Timing.STEP),), params)
        fired = neuron.op.run([drives], params, len(drives))
        charged = neuron.op.membranes([drives], params, len(drives))
    except (QkfError, ValueError):  # said where the neuron becomes a node
        return ()
    seen = _computed(module, neuron.multi_step, drives, path)
    if seen.shape != fired.shape:
        raise UnsupportedError(f"gives {seen.shape} for {fired.shape}, and a neuron keeps the shape", where=path)
    wrong = seen != fired
    if not wrong.any():
        return ()
    margin = neuron.op.margin(charged, params)
    ties = margin[0] == 0.0
    explained = np.logical_or.accumulate(margin <= _ROUNDING, axis=0)
    if (wrong & ~explained).any() or (ties.any() and wrong[0][ties].all()):
        at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)  # the first in time
        words = _difference(type(module).__name__, drives, charged, fired, seen, at)
        hint = "mend the description; strict says that it fires above its threshold, not at it"
        raise UnsupportedError(words, where=path, hint=hint)
    return ("it computes in another order than its description: membranes can differ by rounding",)


def _drives(op: Neuron, shape: tuple[int, ...]) -> np.ndarray:
    """Quarters of what reaches the threshold in one step, and any numbers."""
    rng = np.random.default_rng(0)
    levels = op.levels({})
    unit = float(levels.v_threshold - levels.base) * (op.tau if op.tau is not None and op.decay_input else 1.0)
    quarters = rng.integers(-4, 9, shape) / 4 * unit
    drives = np.where(rng.random(shape) < 0.5, quarters, rng.normal(size=shape) * unit)
    drives[0].flat[::3] = unit  # however small it is, some reach the threshold at once
    return drives


def _parameters(neuron: NeuronModule, step: tuple[int, ...]) -> dict[str, np.ndarray]:
    params: dict[str, np.ndarray] = {k: np.broadcast_to(v, step) for k, v in neuron.params.items()}
    if "initial" in params:
        params["initial"] = params["initial"] - neuron.op.levels(params).base
    return params


def _computed(module: torch.nn.Module, multi_step: bool, drives: np.ndarray, path: str) -> np.ndarray:
    """What a copy of the object gives."""
    copied = copy.deepcopy(module).cpu().eval().double()
    if callable(reset := getattr(copied, "reset", None)):
        reset()
    x = torch.from_numpy(drives)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), quiet(), Float64():
            out = copied(x) if multi_step else torch.stack([copied(step) for step in x])
    except Exception as error:
        said = f"cannot be tried beside its description: {raised(error)}"
        raise UnsupportedError(said, where=path) from error
    finally:
        torch.set_default_dtype(torch.float32)
    return out.numpy()


def _difference(
    name: str, drives: np.ndarray, charged: np.ndarray, fired: np.ndarray, seen: np.ndarray, at: tuple[Any, ...]
) -> str:
    step, place = int(at[0]), at[1:]
    shown = ", ".join(f"{value:.6g}" for value in drives[(slice(0, step + 1), *place)])
    return (
        f"{name} computes otherwise than it is described: for the drives {shown} its last output is "
        f"{float(seen[at]):g}, and {float(fired[at]):g} as described, where the membrane is {float(charged[at]):.6g}"
    )
