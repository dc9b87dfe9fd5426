"""Trained integer weights back into the tensors of the model they came from: folding in the other direction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import BatchNorm, Conv, Linear, MaxPool, SumPool


def unfolded(tensors: Mapping[str, Tensor], traced: Graph, trained: Graph) -> dict[str, Tensor]:
    """The tensors of a model with other weights: batch norms do nothing any more but add the bias.

    Args:
        tensors: the model's own (``state_dict``).
        traced: the model's graph, not folded.
        trained: the folded graph with the weights to take over.

    Raises:
        UnsupportedError: a synapse whose weights are no tensor of the model's, or whose bias has no place.
    """
    out = dict(tensors)
    norms = _norms(traced)
    for node in trained:
        if isinstance(node.op, Conv | Linear) and "scale" in node.params:
            _place(out, node, float(trained.input_factors(node)[0]), norms.get(node.name))
    return out


def _norms(graph: Graph) -> dict[str, Node]:
    """The batch norm behind each synapse, through pools."""
    found: dict[str, Node] = {}
    for node in graph:
        if isinstance(node.op, BatchNorm):
            source = graph[node.inputs[0].node]
            while isinstance(source.op, MaxPool | SumPool):
                source = graph[source.inputs[0].node]
            if isinstance(source.op, Conv | Linear):
                found[source.name] = node
    return found


def _place(tensors: dict[str, Tensor], node: Node, factor: float, norm: Node | None) -> None:
    weight = node.params["weight"] / factor
    _set(tensors, f"{node.name}.weight", weight, node)
    bias = node.params.get("bias", np.zeros(len(weight)))
    where = f"{node.name}.bias"
    if norm is None or not isinstance(norm.op, BatchNorm):
        if where in tensors or bias.any():
            _set(tensors, where, bias, node)
        return
    if where in tensors:
        _set(tensors, where, np.zeros_like(bias), node)
    _set(tensors, f"{norm.name}.running_mean", np.zeros_like(bias), node)
    _set(tensors, f"{norm.name}.running_var", np.full_like(bias, 1 - norm.op.eps), node)
    if f"{norm.name}.weight" in tensors:
        _set(tensors, f"{norm.name}.weight", np.ones_like(bias), node)
    if f"{norm.name}.bias" in tensors or bias.any():
        _set(tensors, f"{norm.name}.bias", bias, node)


def _set(tensors: dict[str, Tensor], name: str, value: np.ndarray, node: Node) -> None:
    there = tensors.get(name)
    if there is None or there.numel() != value.size:
        raise UnsupportedError(
            f"its trained weights have no place in the model: no tensor {name} of {value.size} numbers",
            where=node.name,
            hint="write the graph instead: -o net.qkf",
        )
    tensors[name] = torch.tensor(value).reshape(there.shape).to(there.dtype)
