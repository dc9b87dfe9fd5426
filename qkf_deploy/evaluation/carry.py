"""Membrane carry-over of neurons whose time axis the model merged with the batch.

Every official QKFormer calls the last neuron of its self-attention on ``[T * B, C, N]``, so during training and in the
published evaluation image b at step t starts from the membrane that image b - 1 left at the same step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph, Node, freeze
from qkf_deploy.ops import Neuron
from qkf_deploy.ops.membrane import Carry
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record


def carry(graph: Graph, mode: Carry, images: np.ndarray | None = None) -> Graph:
    """The float graph with another carry for all such neurons.

    Args:
        graph: float graph.
        mode: ``own``, ``official`` or ``stored``.
        images: calibration images for ``stored``: they run as one batch, and the last one's leftover at each step is
            what every image will start that step from.

    Raises:
        UsageError: no such neuron, an integer graph, or missing calibration images.
    """
    if graph.arithmetic != "float":
        raise UsageError("carry is chosen on the float graph", hint="choose it before quantizing")
    merged = [n for n in graph if isinstance(n.op, Neuron) and n.op.time_merged_with_batch]
    if not merged:
        raise UsageError("no neuron of this network has its time axis merged with the batch")
    if (mode == "stored") != (images is not None):
        raise UsageError("carry 'stored', and only it, needs calibration images")
    if mode != "stored" or images is None:
        return _with(graph, {n.name: (mode, None) for n in merged})
    chained = _with(graph, {n.name: ("official", None) for n in merged})
    return _with(graph, {name: ("stored", left) for name, left in _leftovers(chained, images).items()})


def _with(graph: Graph, chosen: dict[str, tuple[Carry, np.ndarray | None]]) -> Graph:
    nodes: dict[str, Node] = dict(graph.nodes)
    for name, (mode, leftover) in chosen.items():
        op: Any = replace(graph[name].op, carry=mode)  # type: ignore[type-var]  # operators are dataclasses
        params = {k: v for k, v in graph[name].params.items() if k != "leftover"}
        if leftover is not None:
            params["leftover"] = leftover
        nodes[name] = replace(graph[name], op=op, params=freeze(params))
    return replace(graph, nodes=nodes).verify()


def _leftovers(graph: Graph, images: np.ndarray) -> dict[str, np.ndarray]:
    """State after each step of the last image of a batch, ``(T, *shape)``, for every neuron that carries over."""
    found: dict[str, np.ndarray] = {}
    names = [n.name for n in graph if isinstance(n.op, Neuron) and n.op.carry == "official"]
    drives = [graph[name].inputs[0].node for name in names]
    result = reference.run(graph, encode(graph, images)[0], Record.of(graph, drives))
    for name, drive in zip(names, drives, strict=True):
        node = graph[name]
        view = node.inputs[0].view
        value = result.values[drive] if view is None else view.apply(result.values[drive])
        op = node.op
        if isinstance(op, Neuron):
            found[name] = op.leftovers((value,), node.params, graph.time_steps)[:, -1]
    return found
