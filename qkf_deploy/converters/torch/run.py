"""The torch model itself as a reference: every neuron's spikes in float64, one image at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from qkf_deploy.converters.torch.source import Source
from qkf_deploy.converters.torch.trace.capture import named_modules, quiet
from qkf_deploy.converters.torch.trace.neurons import recognize
from qkf_deploy.converters.torch.untouched import undisturbed, working_copy
from qkf_deploy.evaluation.agreement import Oracle, Spikes
from qkf_deploy.simulators.inputs import normalize


def torch_oracle(source: Source) -> Oracle:
    """Runs the source's model in float64 at batch size 1, memories reset before every image.

    Returns:
        From images (pixels, normalized floats or event frames) to spikes by module path and logits; a neuron that the
        model holds and never calls is left out.
    """
    model = working_copy(source.model).double()
    neurons = {path: module for path, module in named_modules(model).items() if recognize(module) is not None}

    @undisturbed()
    def run(images: np.ndarray) -> tuple[Spikes, np.ndarray]:
        record: dict[str, list[np.ndarray]] = {path: [] for path in neurons}
        hooks = [module.register_forward_hook(_keep(record[path])) for path, module in neurons.items()]
        try:
            calls = source.time_steps if source.layout == "step" else 1
            with source.imports.active():
                logits = np.concatenate([_one(model, _tensor(image, source), calls) for image in images])
        finally:
            for hook in hooks:
                hook.remove()
        return {path: _stack(parts, len(images)) for path, parts in record.items() if parts}, logits

    return run


def _keep(kept: list[np.ndarray]) -> Callable[[torch.nn.Module, Any, torch.Tensor], None]:
    """A hook that keeps what a module returns."""
    return lambda _module, _inputs, out: kept.append(out.detach().numpy())


def _tensor(image: np.ndarray, source: Source) -> torch.Tensor:
    """One image as the model takes it, float64."""
    if source.layout == "frames":
        return torch.from_numpy(image.astype(np.float64))[None]
    if image.dtype == np.uint8 and source.preprocessing is not None:
        image = normalize(image, source.preprocessing, image.ndim - 1)
    x = torch.from_numpy(image.astype(np.float64))[None]
    return x if source.layout in ("image", "step") else x[None].repeat(source.time_steps, *[1] * x.ndim)


def _one(model: torch.nn.Module, x: torch.Tensor, calls: int) -> np.ndarray:
    """Logits of one image: the mean over the results of ``calls`` calls, and over time where the model returns it."""
    for module in model.modules():
        reset = getattr(module, "reset", None)
        if callable(reset) and hasattr(module, "v_threshold"):
            reset()
    with torch.no_grad(), quiet():
        results: list[Any] = [model(x) for _ in range(calls)]
    results = [r[0] if isinstance(r, tuple | list) else r for r in results]
    out = torch.stack(results).mean(0) if calls > 1 else results[0]
    return (out.mean(0) if out.ndim == 3 else out).numpy()


def _stack(parts: list[np.ndarray], images: int) -> np.ndarray:
    """Outputs of all calls as ``(T, B, -1)``: one call per image, or one per image and step."""
    calls = len(parts) // images
    flat = [
        np.concatenate([p.reshape(p.shape[0] if calls == 1 else 1, -1) for p in parts[i * calls : (i + 1) * calls]])
        for i in range(images)
    ]
    return np.stack(flat, axis=1)
