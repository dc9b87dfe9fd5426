"""Batch norms into synapses, scales into the synapse that follows; all in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir import Graph, GraphBuilder, Node, Operand, Params, View, compose, freeze
from qkf_deploy.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Linear,
    Mask,
    MatMul,
    MaxPool,
    Neuron,
    Readout,
    Scale,
    Sum,
    SumPool,
)
from qkf_deploy.passes.branches import split_norms
from qkf_deploy.passes.compact import viewed
from qkf_deploy.passes.merge import merge
from qkf_deploy.passes.neurons import smaller_by
from qkf_deploy.passes.scales import synapse_axis

#: Operators that commute with a positive factor.
_PASS_ON = (Sum, Readout, SumPool, MaxPool, MatMul, Mask, Add, Concat)
#: Operators whose operands must have the same factor.
_ALIKE = (Add, Concat)
#: Divisors of pools, means and heads are products of sizes; a denominator up to this is taken as one.
_LARGEST_DENOMINATOR = 10**6
_LEFT = "this batch norm follows no synapse, it became a depthwise 1x1 convolution"


def fold(graph: Graph, *, borders: bool = True) -> Graph:
    """A float graph without batch norms, without scales that a synapse can absorb, and without chains of synapses.

    A batch norm behind a convolution or linear layer is folded into it (Ioffe & Szegedy 2015, inference form):
    w' = w γ/√(σ²+ε), b' = (b - μ) γ/√(σ²+ε) + β; also through a pool that it commutes with. One that only synapses read
    is folded into them; of one that is a gain without a shift, what neurons read goes into their thresholds. What
    remains becomes a depthwise 1×1 convolution, with a notice. Synapses without a neuron between them are merged where
    that costs nothing (:mod:`qkf_deploy.passes.merge`).

    Scales are multiplied into the weights that read them; a positive scale of spikes or counts moves past sums, pools
    and products until a synapse takes it, so that what is read stays a count. A scale that ends in front of a neuron
    stays. :attr:`Graph.factors` keeps what was moved.

    Args:
        graph: float graph.
        borders: False leaves norms and chains whose merged bias would depend on the border.

    Raises:
        GraphError: the graph is an integer graph.
    """
    if graph.arithmetic != "float":
        raise GraphError("an integer graph is folded already", hint="fold the float graph")
    rewriter = _Rewriter(split_norms(graph))
    folded = merge(rewriter.run(), borders=borders)
    left = [f"{name}: {_LEFT}" for name in rewriter.depthwise if name in folded.nodes]
    provenance = {**graph.provenance, "fold": "float64"}
    return replace(folded, notices=(*folded.notices, *left), provenance=provenance).verify()


class _Rewriter:
    """Rebuilds the graph node by node; ``alias`` says what now stands for a removed node.

    ``factor`` holds what a node's value in the given graph is, in units of the value that now stands for it.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.consumers = graph.consumers()
        self.builder = GraphBuilder()
        self.alias: dict[str, Operand] = {}
        self.factor: dict[str, Fraction] = {}
        #: Gains per channel that neurons take, broadcastable to what stands for the dropped node.
        self.gains: dict[str, np.ndarray] = {}
        self.factors: dict[str, tuple[Fraction, ...]] = {}
        self.depthwise: list[str] = []

    def run(self) -> Graph:
        for node in self.graph:
            if isinstance(node.op, Scale) and self._movable(node, node.op):
                self.alias[node.name] = self._follow(node.inputs[0])
                self.factor[node.name] = as_fraction(node.op.factor) * self._pending(node)[0]
            elif isinstance(node.op, BatchNorm):
                self._batch_norm(node, node.op, self._follow(node.inputs[0]))
            else:
                self._keep(node)
        nodes = dict(self.builder.nodes)
        return replace(self.graph, nodes=nodes, factors=self.factors)

    def _follow(self, operand: Operand) -> Operand:
        target = self.alias.get(operand.node)
        return operand if target is None else Operand(target.node, compose(target.view, operand.view))

    def _movable(self, node: Node, op: Scale) -> bool:
        """True for a positive scale of events, and for one that only synapses read."""
        base = self.builder.nodes[self._follow(node.inputs[0]).node]
        return (base.type.is_events and op.factor > 0) or self._absorbable(node)

    def _absorbable(self, node: Node) -> bool:
        """True if everything that reads the scale is a synapse, directly or through another such scale or a sum."""
        return all(
            isinstance(user.op, Conv | Linear | BatchNorm)
            or (user.op.kind in ("scale", "sum", "readout", "sum_pool") and self._absorbable(user))
            for user in self.consumers[node.name]
        )

    def _pending(self, node: Node) -> tuple[Fraction, ...]:
        """Factor of each operand that this node must take, pass on, or have put in front of it."""
        return tuple(self.factor.get(o.node, Fraction(1)) for o in node.inputs)

    def _keep(self, node: Node) -> None:
        pending = self._pending(node)
        inputs = tuple(self._follow(o) for o in node.inputs)
        params = dict(node.params)
        if isinstance(node.op, Neuron) and node.inputs[0].node in self.gains:
            self._neuron(node, node.op, inputs)
            return
        if isinstance(node.op, Conv | Linear):
            if pending[0] != 1:
                params["weight"] = params["weight"].astype(np.float64) * float(pending[0])
        elif isinstance(node.op, _PASS_ON) and (len(set(pending)) == 1 or not isinstance(node.op, _ALIKE)):
            passed = pending[0] if isinstance(node.op, _ALIKE) else math.prod(pending)
            if passed != 1:
                self.factor[node.name] = passed
        else:
            inputs = tuple(self._scaled(o) for o in node.inputs)
            pending = (Fraction(1),) * len(inputs)
        self._remember(node, pending)
        self.builder.add(node.name, node.op, inputs, params, node.source)

    def _remember(self, node: Node, pending: tuple[Fraction, ...]) -> None:
        factors = tuple(a * b for a, b in zip(self.graph.input_factors(node), pending, strict=True))
        if any(f != 1 for f in factors):
            self.factors[node.name] = factors

    def _scaled(self, operand: Operand) -> Operand:
        """The operand with its pending factor as a scale in front of the reader."""
        factor = self.factor.get(operand.node, Fraction(1))
        if factor == 1:
            return self._follow(operand)
        source = self.graph[operand.node]
        name = source.name if isinstance(source.op, Scale) else f"{source.name}.scale"
        if name not in self.builder.nodes:
            self.builder.add(name, Scale(float(factor)), (self._follow(Operand(source.name)),), {}, source.source)
        return Operand(name, operand.view)

    def _batch_norm(self, node: Node, op: BatchNorm, operand: Operand) -> None:
        scale, shift = op.affine(node.params)
        pending = self._pending(node)
        scale = scale * float(pending[0])
        found = self._synapse_behind(node, operand, scale)
        channels = None if found is None else _channels(operand.view, found[0])
        if (found is None or channels is None) and self._into_neurons(node, scale, shift):
            self.gains[node.name] = scale.reshape(-1, *[1] * (len(node.type.shape) - 1))
            self.alias[node.name] = operand
            return
        if found is None or channels is None:
            self._remember(node, pending)
            self._as_convolution(node, operand, scale, shift)
            return
        synapse, terms = found
        order = np.argsort(channels)  # the synapse's channels in the order of the batch norm's
        params = _scaled_synapse(synapse, scale[order], shift[order] / terms)
        self.builder.nodes[synapse.name] = replace(synapse, params=params)
        self.alias[node.name] = operand

    def _into_neurons(self, node: Node, scale: np.ndarray, shift: np.ndarray) -> bool:
        """True for a positive gain per channel that only neurons with a reset to 0 or by subtraction read."""
        neurons = [user.op for user in self.consumers[node.name]]
        ready = all(isinstance(op, Neuron) and not op.v_reset and op.carry == "own" for op in neurons)
        return ready and bool((scale > 0).all()) and not shift.any()

    def _neuron(self, node: Node, op: Neuron, inputs: tuple[Operand, ...]) -> None:
        """A neuron whose drive is smaller by a gain that was dropped: so are its thresholds."""
        operand = node.inputs[0]
        gain = self.gains[operand.node]
        if operand.view is not None:
            gain = viewed(gain, self.graph[operand.node].type.shape, operand.view)
        op, params = smaller_by(op, node.params, gain)
        self.builder.add(node.name, op, inputs, params, node.source)

    def _synapse_behind(self, node: Node, operand: Operand, scale: np.ndarray) -> tuple[Node, int] | None:
        """The synapse that a batch norm can go into, and how many of its outputs add up to what the norm sees.

        A norm commutes with a sum pool without padding, and with a max pool if no gain is negative.
        """
        found, terms = self._source(node), 1
        if found is None:
            return None
        plain = operand.view is None and found.inputs and found.inputs[0].view is None
        if plain and isinstance(found.op, SumPool) and not any(found.op.padding):
            found, terms = self._source(found), math.prod(found.op.kernel)
        elif plain and isinstance(found.op, MaxPool) and bool((scale >= 0).all()):
            found = self._source(found)
        return (found, terms) if found and isinstance(found.op, Conv | Linear) else None

    def _source(self, node: Node) -> Node | None:
        """What a node reads as it is now, dropped nodes left out; ``None`` if anything else reads it too."""
        source = self.graph[node.inputs[0].node]
        while len(self.consumers[source.name]) == 1 and source.name in self.alias:
            source = self.graph[source.inputs[0].node]
        return self.builder.nodes[source.name] if len(self.consumers[source.name]) == 1 else None

    def _as_convolution(self, node: Node, operand: Operand, scale: np.ndarray, shift: np.ndarray) -> None:
        rank = len(node.type.shape) - 1
        if rank not in (1, 2):
            raise GraphError("this batch norm follows no synapse and cannot be folded", where=node.name)
        ones = (1,) * rank
        op = Conv(stride=ones, padding=(0,) * rank, dilation=ones, groups=len(scale))
        params = {"weight": scale.reshape(-1, 1, *ones), "bias": shift}
        self.builder.add(node.name, op, (operand,), params, node.source)
        self.depthwise.append(node.name)


def as_fraction(factor: float) -> Fraction:
    """The fraction with a small denominator that rounds to this float, else the float exactly."""
    simple = Fraction(factor).limit_denominator(_LARGEST_DENOMINATOR)
    return simple if float(simple) == factor else Fraction(factor)


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
    gain, offset = (v.reshape(-1, *[1] * (bias.ndim - 1)) for v in (scale, shift))  # a bias per border case stays one
    return freeze({"weight": weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), "bias": bias * gain + offset})
