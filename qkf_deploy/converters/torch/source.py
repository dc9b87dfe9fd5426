"""What a user names — a checkpoint, a factory, a module — as a torch module with everything tracing needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qkf_deploy.converters.torch import assumed, pixels, sizes
from qkf_deploy.converters.torch.checkpoint import Checkpoint, check_numbers, load_model, read_state_dict, with_counts
from qkf_deploy.converters.torch.factory import call_factory
from qkf_deploy.converters.torch.imports import Imports
from qkf_deploy.converters.torch.remap import fitting
from qkf_deploy.converters.torch.trace.layouts import find_layout
from qkf_deploy.converters.torch.trace.told import ToldNeuron, check_used, parsed, telling
from qkf_deploy.converters.torch.untouched import undisturbed
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Assumption, Preprocessing
from qkf_deploy.options import TraceOptions

if TYPE_CHECKING:
    import torch

    from qkf_deploy.models import QKFormerConfig


@dataclass(frozen=True)
class Source:
    """A module ready to be traced.

    Attributes:
        model: with its weights; whatever runs it runs a copy.
        layout: how it takes its input.
        shape: ``(C, H, W)``; ``(C, L)`` of signals, ``(C,)`` of vectors.
        time_steps: T.
        preprocessing: ``None`` for event frames.
        class_names: labels, may be empty.
        provenance: strings for the graph.
        imports: active while the model runs.
        assumptions: what neither the source nor the options say.
        notices: sentences about the weights that the user should read.
        scales: by node name, of a network that was trained in integers (:class:`.checkpoint.Checkpoint`).
        neurons: classes that the user described.
        outputs: results that become outputs, ``("all",)``; empty: the first one.
    """

    model: torch.nn.Module
    layout: str
    shape: tuple[int, ...]
    time_steps: int
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...]
    provenance: Mapping[str, str]
    imports: Imports = field(default_factory=Imports)
    assumptions: tuple[Assumption, ...] = ()
    notices: tuple[str, ...] = ()
    scales: Mapping[str, np.ndarray] = field(default_factory=dict)
    neurons: tuple[ToldNeuron, ...] = ()
    outputs: tuple[str, ...] = ()


@undisturbed()
def resolve(source: Any, options: TraceOptions) -> Source:
    """Load what ``source`` names.

    Args:
        source: path of a checkpoint, ``module:factory`` or ``file.py:factory``, or an ``nn.Module``.
        options: overrides.

    Raises:
        CheckpointError, InputError: the file, factory or weights cannot be used.
        UsageError: options that do not fit.
    """
    neurons = parsed(options.neurons)
    with telling(neurons):
        found = _resolved(source, options)
    check_used(neurons, found.model)
    return replace(found, neurons=neurons, outputs=tuple(options.outputs or ()))


def _resolved(source: Any, options: TraceOptions) -> Source:
    from qkf_deploy.models.lazy import import_torch_module

    nn = import_torch_module("torch").nn
    if isinstance(source, nn.Module):
        with Imports().active():
            return _from_module(source, options, {"source": type(source).__name__})
    text = str(source)
    if _is_factory(text):
        model, imports = call_factory(text, options.factory_arguments, _named(options))
        _set_steps(model, options.time_steps)
        provenance: dict[str, str] = {"source": text}
        notices: tuple[str, ...] = ()
        scales: Mapping[str, np.ndarray] = {}
        if options.checkpoint is not None:
            loaded, checkpoint = _load_weights(model, options.checkpoint, options.weights)
            provenance |= loaded
            notices, scales = checkpoint.notices, checkpoint.scales
        with imports.active():
            found = _from_module(model, options, provenance)
        return replace(found, imports=imports, notices=(*imports.notices, *notices), scales=scales)
    if options.checkpoint is not None:
        raise UsageError("--checkpoint goes with a module:factory", hint="name the checkpoint itself, or the factory")
    return _from_checkpoint(text, options)


def _is_factory(text: str) -> bool:
    head, colon, name = text.rpartition(":")
    return bool(colon and head and name.isidentifier()) and not Path(text).exists()


def _named(options: TraceOptions) -> dict[str, Any]:
    """Options under every usual name of a factory's parameter; the factory gets those it has."""
    names = ((_STEP_NAMES, options.time_steps), (sizes.CHANNEL_NAMES, options.in_channels))
    given = {name: value for usual, value in names if value is not None for name in usual}
    return given | sizes.named(options.image_size)


def _from_checkpoint(path: str, options: TraceOptions) -> Source:
    overrides = {k: getattr(options, k) for k in ("time_steps", "heads", "image_size")}
    named = {k: v for k, v in overrides.items() if v is not None}
    if "image_size" in named and len(set(axes := sizes.spatial(named["image_size"]))) == 1:
        named["image_size"] = axes[0]
    model, checkpoint = load_model(path, options.arch, weights=options.weights, **named)
    config = model.config
    frames = config.layout == "dvs"
    given = _given(options)
    found = assumed.of_checkpoint(checkpoint, config, given)
    usual = {"imagenet": "imagenet", "cifar": "cifar10"}.get(config.layout) if config.in_channels == 3 else None
    pre = None
    shape = (config.in_channels, config.image_size, config.image_size)
    if not frames:
        stored = pixels.stored(checkpoint.metadata, config.in_channels, path)
        pre, assumption = pixels.normalization(options, config.in_channels, usual, assumed.CODE, stored)
        resize, resized = pixels.resizing(options, shape, None if stored else usual, assumed.CODE)
        pre = replace(pre, resize=resize)
        found += [*assumption, *resized]
    names = tuple(options.class_names) or pixels.stored_class_names(checkpoint.metadata, config.num_classes, path)
    provenance = {
        "source": Path(path).name,
        "sha256": checkpoint.sha256,
        "container": checkpoint.container,
        "architecture": config.to_json(),
        **assumed.given(given),
    }
    layout = "frames" if frames else "image"
    return Source(
        model, layout, shape, config.time_steps, pre, names, provenance,
        assumptions=tuple(found), notices=checkpoint.notices, scales=checkpoint.scales,
    )  # fmt: skip


def _from_module(model: torch.nn.Module, options: TraceOptions, provenance: Mapping[str, str]) -> Source:
    config: QKFormerConfig | None = (
        getattr(model, "config", None) if type(model).__module__.startswith("qkf_deploy.models") else None
    )
    size, channels = options.image_size, options.in_channels
    if config is not None:
        size, channels = size or config.image_size, channels or config.in_channels
    shape, usual, found = sizes.input_shape(model, size, channels)
    steps = options.time_steps or (config.time_steps if config else _own(model, _STEP_NAMES))
    layout = options.input or (None if config is None else "frames" if config.layout == "dvs" else "image")
    if layout is None:
        tried = find_layout(model, shape, steps)
        layout, steps = tried.layout, options.time_steps or tried.time_steps or steps
        found += assumed.of_input(layout)
    if steps is None:
        raise UsageError("a module does not say its time steps", hint="give --time-steps")
    pre = None
    if layout != "frames":
        pre, assumption = pixels.normalization(options, shape[0], usual, "usual for 1000 classes", None)
        pre = replace(pre, resize=pixels.resizing(options, shape, None, "")[0])
        found += assumption
    provenance = {**provenance, **assumed.given(_given(options))}
    names = tuple(options.class_names)
    return Source(model, layout, shape, steps, pre, names, provenance, assumptions=tuple(found))


def _given(options: TraceOptions) -> dict[str, Any]:
    """What the user said about the model itself."""
    names = (
        "arch", "time_steps", "heads", "image_size", "in_channels", "input", "preset", "mean", "std", "eval_resize",
        "interpolation", "weights",
    )  # fmt: skip
    return {name: value for name in names if (value := getattr(options, name)) is not None}


#: Usual names of T in factories and modules.
_STEP_NAMES = ("T", "time_steps", "num_steps", "timesteps", "time_step")


def _set_steps(model: torch.nn.Module, steps: int | None) -> None:
    """Set T of a module that carries it and whose factory has no parameter for it."""
    for name in _STEP_NAMES if steps is not None else ():
        if isinstance(getattr(model, name, None), int):
            setattr(model, name, steps)


def _own(model: torch.nn.Module, names: Sequence[str]) -> int | None:
    """A number the module carries under one of these names."""
    for name in names:
        value = getattr(model, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _load_weights(model: torch.nn.Module, path: str | Path, weights: str | None) -> tuple[dict[str, str], Checkpoint]:
    """Give a module the weights of a file; provenance, and what the file holds."""
    wanted = model.state_dict()
    checkpoint = read_state_dict(path, weights, wanted)
    state, remapped = fitting(checkpoint.state_dict, wanted)
    state = with_counts(state, wanted)
    check_numbers(state, wanted, str(path))
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise InputError(
            "the weights do not fit the module: " + " ".join(lines)[:500],
            where=str(path),
            hint="is it another model's file?",
        ) from error
    where = {"checkpoint": Path(path).name, "sha256": checkpoint.sha256, "container": checkpoint.container}
    return {**where, **remapped}, checkpoint
