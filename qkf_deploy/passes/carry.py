"""How neurons whose time axis the model merged with the batch carry their membrane: graph to graph.

Every official QKFormer calls the last neuron of its self-attention on ``[T * B, C, N]``, so during training and in the
published evaluation image b at step t starts from the membrane that image b - 1 left at the same step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qkf_deploy.errors import UnsupportedError, UsageError
from qkf_deploy.ir import Graph, Node, freeze
from qkf_deploy.ops import Add, BatchNorm, Conv, IntegerNeuron, Linear, Neuron, Scale, Shift
from qkf_deploy.ops.membrane import Carry
from qkf_deploy.passes.scales import synapse_axis
from qkf_deploy.passes.widths import attach

#: What changes no axis of a drive.
_ELEMENTWISE = (Add, BatchNorm, Scale, Shift)


def merged(graph: Graph) -> tuple[str, ...]:
    """The neurons whose time axis the model merged with the batch.

    Raises:
        UsageError: there are none.
    """
    found = tuple(n.name for n in graph if isinstance(n.op, Neuron | IntegerNeuron) and n.op.time_merged_with_batch)
    if not found:
        raise UsageError("no neuron of this network has its time axis merged with the batch")
    return found


def chained(graph: Graph) -> bool:
    """Whether membranes go from image to image, so that results depend on which run together."""
    return any(getattr(node.op, "carry", "own") == "official" for node in graph)


def with_carry(graph: Graph, mode: Carry, leftovers: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph with another carry for all such neurons; the widths of an integer graph are proven again.

    Args:
        graph: float or integer.
        mode: see :data:`qkf_deploy.ops.membrane.Carry`.
        leftovers: for ``stored``, of every such neuron: ``(T, *shape)``, axes of size 1 where it is the same.

    Raises:
        UsageError: no such neuron, or leftovers for another mode.
        ProofError: a membrane without bound when images carry it over.
    """
    names = merged(graph)
    if (mode == "stored") != (leftovers is not None):
        raise UsageError("carry 'stored', and only it, needs leftovers")
    nodes: dict[str, Node] = dict(graph.nodes)
    for name in names:
        op: Any = replace(graph[name].op, carry=mode)  # type: ignore[type-var]  # operators are dataclasses
        params = {k: v for k, v in graph[name].params.items() if k != "leftover"}
        if leftovers is not None:
            params["leftover"] = leftovers[name]
        nodes[name] = replace(graph[name], op=op, params=freeze(params))
    changed = replace(graph, nodes=nodes, provenance={**graph.provenance, "carry": mode}).verify()
    return changed if graph.arithmetic == "float" else attach(changed)


def channel_means(graph: Graph, name: str, leftover: np.ndarray) -> np.ndarray:
    """The leftover of a neuron averaged over everything but steps and channels, whole numbers in an integer graph.

    Args:
        graph: float or integer.
        name: of the neuron.
        leftover: ``(T, *shape)``.

    Returns:
        ``(T, *shape)`` with axes of size 1 where it was averaged.

    Raises:
        UnsupportedError: no synapse says which axis counts channels.
    """
    same = tuple(1 + axis for axis in _axes_without_channels(graph, name))
    return membranes(graph, leftover.mean(axis=same, keepdims=True))


def membranes(graph: Graph, mean: np.ndarray) -> np.ndarray:
    """Averages of membranes as they can be stored: whole numbers in an integer graph, halves to even."""
    return np.rint(mean).astype(np.int64) if graph.arithmetic == "integer" else mean


def _axes_without_channels(graph: Graph, name: str) -> list[int]:
    """Axes of a neuron's drive along which the channel does not change: channels are numbered and followed."""
    operand = graph[name].inputs[0]
    views = [operand.view]
    while isinstance(graph[operand.node].op, _ELEMENTWISE):
        operand = graph[operand.node].inputs[0]
        views.append(operand.view)
    synapse = graph[operand.node]
    if not isinstance(synapse.op, Conv | Linear):
        raise UnsupportedError(
            "no synapse in front of it says which axis counts its channels",
            where=name,
            hint="store the leftovers in full",
        )
    shape, axis = synapse.type.shape, synapse_axis(synapse)
    numbers = np.broadcast_to(np.arange(shape[axis]).reshape(-1, *[1] * (len(shape) - 1 - axis)), shape)
    for view in reversed(views):
        numbers = numbers if view is None else view.apply(numbers, lead=0)
    return [a for a in range(numbers.ndim) if (numbers == numbers.take([0], axis=a)).all()]
