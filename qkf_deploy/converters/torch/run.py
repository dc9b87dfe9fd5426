"""The torch model itself as a reference: every neuron's spikes in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from qkf_deploy.converters.torch.source import Source
from qkf_deploy.converters.torch.trace.capture import leaves, quiet
from qkf_deploy.converters.torch.trace.neurons import recognize
from qkf_deploy.converters.torch.trace.places import named_modules, place_of, raised
from qkf_deploy.converters.torch.trace.precision import Float64
from qkf_deploy.converters.torch.trace.told import telling
from qkf_deploy.converters.torch.trace.written.replay import Replay
from qkf_deploy.converters.torch.untouched import Kept, listed, undisturbed, working_copy
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.evaluation.agreement import Oracle, Spikes
from qkf_deploy.ir import Graph
from qkf_deploy.simulators.inputs import normalize
from qkf_deploy.simulators.run import is_neuron


def torch_oracle(source: Source, graph: Graph | None = None, *, together: bool = False) -> Oracle:
    """Runs the source's model in float64, memories reset before every call of it.

    Args:
        source: the model.
        graph: its graph. Neurons of it that are no modules, hand-written ones, are watched in the model's exported
            program, the arithmetic as it was written.
        together: all images in one batch, whose membranes the model may carry from image to image; else one by one.

    Returns:
        From images (pixels, normalized floats or event frames) to spikes by module path and logits; a neuron that the
        model holds and never calls is left out.

    Raises:
        UsageError: ``together`` with neurons that are no modules.
    """
    model = working_copy(source.model).double()
    rest, steps = Kept(model), source.time_steps if graph is None else graph.time_steps
    with telling(source.neurons):
        neurons = {path: module for path, module in named_modules(model).items() if recognize(module) is not None}
        known = graph is None or all(n.name in neurons for n in graph if is_neuron(n.op.kind))
        replay = None if known else Replay(source, neurons)
    if together and replay is not None:
        raise UsageError("neurons written by hand are watched one image at a time", hint="choose carry 'own'")

    @undisturbed()
    def run(images: np.ndarray) -> tuple[Spikes, np.ndarray]:
        record: dict[str, list[np.ndarray]] = {path: [] for path in neurons}
        hooks = [module.register_forward_hook(_keep(record[path])) for path, module in neurons.items()]
        groups = [images] if together else [images[i : i + 1] for i in range(len(images))]
        try:
            calls = source.time_steps if source.layout == "step" else 1
            with source.imports.active():
                results = [_results(model, rest, _tensor(group, source), calls) for group in groups]
            logits = np.concatenate([_logits(r, len(g), graph) for r, g in zip(results, groups, strict=True)])
        finally:
            for hook in hooks:
                hook.remove()
        written = {} if replay is None else _written(replay, source, model, rest, images)
        seen = {path: _stack(parts, groups, steps) for path, parts in record.items() if parts}
        return {**written, **seen}, logits

    return run


def _written(replay: Replay, source: Source, model: torch.nn.Module, rest: Kept, images: np.ndarray) -> Spikes:
    """Spikes of hand-written neurons, ``(T, B, -1)``."""
    found: list[dict[str, np.ndarray]] = []
    for i in range(len(images)):
        _reset(model, rest)
        found.append(replay.run(_tensor(images[i : i + 1], source)))
    return {name: np.stack([one[name] for one in found], axis=1) for name in found[0]}


def _keep(kept: list[np.ndarray]) -> Callable[[torch.nn.Module, Any, torch.Tensor], None]:
    """A hook that keeps what a module returns, as it is now: the model may add to it in place."""
    return lambda _module, _inputs, out: kept.append(out.detach().numpy().copy())


def _tensor(images: np.ndarray, source: Source) -> torch.Tensor:
    """Images as the model takes them, float64."""
    if source.layout == "frames":
        return torch.from_numpy(images.astype(np.float64))
    if images.dtype == np.uint8 and source.preprocessing is not None:
        images = normalize(images, source.preprocessing, images.ndim - 2)
    x = torch.from_numpy(images.astype(np.float64))
    return x if source.layout in ("image", "step") else x[None].repeat(source.time_steps, *[1] * x.ndim)


def _results(model: torch.nn.Module, rest: Kept, x: torch.Tensor, calls: int) -> list[dict[str, Any]]:
    """What each of ``calls`` calls of the model gives, by name."""
    _reset(model, rest)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), quiet(), listed(model), Float64():
            return [leaves(model(x)) for _ in range(calls)]
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the model does not run in float64: {raised(error)}",
            where=place_of(model, error),
            hint="hold its constants as buffers, and run it once with .double()",
        ) from error


def _logits(found: list[dict[str, Any]], images: int, graph: Graph | None) -> np.ndarray:
    """Logits as the graph has them: the mean over the results of the calls, and over time where the model returns it;
    several outputs side by side."""
    if graph is not None and graph.parts:
        flat = [_mean([r[part.name] for r in found], len(part.shape), images).flatten(1) for part in graph.parts]
        return torch.cat(flat, 1).numpy()
    rank = 1 if graph is None else len(graph.output.type.shape)
    return _mean([next(iter(r.values())) for r in found], rank, images).numpy()


def _mean(results: list[torch.Tensor], rank: int, images: int) -> torch.Tensor:
    """The mean of the calls' results, over time too where they have more axes than images of that rank."""
    out = torch.stack(results).mean(0) if len(results) > 1 else results[0]
    if out.ndim != rank + 2:
        return out
    return out.mean(1 if out.shape[0] == images != out.shape[1] else 0)  # time in front, or behind the images


def _reset(model: torch.nn.Module, rest: Kept) -> None:
    """Membranes start anew: what the model holds is what it held, and neurons that can be reset are."""
    rest.put_back()
    for module in model.modules():
        reset = getattr(module, "reset", None)
        if callable(reset) and hasattr(module, "v_threshold"):
            reset()


def _stack(parts: list[np.ndarray], groups: list[np.ndarray], time_steps: int) -> np.ndarray:
    """Outputs of all calls as ``(T, B, -1)``: one call per group of images, or one per group and step."""
    calls = len(parts) // len(groups)
    flat: list[np.ndarray] = []
    for i, group in enumerate(groups):
        made = parts[i * calls : (i + 1) * calls][-time_steps:]  # calls before the first step only charge a membrane
        steps = time_steps if len(group) > 1 else len(made[0])  # of one image the first axis is time alone
        flat.append(np.concatenate([p.reshape(steps if len(made) == 1 else 1, len(group), -1) for p in made]))
    return np.concatenate(flat, axis=1)
