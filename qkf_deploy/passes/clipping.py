"""Scales that cut off the largest weights where that makes the sum of squared errors smaller: what few bits need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph, freeze
from qkf_deploy.ops import Conv, Linear
from qkf_deploy.options import QuantizeOptions
from qkf_deploy.passes.quantize import prepare
from qkf_deploy.passes.scales import effective_weight, joined

#: Parts of the largest weight that are tried as the end of the range.
SHARES = np.linspace(0.2, 1.0, 41)


def clipped_scale(weight: np.ndarray, limit: int) -> np.ndarray:
    """Of each channel the scale whose integers within ``limit`` miss the weights least, ``(O,)``.

    Args:
        weight: ``(O, ...)``; channels of zeros get 1.
        limit: largest integer.
    """
    rows = weight.reshape(len(weight), -1)
    largest = np.abs(rows).max(axis=1)
    largest = np.where(largest > 0, largest, limit)
    best, least = largest / limit, np.full(len(rows), np.inf)
    for share in SHARES[::-1]:
        scale = share * largest / limit
        integers = np.clip(np.rint(rows / scale[:, None]), -limit, limit)
        error = np.square(integers * scale[:, None] - rows).sum(axis=1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def clipped_scales(graph: Graph, options: QuantizeOptions) -> Mapping[str, np.ndarray]:
    """:func:`clipped_scale` of every synapse that has no scale yet and whose drive is not added to another one.

    Args:
        graph: folded float graph.
        options: bits.
    """
    prepared = prepare(graph, options)
    fixed = joined(prepared.graph)
    found: dict[str, np.ndarray] = {}
    for node in prepared.graph:
        free = isinstance(node.op, Conv | Linear) and node.name not in fixed and node.name in graph.nodes
        if free and "scale" not in node.params:
            weight = effective_weight(prepared.graph, node, prepared.scale)
            found[node.name] = clipped_scale(weight, 2 ** (prepared.bits[node.name] - 1) - 1)
    return found


def with_scales(graph: Graph, scales: Mapping[str, np.ndarray]) -> Graph:
    """The folded float graph whose synapses have these scales (:func:`qkf_deploy.ops.synapse.check_scale`).

    Raises:
        InputError: a name that is no synapse's.
        GraphError: scales that do not fit.
    """
    nodes = dict(graph.nodes)
    for name, scale in scales.items():
        if name not in nodes or not isinstance(nodes[name].op, Conv | Linear):
            raise InputError("scales for a synapse that the network does not have", where=name)
        nodes[name] = replace(nodes[name], params=freeze({**nodes[name].params, "scale": scale}))
    return replace(graph, nodes=nodes).verify()
