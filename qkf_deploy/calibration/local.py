"""One synapse with the neuron behind it, in integers, against what the float network's neuron does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import Conv, Linear, Neuron
from qkf_deploy.options import QuantizeOptions
from qkf_deploy.passes.neurons import Quantized, integer_neuron
from qkf_deploy.passes.scales import seen_scale, synapse_axis
from qkf_deploy.simulators.torch.neurons import FloatNeuron, WholeNeuron
from qkf_deploy.simulators.torch.values import Value
from qkf_deploy.training.operators import STEPS, conv, read

#: Spikes that are wrong on balance count as much as spikes that are wrong: a neuron that fires too often or too rarely
#: misleads whatever adds up its spikes.
_BIAS = 1.0


@dataclass(frozen=True, eq=False)
class Place:
    """A synapse and its neuron.

    Attributes:
        graph: float graph that reads integers.
        synapse: node.
        op: of the synapse.
        pools: nodes between the two, in order.
        neuron: node.
        options: of quantization, for the neuron.
    """

    graph: Graph
    synapse: Node
    op: Conv | Linear
    pools: Sequence[Node]
    neuron: Node
    options: QuantizeOptions

    def channels(self) -> Tensor:
        """The synapse's output channel of every element that the neuron sees, flat."""
        shape = self.graph[self.neuron.inputs[0].node].type.shape
        axis = synapse_axis(self.synapse)
        index = torch.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return read(index.expand(shape)[None, None], self.neuron.inputs[0].view).reshape(-1)

    def seen(self, drive: Tensor) -> Tensor:
        """What the neuron sees of a drive ``(T or 1, B, *shape)``."""
        for node in self.pools:
            drive = STEPS[node.op.kind](node, [drive], self.graph.time_steps)
        return read(drive, self.neuron.inputs[0].view)

    def fire(self, drive: Tensor, scale: np.ndarray) -> Tensor:
        """Spikes for a drive of whole numbers with this scale per channel."""
        return fire_whole(self.neuron_of(scale), self.seen(drive), self.graph.time_steps)

    def fire_real(self, drive: Tensor) -> Tensor:
        """Spikes for a real drive."""
        return fire_real(self.neuron, self.seen(drive), self.graph.time_steps)

    def neuron_of(self, scale: np.ndarray) -> Quantized:
        """The integer neuron behind a synapse with this scale per channel."""
        op, axis = self.neuron.op, synapse_axis(self.synapse)
        if not isinstance(op, Neuron):
            raise AssertionError(self.neuron.name)
        source = self.neuron.inputs[0].node
        shape = self.graph[source].type.shape
        shaped = scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        seen = seen_scale(self.graph, self.neuron.inputs[0], {source: shaped})
        return integer_neuron(self.neuron, op, seen, self.options.fraction_bits, self.options.decay_bits)


@dataclass(frozen=True, eq=False)
class Judge:
    """Counts what a synapse in integers makes its neuron do wrong, per channel.

    Attributes:
        place: the synapse.
        target: spikes of the float network ``(T, B, *shape)``.
        index: channel of every element, :meth:`Place.channels`.
    """

    place: Place
    target: Tensor
    index: Tensor

    def errors(self, drive: Tensor, scale: np.ndarray) -> np.ndarray:
        """Wrong spikes and the balance of wrong spikes of each channel, ``(O,)``."""
        off = self.place.fire(drive, scale) - self.target
        wrong, balance = self._per_channel(off.abs()), self._per_channel(off)
        return wrong + _BIAS * np.abs(balance)

    def _per_channel(self, x: Tensor) -> np.ndarray:
        sums = x.sum((0, 1), dtype=torch.float64).reshape(-1)
        out = torch.zeros(len(self.place.synapse.params["weight"]), dtype=torch.float64)
        return out.index_add_(0, self.index, sums).numpy()


def product(op: Conv | Linear, x: Tensor, weight: np.ndarray) -> Tensor:
    """Weighted sums, without bias, in the numbers of ``x``."""
    w = torch.tensor(weight, dtype=x.dtype)
    return conv(op, x, w) if isinstance(op, Conv) else x @ w.T


def fire_whole(made: Quantized, drive: Tensor, steps: int) -> Tensor:
    """Spikes of an integer neuron, in the numbers of its drive ``(T or 1, B, *shape)``."""
    most, shape = made.op.max_spikes or 1, tuple(drive.shape[2:])
    neuron = WholeNeuron(made.op, made.params, shape, drive.device, drive.dtype, most)
    return neuron.run(Value(drive, 0.0), steps, False).spikes.tensor.to(drive.dtype)


def fire_real(node: Node, drive: Tensor, steps: int) -> Tensor:
    """Spikes of a float neuron, likewise."""
    if not isinstance(node.op, Neuron):
        raise AssertionError(node.name)
    neuron = FloatNeuron(node.op, node.params, tuple(drive.shape[2:]), drive.device, drive.dtype)
    return neuron.run(Value(drive, 0.0), steps, False).spikes.tensor.to(drive.dtype)
