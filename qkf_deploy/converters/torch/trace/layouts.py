"""How a model takes its input, found by running it on shapes alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qkf_deploy.converters.torch.trace.capture import NEURON_CALL, find_neurons, run_on_shapes
from qkf_deploy.converters.torch.trace.lowering import InputLayout
from qkf_deploy.converters.torch.trace.places import place_of, raised
from qkf_deploy.converters.torch.trace.refusals import CUT_THERE, ONE_T
from qkf_deploy.converters.torch.trace.written import recognized
from qkf_deploy.converters.torch.trace.written.firing import FIRING
from qkf_deploy.converters.torch.trace.written_out import captured
from qkf_deploy.converters.torch.untouched import working_copy
from qkf_deploy.errors import UnsupportedError

#: Two odd batch sizes: what grows with them is the batch.
_BATCHES = (3, 5)
_NEURON_OP = NEURON_CALL.removesuffix(".default").replace(".", "::")


@dataclass(frozen=True)
class InputFound:
    """How a model takes its input.

    Attributes:
        layout: see :data:`qkf_deploy.converters.torch.trace.lowering.InputLayout`.
        time_steps: T, ``None`` if the model takes any.
    """

    layout: InputLayout
    time_steps: int | None


@dataclass(frozen=True)
class _Trial:
    """Neuron calls of one run: how often each single-step neuron was called, leading sizes of multi-step inputs, and
    how often something else fires."""

    single: Counter[str]
    leading: tuple[int, ...]
    fires: int


class Recorder(TorchDispatchMode):
    """Notes calls of neurons, path and first size of the input, and how often something else fires."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []
        self.fires = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.name() == _NEURON_OP:
            self.calls.append((args[1], args[0].shape[0]))
        self.fires += func.name().removeprefix("aten::").partition(".")[0] in FIRING
        return func(*args, **(kwargs or {}))


def find_layout(model: torch.nn.Module, shape: tuple[int, ...], time_steps: int | None) -> InputFound:
    """Try an image ``(B, C, H, W)``, then a sequence ``(T, B, C, H, W)``.

    Event frames ``(B, T, C, H, W)`` look like a sequence and are never chosen here: the user says ``frames``.

    Args:
        model: any module; copies of it run.
        shape: ``(C, H, W)``.
        time_steps: T for the sequence, 4 where it is not known.

    Raises:
        UnsupportedError: the model takes neither; says what each trial raised and what to give.
    """
    problems: list[str] = []
    hint = "check --image-size, --in-channels and --time-steps; event frames (B, T, C, H, W) need --input frames"
    try:
        small, large = (_run(model, (batch, *shape)) for batch in _BATCHES)
        if small.fires == large.fires and small.fires and not (small.single or small.leading):
            single = _written(model, (_BATCHES[0], *shape))  # neurons written by hand say how many steps there are
            small, large = replace(small, single=single), replace(large, single=single)
        return _as_image(small, large, time_steps)
    except _Refused as refused:
        problems.append(f"as image (B, {', '.join(map(str, shape))}): {refused}")
        hint = refused.hint or hint
    try:
        steps = time_steps or 4
        return _as_sequence(steps, *(_run(model, (steps, batch, *shape)) for batch in _BATCHES))
    except _Refused as refused:
        problems.append(f"as sequence (T, B, {', '.join(map(str, shape))}): {refused}")
    raise UnsupportedError(
        "the model takes neither images nor sequences of this size:\n  " + "\n  ".join(problems),
        hint=hint,
    )


class _Refused(Exception):  # noqa: N818 - not an error: one of two trials
    """A trial did not work; ``hint`` says what else would."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _run(model: torch.nn.Module, shape: tuple[int, ...]) -> _Trial:
    copied, recorder = working_copy(model), Recorder()
    neurons = find_neurons(copied)
    try:
        run_on_shapes(copied, shape, recorder)
    except (Exception, SystemExit) as error:  # whatever the model's own code raises
        place = place_of(copied, error)
        raise _Refused(f"{raised(error)}{f' in {place}' if place else ''}") from error
    single = Counter(path for path, _ in recorder.calls if not neurons[path].multi_step)
    leading = tuple(n for path, n in recorder.calls if neurons[path].multi_step)
    return _Trial(single, leading, recorder.fires)


def _written(model: torch.nn.Module, shape: tuple[int, ...]) -> Counter[str]:
    """How often each hand-written neuron is computed."""
    try:
        program = recognized(captured(model, shape))
    except UnsupportedError:  # which is said, with everything else, where the model is traced
        return Counter()
    for call in program.calls:
        if call.name in program.refused:
            raise _Refused(f"{program.refused[call.name].message} in {call.path or '<model>'} ({call.source})")
    found = Counter(str(c.args[1]) for c in program.calls if c.target == NEURON_CALL)
    return Counter({path: n for path, n in found.items() if not program.neurons[path].untimed})


def _as_image(small: _Trial, large: _Trial, time_steps: int | None) -> InputFound:
    if small.single != large.single or small.fires != large.fires:
        raise _Refused("its first axis is looped over, so it is time and not the batch")
    pairs = list(zip(small.leading, large.leading, strict=True))
    steps = set(small.single.values()) | {_leading(a, b) for a, b in pairs}
    # Time and batch merged at T = 1 look like no time at all, unless something else says that T is 1.
    said = time_steps == 1 or (1, 1) in pairs
    if (1, 1) in pairs and len(steps) > 1:
        raise _Refused(f"neurons of {max(steps)} time steps and, behind a sum over them, of one: {ONE_T}", CUT_THERE)
    if small.leading and 1 in steps and not (steps == {1} and said):
        raise _Refused("multi-step neurons get no time axis (if the model runs one time step, say --time-steps 1)")
    if small.leading and steps == {1}:
        return InputFound("image", 1)
    if steps == {1} or not steps:
        return InputFound("step", None)
    return InputFound("image", max(steps))


def _leading(small: int, large: int) -> int:
    """T of a multi-step neuron's first axis: T itself, or T times the batch."""
    if small == large:
        return small
    return small // _BATCHES[0] if small * _BATCHES[1] == large * _BATCHES[0] else 1


def _as_sequence(steps: int, small: _Trial, large: _Trial) -> InputFound:
    found = set(small.single.values()) | {_leading(a, b) for a, b in zip(small.leading, large.leading, strict=True)}
    if small.single != large.single or found - {steps}:
        raise _Refused(f"its neurons run {', '.join(map(str, sorted(found)))} steps, the sequence has {steps}")
    return InputFound("sequence", None)
