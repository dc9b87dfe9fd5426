"""Networks trained from the beginning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph, Preprocessing
from qkf_deploy.keywords import takes
from qkf_deploy.models.builds import build_config
from qkf_deploy.models.lazy import import_torch_module
from qkf_deploy.pipeline.examples import check_checkpoint, labelled, silent
from qkf_deploy.pipeline.networks import trace
from qkf_deploy.training.recipe import TrainOptions, recipe_of
from qkf_deploy.writing import check_file

if TYPE_CHECKING:
    from qkf_deploy.models.config import QKFormerConfig

#: Images that mean and standard deviation are measured on.
_MEASURED = 10_000


@takes(TrainOptions)
def train(arch: str, data: str | Path, output: str | Path, options: TrainOptions) -> list[dict[str, Any]]:
    """Train a QKFormer with surrogate gradients; stopped, it goes on where it was when called again.

    Beside the output lies ``<output>.training`` until the weights are written: the state after each epoch. Several
    processes that torchrun started share each batch.

    Args:
        arch: a named build, see docs/models.md.
        data: training images with labels, as :func:`load_images` takes them.
        output: the ``.safetensors`` checkpoint to write, which :func:`trace` takes as it is.

    Returns:
        One entry per epoch: ``epoch``, ``loss``, ``learning_rate`` and, with held-out images, ``accuracy`` in percent.

    Raises:
        UsageError: an unknown build, a device that is not there, processes that cannot share a batch.
        InputError: images without labels or of another size, a state of another training, a place that cannot be
            written.
        CheckFailed: the loss is not finite any more.
        MissingComponent: torch, SpikingJelly, or kornia for a recipe that changes images is not installed.
    """
    loop = import_torch_module("qkf_deploy.training.loop")
    processes = import_torch_module("qkf_deploy.training.processes")
    checkpoint = import_torch_module("qkf_deploy.training.checkpoint")
    output = Path(output)
    state = output.with_name(output.name + ".training")
    check_file(output)
    check_file(state)
    chosen = options.recipe or recipe_of(arch)
    check_checkpoint(output)
    config = build_config(arch, **_overrides(options), merge_batch_into_time=chosen.carry == "official")
    _check_normalization(config, options)
    graph = _untrained(config)
    images = labelled(data, graph, options, "train")
    held_out = None if options.held_out is None else labelled(options.held_out, graph, options, "test")
    pixels = None if config.layout == "dvs" else _preprocessing(images, options)
    with processes.joined(options.device) as group:
        task = loop.Task(config, chosen, images, held_out, pixels)
        model, log = loop.train(task, group, state, options.report or silent)
        if group.writes:
            accuracy = log[-1].get("accuracy")
            checkpoint.write_checkpoint(output, model, chosen, pixels, images.class_names, accuracy)
            state.unlink(missing_ok=True)
    return list(log)


def _check_normalization(config: QKFormerConfig, options: TrainOptions) -> None:
    if (options.mean is None) != (options.std is None):
        raise UsageError("--mean and --std go together", hint="give both, or neither to have them measured")
    for given, what in ((options.mean, "means"), (options.std, "standard deviations")):
        if given is not None and config.layout == "dvs":
            raise UsageError("--mean and --std are about pixels; counts of events are taken as they are")
        if given is not None and len(given) != config.in_channels:
            raise UsageError(f"{len(given)} {what}, the images have {config.in_channels} channels")


def _overrides(options: TrainOptions) -> dict[str, int]:
    given = {
        "num_classes": options.classes,
        "image_size": options.image_size,
        "in_channels": options.in_channels,
        "time_steps": options.time_steps,
    }
    return {name: value for name, value in given.items() if value is not None}


def _untrained(config: QKFormerConfig) -> Graph:
    """The network with random weights: what its images must look like, and that it can be deployed."""
    build = import_torch_module("qkf_deploy.models.qkformer").QKFormer
    return trace(build(config).eval(), preset="none")


def _preprocessing(images: Any, options: TrainOptions) -> Preprocessing:
    """Mean and standard deviation per channel as given, else as measured, rounded to four digits."""
    if options.mean is not None and options.std is not None:
        return Preprocessing(tuple(options.mean), tuple(options.std))
    count = len(images.labels)
    places = np.unique(np.linspace(0, count - 1, min(count, _MEASURED)).astype(np.int64))
    sums = np.zeros((2, 1))
    total = 0
    for chunk in np.array_split(places, max(1, len(places) // 100)):
        pixels = images.pixels(chunk)
        values = np.moveaxis(pixels, -3, 0).reshape(pixels.shape[-3], -1) / 255
        sums = sums + np.stack([values.sum(axis=1), (values**2).sum(axis=1)])
        total += values.shape[1]
    mean, square = sums / total
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-8))
    return Preprocessing(tuple(mean.round(4).tolist()), tuple(deviation.round(4).tolist()))
