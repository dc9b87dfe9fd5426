"""Pixel normalization folded into the first synapses, exact at padded borders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Node, Preprocessing, freeze
from qkf_deploy.ops import Conv, Input, Linear
from qkf_deploy.passes.compose import affine_params, per_channel


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
    if not isinstance(node.op, Conv | Linear):
        raise UnsupportedError("is no synapse, normalization cannot be folded into it", where=node.name)
    view = node.inputs[0].view
    seen = per_channel(np.stack([1 / (255.0 * std), -mean / std]), graph.input.type.shape, view, node.op)
    if seen is None:
        raise UnsupportedError("mixes channels of different normalization in one weight", where=node.name)
    (type_,) = graph.input_types(node)
    return replace(node, params=freeze(affine_params(node.op, node.params, type_.shape, *seen)))
