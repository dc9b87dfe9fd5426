"""Integers that training or calibration chose, put into the float graph so that quantization finds them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qkf_deploy.ir import Graph, Node, Preprocessing, freeze
from qkf_deploy.ops import Conv, Linear, MaxPool, Neuron, SumPool
from qkf_deploy.ops.synapse import input_channels
from qkf_deploy.passes.pixels import seen_normalization


@dataclass(frozen=True, eq=False)
class Learned:
    """A synapse in integers, float64.

    Attributes:
        weight: integers ``(O, ...)``.
        bias: in units of the drive, ``(O,)``; whole unless what a border takes away is still to be added.
        scale: real value of one unit, ``(O,)``.
    """

    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray


def pixels_of(graph: Graph, node: Node) -> np.ndarray | None:
    """Factor and offset of the bytes that a synapse reads, ``(2, C)``; ``None`` if it reads something else.

    Args:
        graph: folded float graph.
        node: one of its synapses.
    """
    if node.inputs[0].node != graph.input.name or graph.input_encoding == "frames":
        return None
    channels = graph.input.type.shape[0]
    pre = graph.preprocessing or Preprocessing((0.0,) * channels, (1.0,) * channels)
    if not isinstance(node.op, Conv | Linear):
        raise AssertionError(node.name)
    return seen_normalization(graph, node, node.op, np.array(pre.mean), np.array(pre.std))


def with_learned(graph: Graph, learned: Mapping[str, Learned]) -> Graph:
    """The folded float graph with these weights, biases and scales: it quantizes to these integers.

    Args:
        graph: folded float graph.
        learned: by the names of its synapses.
    """
    nodes = dict(graph.nodes)
    for name, found in learned.items():
        node = nodes[name]
        weight = found.weight * found.scale.reshape(-1, *[1] * (found.weight.ndim - 1))
        pixels = pixels_of(graph, node)
        if pixels is not None:
            index = input_channels(weight.shape, node.op.groups if isinstance(node.op, Conv) else 1)
            weight = weight / pixels[0][index].reshape(*index.shape, *[1] * (weight.ndim - 2))
        params = {**node.params, "weight": weight, "scale": found.scale}
        if "bias" in params:
            params["bias"] = found.bias * found.scale
        nodes[name] = replace(node, params=freeze(params))
    return replace(graph, nodes=nodes).verify()


def own_neurons(graph: Graph) -> Mapping[str, str]:
    """Neurons whose drive is one synapse's alone, through pools, and nobody else's: by name, that synapse.

    Such a neuron has one threshold for all positions, so that its integer threshold and the synapse's scale are two
    ways to say the same.

    Args:
        graph: folded float graph.
    """
    consumers = graph.consumers()
    found: dict[str, str] = {}
    for node in graph:
        if not isinstance(node.op, Neuron) or not _uniform(node, node.op):
            continue
        source = graph[node.inputs[0].node]
        while isinstance(source.op, MaxPool | SumPool) and len(consumers[source.name]) == 1:
            if source.inputs[0].view is not None:
                break
            source = graph[source.inputs[0].node]
        if isinstance(source.op, Conv | Linear) and len(consumers[source.name]) == 1:
            found[node.name] = source.name
    return found


def _uniform(node: Node, op: Neuron) -> bool:
    levels = op.levels(node.params)
    single = levels.v_threshold.size == levels.base.size == 1 and (levels.tau is None or levels.tau.size == 1)
    return (
        single
        and bool((levels.v_threshold > levels.base).all())
        and not (op.strict or op.signed or "initial" in node.params)
    )
