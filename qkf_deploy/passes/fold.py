"""Batch norms into synapses, scales into the synapse that follows; all in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir import Graph, GraphBuilder, Node, Operand, Params, View, compose, freeze
from qkf_deploy.ops import BatchNorm, Conv, Linear, Scale
from qkf_deploy.passes.scales import synapse_axis


def fold(graph: Graph) -> Graph:
    """A float graph without batch norms, and without scales where a synapse can absorb them.

    A batch norm behind a convolution or linear layer is folded into it (Ioffe & Szegedy 2015, inference form):
    w' = w γ/√(σ²+ε), b' = (b - μ) γ/√(σ²+ε) + β. One that follows anything else becomes a depthwise 1×1 convolution,
    with a notice. Scales are multiplied into the weights that read them; a scale in front of a neuron stays.

    Raises:
        GraphError: the graph is an integer graph.
    """
    if graph.arithmetic != "float":
        raise GraphError("an integer graph is folded already", hint="fold the float graph")
    folded = _Rewriter(graph).run()
    return replace(folded, provenance={**graph.provenance, "fold": "float64"}).verify()


class _Rewriter:
    """Rebuilds the graph node by node; ``alias`` says what now stands for a removed node."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.consumers = graph.consumers()
        self.builder = GraphBuilder()
        self.alias: dict[str, Operand] = {}
        self.factor: dict[str, float] = {}
        self.notices: list[str] = list(graph.notices)

    def run(self) -> Graph:
        for node in self.graph:
            inputs = tuple(self._follow(o) for o in node.inputs)
            if isinstance(node.op, BatchNorm):
                self._batch_norm(node, node.op, inputs[0])
            elif isinstance(node.op, Scale) and self._absorbable(node):
                self._drop(node, inputs[0], node.op.factor)
            else:
                self._keep(node, inputs)
        return replace(self.graph, nodes=dict(self.builder.nodes), notices=tuple(self.notices))

    def _follow(self, operand: Operand) -> Operand:
        target = self.alias.get(operand.node)
        return operand if target is None else Operand(target.node, compose(target.view, operand.view))

    def _absorbable(self, node: Node) -> bool:
        """True if everything that reads the scale is a synapse, directly or through another such scale or a sum."""
        return all(
            isinstance(user.op, Conv | Linear)
            or (user.op.kind in ("scale", "sum", "readout", "sum_pool") and self._absorbable(user))
            for user in self.consumers[node.name]
        )

    def _drop(self, node: Node, operand: Operand, factor: float) -> None:
        """Remove a scale and remember what its readers must multiply in."""
        self.alias[node.name] = operand
        self.factor[node.name] = factor * self._pending(node)

    def _pending(self, node: Node) -> float:
        """Factors of dropped scales that arrive through this node's first operand."""
        return self.factor.get(node.inputs[0].node, 1.0) if node.inputs else 1.0

    def _keep(self, node: Node, inputs: tuple[Operand, ...]) -> None:
        params = dict(node.params)
        factor = self._pending(node)
        if factor != 1.0:
            if isinstance(node.op, Conv | Linear):
                params["weight"] = params["weight"].astype(np.float64) * factor
            else:  # a sum or readout passes it on
                self.factor[node.name] = factor
        self.builder.add(node.name, node.op, inputs, params, node.source)

    def _batch_norm(self, node: Node, op: BatchNorm, operand: Operand) -> None:
        synapse = self.builder.nodes[operand.node]
        scale, shift = op.affine(node.params)
        only_reader = len(self.consumers[node.inputs[0].node]) == 1
        channels = _channels(operand.view, synapse) if only_reader and isinstance(synapse.op, Conv | Linear) else None
        if channels is None:
            self._as_convolution(node, operand, scale, shift)
            return
        order = np.argsort(channels)  # the synapse's channels in the order of the batch norm's
        params = _scaled_synapse(synapse, scale[order], shift[order])
        self.builder.nodes[synapse.name] = replace(synapse, params=params)
        self.alias[node.name] = operand

    def _as_convolution(self, node: Node, operand: Operand, scale: np.ndarray, shift: np.ndarray) -> None:
        rank = len(node.type.shape) - 1
        if rank not in (1, 2):
            raise GraphError("this batch norm follows no synapse and cannot be folded", where=node.name)
        ones = (1,) * rank
        op = Conv(stride=ones, padding=(0,) * rank, dilation=ones, groups=len(scale))
        params = {"weight": scale.reshape(-1, 1, *ones), "bias": shift}
        self.builder.add(node.name, op, (operand,), params, node.source)
        self.notices.append(f"{node.name}: this batch norm follows no synapse, it became a depthwise 1x1 convolution")


def _channels(view: View | None, synapse: Node) -> np.ndarray | None:
    """Which output channel of a synapse each channel of a batch norm behind ``view`` is.

    Returns:
        A permutation of the synapse's channels, ``None`` where the batch norm's channels are not just those.
    """
    shape = synapse.type.shape
    axis = synapse_axis(synapse)
    count = shape[axis]
    index = np.broadcast_to(np.arange(count).reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)
    seen = index if view is None else view.apply(index, lead=0)
    rows = seen.reshape(seen.shape[0], -1)
    keeps = (view is None or view.keeps_all) and seen.shape[0] == count
    return rows[:, 0] if keeps and (rows == rows[:, :1]).all() else None


def _scaled_synapse(synapse: Node, scale: np.ndarray, shift: np.ndarray) -> Params:
    weight = synapse.params["weight"].astype(np.float64)
    bias = synapse.params.get("bias", np.zeros(len(scale))).astype(np.float64)
    return freeze({"weight": weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), "bias": bias * scale + shift})
