"""Networks: where they come from, what is made of them, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qkf_deploy import bundle
from qkf_deploy.ir import Graph
from qkf_deploy.ir.needs import need_integers
from qkf_deploy.keywords import checked, takes
from qkf_deploy.options import Carry, ImportOptions, QuantizeOptions, TraceOptions
from qkf_deploy.passes import audit as _audit
from qkf_deploy.passes import fold as _fold
from qkf_deploy.passes import layers as _layers
from qkf_deploy.passes import quantize as _quantize
from qkf_deploy.passes import steps as _steps

if TYPE_CHECKING:
    import torch

    from qkf_deploy.converters.torch.source import Source
    from qkf_deploy.converters.torch.trace import NeuronModule
    from qkf_deploy.ops import Neuron


@takes(TraceOptions)
def trace(source: str | Path | torch.nn.Module, options: TraceOptions) -> Graph:
    """Trace a model to a float graph.

    Args:
        source: path of a checkpoint (``.pth``, ``.pt``, ``.safetensors``), ``module:factory``, ``file.py:factory``, or
            an ``nn.Module``.

    Returns:
        A verified float graph; node names are the module's paths.

    Raises:
        CheckpointError, InputError: a file or factory that cannot be used.
        UsageError: options that do not fit.
        UnsupportedError: operations without a spiking or integer form, all of them.
        MissingComponent: torch or SpikingJelly is not installed.
    """
    return trace_source(resolve_source(source, options))


def resolve_source(source: str | Path | torch.nn.Module, options: TraceOptions) -> Source:
    from qkf_deploy.models.lazy import import_torch_module

    return import_torch_module("qkf_deploy.converters.torch.source").resolve(source, options)


def trace_source(resolved: Source) -> Graph:
    """The float graph of a loaded model."""
    from qkf_deploy.models.lazy import import_torch_module

    tracer = import_torch_module("qkf_deploy.converters.torch.trace")
    spec = tracer.InputSpec(resolved.layout, resolved.shape, resolved.time_steps, resolved.outputs)
    with resolved.imports.active(), tracer.telling(resolved.neurons):
        graph: Graph = tracer.trace_module(resolved.model, spec)
    if resolved.scales:
        from qkf_deploy.passes.clipping import with_scales

        graph = with_scales(_fold.fold(graph), resolved.scales)
    return replace(
        graph,
        preprocessing=resolved.preprocessing,
        class_names=resolved.class_names,
        provenance=dict(resolved.provenance),
        assumptions=resolved.assumptions,
        notices=(*resolved.notices, *graph.notices),
    ).verify()


@checked
def register_neuron(class_path: str, recognizer: Callable[[Any], Neuron | NeuronModule]) -> None:
    """Say what a neuron class computes, for every trace that follows; its objects are tried beside what is said.

    Args:
        class_path: ``module.ClassName`` of the class (its subclasses are not covered).
        recognizer: from an object to a :class:`qkf_deploy.ops.Neuron`, where the first axis of its input is time, or to
            a ``qkf_deploy.converters.torch.trace.NeuronModule``, which also knows values per channel and classes that
            are called once per step.

    Raises:
        MissingComponent: torch or SpikingJelly is not installed.
    """
    from qkf_deploy.models.lazy import import_torch_module

    import_torch_module("qkf_deploy.converters.torch.trace").register_neuron(class_path, recognizer)


@takes(ImportOptions)
def import_nir(path: str | Path, options: ImportOptions) -> Graph:
    """Read a NIR file: one of ours without loss, a stock file of another tool by meaning.

    Args:
        path: of the file.

    Raises:
        InputError: missing, damaged or hostile file; stock nodes changed since the export; a time step that is open.
        UnsupportedError: nodes without a meaning here, all listed.
        UsageError: options that contradict each other.
        MissingComponent: nir is not installed.
    """
    from qkf_deploy.converters.nir import read

    return read.import_nir(path, options)


@checked
def load(path: str | Path) -> Graph:
    """Read a `.qkf` file; integer graphs get their width proofs checked again.

    Args:
        path: of the file.

    Raises:
        InputError: not a readable `.qkf` file.
        ProofError: stored widths narrower than the weights can reach.
    """
    from qkf_deploy.passes.widths import check

    graph = bundle.load_graph(path)
    if graph.arithmetic == "integer":
        check(graph)
    return graph


@checked
def save(graph: Graph, path: str | Path) -> None:
    """Write a `.qkf` file, atomically.

    Args:
        graph: float or integer.
        path: of the file.

    Raises:
        InputError: the place cannot be written.
    """
    bundle.save_graph(graph, path)


@checked
def fold(graph: Graph) -> Graph:
    """Fold every batch norm into the synapse before it; see :func:`qkf_deploy.passes.fold.fold`.

    Args:
        graph: float graph.

    Raises:
        UnsupportedError: a batch norm that no synapse can take in.
    """
    return _fold.fold(graph)


@takes(QuantizeOptions)
def quantize(graph: Graph, options: QuantizeOptions) -> Graph:
    """Integer graph with width proofs; folds first where needed.

    Args:
        graph: float graph.

    Raises:
        UsageError: impossible options, or an integer graph.
        UnsupportedError: values with different scales meet where they cannot be unified.
        ProofError: a sum could pass 62 bits.
    """
    return _quantize.quantize(graph, options)


@checked
def carry(
    graph: Graph, mode: Carry, images: np.ndarray | None = None, *, per_channel: bool = False, average: int = 1
) -> Graph:
    """How neurons whose time axis the model merged with the batch carry their membrane (docs/carry-over.md).

    Args:
        graph: float or integer; the widths of an integer graph are proven again.
        mode: ``own`` each image its own; ``official`` images one after the other, as the published code runs;
            ``stored`` every step starts from the leftover of a chain of calibration images.
        images: calibration images for ``stored``: they run as one batch.
        per_channel: those leftovers averaged over all positions of a channel.
        average: images of the batch, the last ones, whose leftovers are averaged; 1: the last one's alone.

    Raises:
        UsageError: no such neuron, another mode, missing calibration images, or fewer than are averaged.
        UnsupportedError: ``per_channel`` of a neuron whose channels are not known.
        ProofError: a membrane without bound when images carry it over.
    """
    from qkf_deploy.calibration.carry import carry as _carry

    return _carry(graph, mode, images, per_channel=per_channel, average=average)


@checked
def with_time_steps(graph: Graph, time_steps: int) -> Graph:
    """The folded float network for another T; see :func:`qkf_deploy.passes.steps.with_time_steps`.

    Its accuracy off the T it was trained with is what it is: weights and batch norms were fitted to that one.

    Args:
        graph: float graph that shows one image at every step, folded or not.
        time_steps: T.

    Raises:
        UsageError: an integer graph, or no possible T.
        UnsupportedError: T is part of the network: event frames, membranes stored per step, a factor behind the sum
            over time that may or may not have T in it.
    """
    return _steps.with_time_steps(graph, time_steps)


@checked
def audit(graph: Graph) -> tuple[_audit.Finding, ...]:
    """Spike audit: what every synapse is driven by, and what breaks the spike-driven claim.

    Args:
        graph: float or integer.
    """
    return _audit.audit(graph)


@checked
def or_gates(graph: Graph) -> tuple[str, ...]:
    """Integer neurons that are an OR of their inputs and keep nothing: the Q-K gates of published QKFormers.

    Args:
        graph: integer graph; of a float graph the answer is empty.
    """
    return _audit.or_gates(graph)


@checked
def layers(graph: Graph) -> tuple[_layers.Layer, ...]:
    """Every node with its shapes, parameters, dense operations per step, widths and audit, in network order.

    Args:
        graph: float or integer.
    """
    return _layers.layers(graph)


@checked
def widths(graph: Graph) -> list[dict[str, Any]]:
    """Proven accumulator, membrane, threshold, weight and bias bits: one row per node.

    Args:
        graph: integer graph.

    Returns:
        Rows with the keys :data:`qkf_deploy.runs.widths.WIDTH_KEYS`, in network order.

    Raises:
        UsageError: a float graph.
    """
    from qkf_deploy.runs.widths import width_rows

    need_integers(graph, "a float network has no proven widths")
    return width_rows(graph)
