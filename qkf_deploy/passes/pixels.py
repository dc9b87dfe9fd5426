"""Pixel normalization folded into the first synapses, exact at padded borders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Node, Preprocessing, freeze
from qkf_deploy.ops import Conv, Input, Linear
from qkf_deploy.ops.synapse import input_channels
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
    seen = seen_normalization(graph, node, node.op, mean, std)
    (type_,) = graph.input_types(node)
    params = dict(node.params)
    given = params.pop("scale", None)
    if given is not None:  # the bias of a border makes up for the weights as they will be
        params["weight"] = on_grid(node.op, params["weight"].astype(np.float64), seen[0], given)
    folded = affine_params(node.op, params, type_.shape, *seen)
    return replace(node, params=freeze(folded if given is None else {**folded, "scale": given}))


def seen_normalization(graph: Graph, node: Node, op: Conv | Linear, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Factor and offset of a byte, as each channel that a synapse reads has them, ``(2, C)``.

    Raises:
        UnsupportedError: one channel mixes several normalizations.
    """
    view = node.inputs[0].view
    seen = per_channel(np.stack([1 / (255.0 * std), -mean / std]), graph.input.type.shape, view, op)
    if seen is None:
        raise UnsupportedError("mixes channels of different normalization in one weight", where=node.name)
    return seen


def on_grid(op: Conv | Linear, weight: np.ndarray, gain: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Weights that are integers times their channel's scale up to float32's rounding, without it; others as they are.

    Args:
        op: of the synapse.
        weight: ``(O, ...)`` float64, of which the integers are ``gain`` times as many scales.
        gain: per channel that the synapse reads.
        scale: per output channel.
    """
    index = input_channels(weight.shape, op.groups if isinstance(op, Conv) else 1)
    unit = (scale[:, None] / gain[index]).reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
    integers = np.rint(weight / unit)
    near = (np.abs(weight / unit - integers) <= 2.0**-20 * np.abs(integers)).all()
    return integers * unit if near else weight
