"""Do two networks compute the same?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Assumption, Graph
from qkf_deploy.keywords import takes
from qkf_deploy.options import Carry, CompareOptions, VerifyOptions
from qkf_deploy.passes.carry import with_carry
from qkf_deploy.pipeline.networks import fold, resolve_source, trace_source
from qkf_deploy.pipeline.running import as_batch

if TYPE_CHECKING:
    import torch

    from qkf_deploy.evaluation.agreement import Agreement


@takes(VerifyOptions)
def verify(
    graph: Graph, images: np.ndarray, against: str | Path | torch.nn.Module, options: VerifyOptions
) -> tuple[Agreement, Agreement]:
    """Compare layer by layer: torch model (float64, batch size 1), float graph, integer graph.

    Where membranes go from image to image (carry ``official``) the model runs on whole batches of ``batch`` images.

    Args:
        graph: the integer (or float) graph in question.
        images: as in :func:`simulate`.
        against: the model it came from, as :func:`trace` takes it.

    Returns:
        (float graph against torch, ``graph`` against float graph). What was assumed of both is in ``shared``: where
        that is wrong, the comparison cannot show it.

    Raises:
        InputError: images or a model that do not fit the graph.
        UsageError: a graph that starts from stored membranes.
    """
    from qkf_deploy.evaluation.agreement import compare_chain
    from qkf_deploy.models.lazy import import_torch_module

    runner = import_torch_module("qkf_deploy.converters.torch.run")
    resolved = resolve_source(against, replace(options, time_steps=options.time_steps or graph.time_steps))
    # The same object for both: a factory without a checkpoint has random weights.
    floating = fold(trace_source(resolved))
    _check_same_input(graph, floating)
    mode = _carry_of(graph)
    floating = floating if mode == "own" else with_carry(floating, mode)
    oracle = runner.torch_oracle(resolved, floating, together=mode == "official")
    batch = as_batch(graph, images)
    torch_float, float_graph = compare_chain(oracle, (floating, graph), batch, options.batch, options.progress)
    shared = _shared(graph, floating, options)
    return replace(torch_float, shared=shared), replace(float_graph, shared=shared)


def _carry_of(graph: Graph) -> Carry:
    """What the network does with membranes that the model carries over its batch.

    Raises:
        UsageError: it starts from stored ones, which the model does not have.
    """
    modes = {getattr(node.op, "carry", "own") for node in graph}
    if "stored" in modes:
        raise UsageError(
            "the network starts from stored membranes, and the model has none",
            hint="verify the network that was calibrated, before that",
        )
    return "official" if "official" in modes else "own"


def _shared(graph: Graph, model: Graph, options: VerifyOptions) -> tuple[Assumption, ...]:
    """What was assumed of the network and is assumed of the model again; T is taken from the network."""
    taken = ("T",) if options.time_steps is None else ()
    return tuple(a for a in graph.assumptions if a in model.assumptions or a.name in taken)


def _check_same_input(graph: Graph, other: Graph) -> None:
    if graph.input.type.shape != other.input.type.shape or graph.time_steps != other.time_steps:
        raise InputError(
            f"the network takes {graph.input.type.shape} at T={graph.time_steps}, "
            f"the model {other.input.type.shape} at T={other.time_steps}",
            hint="trace options such as --image-size and --time-steps must be the same",
        )
    for node in graph:
        there = other.nodes.get(node.name)
        if there is not None and node.op.kind in _KEEPS_SHAPE and node.type.shape != there.type.shape:
            raise InputError(
                f"{node.type.shape} in the network and {there.type.shape} in the model",
                where=node.name,
                hint="trace options such as --heads must be the same",
            )


#: Operators whose shape no pass changes.
_KEEPS_SHAPE = ("neuron", "integer_neuron", "matmul", "mask", "sum")


@takes(CompareOptions)
def compare(graph: Graph, reference: Graph, images: np.ndarray, options: CompareOptions) -> Agreement:
    """Spike agreement of a graph with another graph of the same network, forced and free.

    Args:
        graph: float or integer.
        reference: a graph with the same neurons.
        images: as in :func:`simulate`.

    Raises:
        GraphError: the reference lacks one of the graph's neurons.
        InputError: images that do not fit.
    """
    from qkf_deploy.evaluation.agreement import compare_chain, graph_oracle

    oracle, batch = graph_oracle(reference), as_batch(graph, images)
    return compare_chain(oracle, (graph,), batch, options.batch, options.progress)[0]
