"""Pixel normalization folded into the first synapses, exact at padded borders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Node, Preprocessing, freeze
from qkf_deploy.ops import Conv, Input, Linear
from qkf_deploy.ops.synapse import input_channels


def fold_normalization(graph: Graph) -> Graph:
    """The float graph reading raw pixels 0..255 instead of normalized images.

    With x = (p / 255 - μ) / σ a synapse becomes w' = w / (255 σ) and b' = b - Σ w μ / σ over the taps that exist:
    padding is zero after normalization, so near a padded border fewer taps contribute and the bias has one value per
    border case (nine for a padded 3×3).

    Raises:
        UnsupportedError: something else than a synapse reads the pixels.
    """
    source = graph.input
    if not isinstance(source.op, Input):
        raise UnsupportedError("the graph has no input operator")
    readers = graph.consumers()[source.name]
    others = [n.name for n in readers if not isinstance(n.op, Conv | Linear)]
    if others:
        raise UnsupportedError(
            f"the pixels are read by {', '.join(others)}; normalization folds into convolutions and linear layers only",
            hint="quantize with --input fixed",
        )
    channels = source.op.shape[0]
    pre = graph.preprocessing or Preprocessing((0.0,) * channels, (1.0,) * channels)
    mean, std = np.array(pre.mean), np.array(pre.std)
    nodes = dict(graph.nodes)
    op = replace(source.op, format="bytes")
    nodes[source.name] = replace(source, op=op, type=op.infer((), {}))
    for node in readers:
        nodes[node.name] = _folded(graph, node, mean, std)
    out = replace(graph, nodes=nodes)
    for node in readers:  # types carry no pixel range through a synapse, so nothing downstream changes
        nodes[node.name] = replace(nodes[node.name], type=node.op.infer(out.input_types(node), nodes[node.name].params))
    return replace(graph, nodes=nodes).verify()


def _folded(graph: Graph, node: Node, mean: np.ndarray, std: np.ndarray) -> Node:
    weight: np.ndarray = node.params["weight"].astype(np.float64)
    bias: np.ndarray = node.params.get("bias", np.zeros(len(weight), np.float64)).astype(np.float64)
    if isinstance(node.op, Conv):
        index = input_channels(weight.shape, node.op.groups)
        extra = (1,) * (weight.ndim - 2)
        shift = -(weight * (mean / std)[index].reshape(*index.shape, *extra)).sum(axis=1)  # per output and tap
        (type_,) = graph.input_types(node)
        for axis in reversed(node.op.axes(type_.shape, weight)):  # sum the taps of each border case
            shift = np.moveaxis(np.tensordot(shift, axis.cases()[0].astype(np.float64), axes=([-1], [1])), -1, 1)
        shift = shift.reshape(-1) if shift[0].size == 1 else shift
        bias = shift + bias.reshape(-1, *[1] * (shift.ndim - 1))
        weight = weight / (255.0 * std[index].reshape(*index.shape, *extra))
    else:
        per_input = _per_feature(graph, node, np.stack([mean, std]))
        bias = bias - weight @ (per_input[0] / per_input[1])
        weight = weight / (255.0 * per_input[1])
    return replace(node, params=freeze({"weight": weight, "bias": bias}))


def _per_feature(graph: Graph, node: Node, values: np.ndarray) -> np.ndarray:
    """Mean and std of every input feature of a linear layer, ``(2, features)``."""
    shape = graph.input.type.shape
    full = np.broadcast_to(values.reshape(2, -1, *[1] * (len(shape) - 1)), (2, *shape))
    view = node.inputs[0].view
    seen = full if view is None else view.apply(full, lead=1)
    rows = seen.reshape(2, -1, seen.shape[-1])
    if (rows != rows[:, :1]).any():
        raise UnsupportedError("mixes channels of different normalization in one weight", where=node.name)
    return rows[:, 0]
