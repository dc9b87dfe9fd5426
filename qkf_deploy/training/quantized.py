"""A network in integers that can be trained: its forward pass computes what every integer engine computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import Conv, IntegerNeuron, Linear, Neuron
from qkf_deploy.options import QuantizeOptions
from qkf_deploy.passes.clipping import clipped_scales, with_scales
from qkf_deploy.passes.fold import fold
from qkf_deploy.passes.learned import own_neurons, pixels_of, with_learned
from qkf_deploy.passes.neurons import default_fraction_bits
from qkf_deploy.passes.quantize import prepare, quantize
from qkf_deploy.passes.scales import effective_weight, synapse_axis
from qkf_deploy.simulators.run import last_uses
from qkf_deploy.training.operators import STEPS, conv, read
from qkf_deploy.training.spiking import Membrane, fire
from qkf_deploy.training.synapses import Start, Synapse


@dataclass(frozen=True, eq=False)
class _Firing:
    """A neuron of the network.

    Attributes:
        op: of the integer graph.
        membrane: what does not change.
        theta: its threshold, where no synapse learns one for it.
        synapse: that learns it.
    """

    op: IntegerNeuron
    membrane: Membrane
    theta: Tensor
    synapse: str | None


class QuantizedNetwork(nn.Module):
    """An integer network whose weights, biases and thresholds are trained.

    Args:
        graph: float graph; folded here.
        options: bits per weight; everything else as by default.
        real: the same network before its weights were fitted to integers, if they were: a weight starts from its real
            value, as far as that rounds to its integer.

    Raises:
        UnsupportedError: neurons with several spikes per step or a lowest membrane, operators without gradients.
        QkfError: what :func:`qkf_deploy.passes.quantize.quantize` raises.
    """

    def __init__(self, graph: Graph, options: QuantizeOptions, real: Graph | None = None) -> None:
        super().__init__()
        folded = fold(graph)
        self.source = with_scales(folded, clipped_scales(folded, options))
        self.prepared = prepare(self.source, options)
        self._real = self.prepared if real is None else prepare(fold(real), options)
        self.whole = quantize(self.source, options)
        _check(self.whole)
        learners = own_neurons(self.prepared.graph)
        neurons = [n for n in self.prepared.graph if isinstance(n.op, Neuron)]
        self._firing = {n.name: self._neuron(n, learners.get(n.name)) for n in neurons}
        synapses = [n for n in self.prepared.graph if isinstance(n.op, Conv | Linear)]
        self.names = [n.name for n in synapses if n.name in self.source.nodes]
        self._index = {name: i for i, name in enumerate(self.names)}
        volts = {synapse: self._volts(self.prepared.graph[neuron]) for neuron, synapse in learners.items()}
        self._growth = max((_growth(f.op) for f in self._firing.values()), default=1.0)
        self.synapses = nn.ModuleList(self._synapse(self.prepared.graph[n], volts.get(n)) for n in self.names)
        self._scale: Tensor
        scale = torch.tensor(np.asarray(self.whole.output.params["scale"]), dtype=torch.float64)
        self.register_buffer("_scale", scale, persistent=False)
        self._last_use = last_uses(self.whole)

    def synapse(self, name: str) -> Synapse:
        """The synapse of a node."""
        found = self.synapses[self._index[name]]
        if not isinstance(found, Synapse):
            raise AssertionError(name)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of bytes ``(B, C, H, W)`` or event frames ``(B, T, C, H, W)``, both as floats."""
        values: dict[str, Tensor] = {}
        x = images.round()
        for index, node in enumerate(self.whole):
            if node.op.kind == "input":
                values[node.name] = x.transpose(0, 1) if self.whole.input_encoding == "frames" else x[None]
            else:
                values[node.name] = self._step(node, [read(values[o.node], o.view) for o in node.inputs])
            if node.name != self.whole.output.name:
                for name in self._last_use.get(index, ()):
                    del values[name]
        return (values[self.whole.output.name].sum(0) * self._scale).float()

    def _step(self, node: Node, operands: list[Tensor]) -> Tensor:
        if node.name in self._firing:
            firing, drive = self._firing[node.name], operands[0]
            theta = self._theta(node, firing).to(drive)
            return fire(drive, theta, firing.membrane.to(drive), firing.op, self.whole.time_steps).float()
        if node.name in self._index:
            return self.synapse(node.name)(operands[0])
        if isinstance(node.op, Conv):  # the identity in front of a membrane shortcut
            return conv(node.op, operands[0], torch.tensor(node.params["weight"]).to(operands[0]))
        return STEPS[node.op.kind](node, operands, self.whole.time_steps)

    def _theta(self, node: Node, firing: _Firing) -> Tensor:
        """The threshold, broadcastable to the shape of the drive that the neuron sees."""
        if firing.synapse is None:
            return firing.theta
        synapse, operand = self.whole[firing.synapse], node.inputs[0]
        shape = self.whole[operand.node].type.shape
        axis = synapse_axis(synapse)
        theta = self.synapse(synapse.name).theta().reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return theta if operand.view is None else read(theta.expand(shape)[None, None], operand.view)[0, 0]

    def _neuron(self, node: Node, learner: str | None) -> _Firing:
        found = self.whole[node.name]
        op, levels = found.op, _levels(node)
        if not isinstance(op, IntegerNeuron) or not isinstance(node.op, Neuron):
            raise AssertionError(node.name)
        if learner is not None:  # its threshold is whole, so that flooring never changes a spike
            op = replace(op, fraction_bits=default_fraction_bits(node, node.op, QuantizeOptions().decay_bits))
        decay = torch.as_tensor(np.asarray(op.multiplier(found.params)) * 2.0**-op.decay_shift)
        constants = {k: torch.tensor(v) for k, v in found.params.items() if k in ("initial", "leftover")}
        membrane = Membrane(decay, 2.0**op.fraction_bits, op.soft_reset, float(levels.max()), **constants)
        return _Firing(op, membrane, torch.tensor(found.params["theta"]), learner)

    def _volts(self, node: Node) -> float:
        op = node.op
        if not isinstance(op, Neuron):
            raise AssertionError(node.name)
        gain = op.tau if op.tau is not None and op.decay_input else 1.0
        return float(_levels(node).max()) * gain * self._firing[node.name].membrane.gain

    def _synapse(self, node: Node, volts: float | None) -> Synapse:
        op = node.op
        if not isinstance(op, Conv | Linear):
            raise AssertionError(node.name)
        unit = self.prepared.unit(node)
        weight, real = (
            effective_weight(p.graph, p.graph[node.name], p.scale)
            / unit.reshape(-1, *[1] * (node.params["weight"].ndim - 1))
            for p in (self.prepared, self._real)
        )
        bias = self.source[node.name].params.get("bias")
        if bias is not None and bias.ndim > 1:
            raise UnsupportedError("has a bias per border case, which is not trained", where=node.name)
        pixels = pixels_of(self.source, self.source[node.name])
        return Synapse(
            Start(
                op,
                self.prepared.bits[node.name],
                weight,
                real,
                None if bias is None else bias / unit,
                unit,
                volts,
                None if pixels is None else pixels[1] / pixels[0],
                float(max(map(abs, self.whole.widths[self.whole[node.name].inputs[0].node].value))),
                self._growth,
            )
        )

    def graph(self) -> Graph:
        """The float graph with weights on their grids and the scales they keep; it quantizes to this network."""
        return with_learned(self.source, {name: self.synapse(name).learned() for name in self.names})


def _levels(node: Node) -> np.ndarray:
    op = node.op
    if not isinstance(op, Neuron):
        raise AssertionError(node.name)
    levels = op.levels(node.params)
    return np.asarray(levels.v_threshold - levels.base)


def _growth(op: IntegerNeuron) -> float:
    """How much larger than its drive the numbers of a neuron can get, roughly."""
    multiplied = 1.0 if op.decay_multiplier in (0, 1) else float(op.decay_multiplier)
    return 4 * 2.0**op.fraction_bits * multiplied


def _check(graph: Graph) -> None:
    """Raises UnsupportedError for what has no gradient here, all of it."""
    wrong = [n.name for n in graph if not _trainable(n)]
    if wrong:
        raise UnsupportedError(
            f"cannot be trained in integers: {', '.join(wrong)}", hint="neurons with one spike per step can"
        )


def _trainable(node: Node) -> bool:
    op = node.op
    if isinstance(op, IntegerNeuron):
        return not (op.graded or op.strict or op.reset_delay or "lowest" in node.params)
    return op.kind in STEPS or op.kind in ("input", "conv", "linear")
