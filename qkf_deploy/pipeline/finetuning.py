"""Networks trained in integers."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qkf_deploy.calibration.methods import METHODS
from qkf_deploy.errors import CheckFailed, UsageError
from qkf_deploy.ir import Graph, Preprocessing
from qkf_deploy.ir.digest import digest
from qkf_deploy.keywords import part, takes
from qkf_deploy.models.builds import BUILDS
from qkf_deploy.models.config import QKFormerConfig
from qkf_deploy.models.lazy import import_torch_module
from qkf_deploy.ops import Neuron
from qkf_deploy.options import QuantizeOptions, TraceOptions
from qkf_deploy.passes.fold import fold
from qkf_deploy.passes.quantize import quantize
from qkf_deploy.pipeline.examples import Labelled, check_checkpoint, labelled, silent
from qkf_deploy.pipeline.networks import carry, resolve_source, trace_source
from qkf_deploy.training.recipe import FinetuneOptions, Recipe, finetune_recipe
from qkf_deploy.writing import check_file

if TYPE_CHECKING:
    import torch

    from qkf_deploy.converters.torch.source import Source


@dataclass(frozen=True)
class _Architecture:
    """What a training must know of a traced network."""

    layout: str
    image_size: int
    num_classes: int
    input_shape: tuple[int, ...]
    name: str

    def to_json(self) -> str:
        return self.name


@takes(FinetuneOptions)
def finetune(
    source: str | Path | torch.nn.Module, data: str | Path, output: str | Path, options: FinetuneOptions
) -> list[dict[str, Any]]:
    """Train a network further in integers: rounded weights, biases and thresholds, surrogate gradients.

    The forward pass is that of the integer network, membrane for membrane. The checkpoint holds the weights on their
    grids and the scales that belong to them; traced and quantized with the same bits it is the network that was
    trained, spike for spike. Beside it lies ``<output>.training`` until it is written: stopped, the same call goes on.

    Args:
        source: what to start from, as :func:`trace` takes it.
        data: training images with labels, as :func:`load_images` takes them.
        output: the ``.safetensors`` checkpoint to write.

    Returns:
        One entry per epoch: ``epoch``, ``loss``, ``learning_rate`` and, with held-out images, ``accuracy`` in percent.

    Raises:
        UsageError: impossible options, ``carry="official"`` for a network without such neurons.
        UnsupportedError: operators or neurons that cannot be trained, or a model that cannot take the weights back.
        InputError: images without labels or of another size, a place that cannot be written.
        CheckFailed: the loss is not finite any more.
        MissingComponent: torch, SpikingJelly, or kornia for a recipe that changes images is not installed.
    """
    output = Path(output)
    check_file(output)
    check_checkpoint(output)
    resolved = resolve_source(source, TraceOptions(**part(options, TraceOptions)))
    recipe = _recipe(resolved, options)
    traced = trace_source(resolved)
    graph = _carried(fold(traced), recipe)
    images = labelled(data, graph, options, "train")
    held_out = None if options.held_out is None else labelled(options.held_out, graph, options, "test")
    network, log = _trained(graph, images, held_out, recipe, options, output)
    if network is not None:
        tensors = _taken_back(resolved, traced, network, options)
        accuracy = log[-1].get("accuracy")
        checkpoint = import_torch_module("qkf_deploy.training.checkpoint")
        about = checkpoint.metadata_of(recipe, resolved.preprocessing, resolved.class_names, accuracy)
        about["quantized"] = _bits(options)
        config = getattr(resolved.model, "config", None)
        if isinstance(config, QKFormerConfig):
            about["qkf_config"] = config.to_json()
        checkpoint.write_tensors(output, tensors, about)
        _state(output).unlink(missing_ok=True)
    return list(log)


def build_of(source: Source) -> str | None:
    """The named build that a model is of, its size and carry-over apart."""
    config = getattr(source.model, "config", None)
    return next((name for name, build in BUILDS.items() if build == config), None)


def _recipe(resolved: Source, options: FinetuneOptions) -> Recipe:
    unknown = set(options.recipe) - {f.name for f in fields(Recipe)}
    if unknown:
        raise UsageError(f"a recipe has no {', '.join(sorted(unknown))}")
    recipe = replace(finetune_recipe(build_of(resolved)), **options.recipe)
    if recipe.precision != "float32":
        raise UsageError(f"--precision {recipe.precision}: integers need float32")
    if recipe.drop_path:
        raise UsageError("--drop-path: no branch of an integer network can be left out")
    return recipe


def _quantization(options: FinetuneOptions) -> QuantizeOptions:
    return QuantizeOptions(options.bits, first_bits=options.first_bits, layer_bits=options.layer_bits)


def _bits(options: FinetuneOptions) -> str:
    """As the options of `quantize`."""
    first = [] if options.first_bits is None else [f"--first-bits {options.first_bits}"]
    single = [f"--layer-bits {name}={bits}" for name, bits in sorted(options.layer_bits.items())]
    return " ".join([f"--bits {options.bits}", *first, *single])


def _carried(graph: Graph, recipe: Recipe) -> Graph:
    merged = any(isinstance(n.op, Neuron) and n.op.time_merged_with_batch for n in graph)
    return carry(graph, recipe.carry) if merged or recipe.carry == "official" else graph


def _state(output: Path) -> Path:
    return output.with_name(output.name + ".training")


def _trained(
    graph: Graph, images: Labelled, held_out: Labelled | None, recipe: Recipe, options: FinetuneOptions, output: Path
) -> tuple[Any, list[dict[str, Any]]]:
    """The trained network, in the process that writes it, and the log."""
    loop = import_torch_module("qkf_deploy.training.loop")
    quantized = import_torch_module("qkf_deploy.training.quantized")
    frames = graph.input_encoding == "frames"
    if graph.parts:
        raise UsageError("networks of several outputs cannot be trained further", hint="trace it with its logits alone")
    channels, *size = graph.input.type.shape
    lead = (1, graph.time_steps) if frames else (1,)
    about = f"{digest(graph)} {_bits(options)}, integers fitted to {options.start} images"
    config = _Architecture(
        "dvs" if frames else "image", size[-1], graph.output.type.size, (*lead, channels, *size), about
    )
    pixels = None if frames else Preprocessing((0.0,) * channels, (1 / 255,) * channels)  # bytes as they are

    def build() -> torch.nn.Module:
        return quantized.QuantizedNetwork(_start(graph, images, recipe, options), _quantization(options), graph)

    with import_torch_module("qkf_deploy.training.processes").joined(options.device) as group:
        task = loop.Task(config, recipe, images, held_out, pixels, build)
        network, log = loop.train(task, group, _state(output), options.report or silent)
        return (network if group.writes else None), log


def _start(graph: Graph, images: Labelled, recipe: Recipe, options: FinetuneOptions) -> Graph:
    """The network with integers fitted to some of the images."""
    if not options.start:
        return graph
    chosen = np.random.default_rng(recipe.seed).permutation(len(images.labels))[: options.start]
    fitting = import_torch_module("qkf_deploy.calibration.low_bits")
    return fitting.calibrated(graph, images.pixels(np.sort(chosen)), _quantization(options), METHODS)[0]


def _taken_back(resolved: Source, traced: Graph, network: Any, options: FinetuneOptions) -> dict[str, Any]:
    """The model's tensors with the trained weights, and the scales beside them.

    Raises:
        CheckFailed: read again, they would not give the network that was trained.
    """
    unfolding = import_torch_module("qkf_deploy.training.unfolding")
    prefix = import_torch_module("qkf_deploy.converters.torch.checkpoint").SCALE_PREFIX
    torch = import_torch_module("torch")
    trained = network.cpu().graph()
    tensors = unfolding.unfolded(resolved.model.state_dict(), traced, trained)
    scales = {name: trained[name].params["scale"] for name in network.names}
    model = copy.deepcopy(resolved.model)
    model.load_state_dict(tensors)
    again = trace_source(replace(resolved, model=model, scales=scales))
    chosen = _quantization(options)
    # How membranes are carried is no part of a checkpoint.
    own = [carry(g, "own") if _merges(g) else g for g in (again, trained)]
    if len({digest(quantize(g, chosen)) for g in own}) > 1:
        raise CheckFailed(
            "the model does not take the trained integers back",
            hint="train a model whose convolutions have one batch norm each behind them, or none",
        )
    return {**tensors, **{prefix + name: torch.from_numpy(np.array(scale)) for name, scale in scales.items()}}


def _merges(graph: Graph) -> bool:
    return any(isinstance(n.op, Neuron) and n.op.time_merged_with_batch for n in graph)
