"""Post-training quantization with data: a float network and its integers side by side, synapse after synapse."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.calibration.fit_report import Fitted
from qkf_deploy.calibration.fitting import Local, fit
from qkf_deploy.calibration.local import Judge, Place, fire_real, fire_whole, product
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import Conv, Linear, Neuron, Scale
from qkf_deploy.options import QuantizeOptions
from qkf_deploy.passes.clipping import clipped_scales, with_scales
from qkf_deploy.passes.fold import fold
from qkf_deploy.passes.learned import Learned, own_neurons, pixels_of, with_learned
from qkf_deploy.passes.neurons import integer_neuron
from qkf_deploy.passes.quantize import Prepared, prepare
from qkf_deploy.passes.scales import effective_weight, seen_scale
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import last_uses
from qkf_deploy.training.operators import STEPS, read

#: Whole numbers up to this are exact in float32, with room for the membrane.
_SINGLE = 2.0**20


def calibrated(
    graph: Graph,
    images: np.ndarray,
    options: QuantizeOptions,
    methods: Collection[str],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Graph, tuple[Fitted, ...]]:
    """The float graph with integers, biases and scales that were fitted to images: it quantizes to them.

    Args:
        graph: float graph.
        images: as in :func:`qkf_deploy.simulate`.
        options: bits.
        methods: of :data:`.fitting.METHODS`.
        progress: called with (nodes done, nodes in all).

    Returns:
        The folded graph, and what was found for each synapse.

    Raises:
        QkfError: what :func:`qkf_deploy.quantize` raises.
    """
    source = fold(graph)
    # Where no neuron shows what an error costs, the weights themselves do.
    alone = set(own_neurons(prepare(source, options).graph).values())
    scales = {k: v for k, v in clipped_scales(source, options).items() if k not in alone}
    walk = _Walk(with_scales(source, scales if "scale" in methods else {}), options, methods)
    with torch.no_grad():
        walk.run(images, progress)
    return with_learned(walk.source, walk.learned), tuple(walk.fitted)


class _Walk:
    """One pass over the network; ``real`` and ``whole`` hold every value of both networks that is still read."""

    def __init__(self, source: Graph, options: QuantizeOptions, methods: Collection[str]) -> None:
        self.source, self.options, self.methods = source, options, methods
        self.prepared: Prepared = prepare(source, options)
        self.graph = self.prepared.graph
        self.neurons = {synapse: neuron for neuron, synapse in own_neurons(self.graph).items()}
        self.real: dict[str, Tensor] = {}
        self.whole: dict[str, Tensor] = {}
        self.learned: dict[str, Learned] = {}
        self.places: dict[str, Place] = {}
        self.fitted: list[Fitted] = []

    def run(self, images: np.ndarray, progress: Callable[[int, int], None] | None) -> None:
        last = last_uses(self.graph)
        pixels = torch.from_numpy(encode(self.graph, images)[0]).float()
        for index, node in enumerate(self.graph):
            if node.op.kind == "input":
                self.real[node.name] = self.whole[node.name] = pixels
            else:
                self._node(node)
            for name in last.get(index, ()):
                del self.real[name], self.whole[name]
            if progress is not None:
                progress(index + 1, len(self.graph.nodes))

    def _node(self, node: Node) -> None:
        op = node.op
        real, whole = ([read(v[o.node], o.view) for o in node.inputs] for v in (self.real, self.whole))
        if isinstance(op, Conv | Linear):
            self.real[node.name] = self._real_drive(node, op, real[0])
            self.whole[node.name] = self._drive(node, op, whole[0], self.real[node.name])
        elif isinstance(op, Neuron):
            self._fire(node, op, real[0], whole[0])
        elif isinstance(op, Scale):
            self.real[node.name], self.whole[node.name] = real[0] * op.factor, whole[0]
        else:
            step = STEPS[op.kind]
            self.real[node.name] = step(node, real, self.graph.time_steps)
            self.whole[node.name] = step(node, whole, self.graph.time_steps)

    def _real_drive(self, node: Node, op: Conv | Linear, x: Tensor) -> Tensor:
        y, bias = product(op, x, node.params["weight"]), self._bias(node, op, tuple(x.shape[2:]))
        return y if bias is None else y + bias.to(y.dtype)

    def _fire(self, node: Node, op: Neuron, real: Tensor, whole: Tensor) -> None:
        steps = self.graph.time_steps
        self.real[node.name] = fire_real(node, real, steps)
        if node.name in self.places:
            found = self.learned[self.places[node.name].synapse.name]
            made = self.places[node.name].neuron_of(found.scale)
        else:
            scale = seen_scale(self.graph, node.inputs[0], self.prepared.scale)
            made = integer_neuron(node, op, scale, self.options.fraction_bits, self.options.decay_bits)
        self.whole[node.name] = fire_whole(made, whole, steps).float()

    def _drive(self, node: Node, op: Conv | Linear, x: Tensor, real: Tensor) -> Tensor:
        limit = 2 ** (self.prepared.bits[node.name] - 1) - 1
        weight = effective_weight(self.graph, node, self.prepared.scale)
        if limit * weight[0].size * max(1.0, float(x.abs().max())) > _SINGLE:
            x = x.double()
        if node.name in self.neurons and node.name in self.source.nodes:
            return self._fitted(node, op, x, real, weight, limit)
        return self._nearest(node, op, x, real, weight, limit)

    def _fitted(self, node: Node, op: Conv | Linear, x: Tensor, real: Tensor, weight: np.ndarray, limit: int) -> Tensor:
        neuron = self.graph[self.neurons[node.name]]
        place = Place(self.graph, node, op, self._pools(node, neuron), neuron, self.options)
        target = place.fire_real(real)
        pixels = pixels_of(self.source, self.source[node.name])
        bias = self.source[node.name].params.get("bias", np.zeros(len(weight))).astype(np.float64)
        offset = None if pixels is None else pixels[1] / pixels[0]
        local = Local(Judge(place, target, place.channels()), x, weight, bias, limit, offset)
        state, errors = fit(local, self.methods if "bias" in node.params else set(self.methods) - {"bias"})
        self.learned[node.name], self.places[neuron.name] = state.found, place
        self.fitted.append(Fitted(node.name, self.prepared.bits[node.name], target.numel(), errors))
        return state.drive

    def _pools(self, node: Node, neuron: Node) -> list[Node]:
        """What lies between a synapse and its neuron, in order."""
        found: list[Node] = []
        at = self.graph[neuron.inputs[0].node]
        while at.name != node.name:
            found.insert(0, at)
            at = self.graph[at.inputs[0].node]
        return found

    def _nearest(
        self, node: Node, op: Conv | Linear, x: Tensor, real: Tensor, weight: np.ndarray, limit: int
    ) -> Tensor:
        """Without a neuron of its own: every weight to the nearest integer, and a bias that makes up for the mean."""
        unit = self.prepared.unit(node)
        wide = (-1, *[1] * (weight.ndim - 1))
        integers = np.clip(np.rint(weight / unit.reshape(wide)), -limit, limit)
        shape = (-1, *[1] * (len(op.stride) if isinstance(op, Conv) else 0))
        scale = torch.from_numpy(unit).reshape(shape)
        sums = product(op, x, integers).double()
        bias = self._bias(node, op, tuple(x.shape[2:]))
        if bias is not None:
            sums += (bias / scale).round()
        plain = node.name in self.source.nodes and bias is not None and bias.numel() == len(unit)
        if plain and bias is not None and "bias" in self.methods and node.name not in self.prepared.shift:
            channel = sums.ndim - len(shape)
            others = tuple(i for i in range(sums.ndim) if i != channel)
            missing = (real / scale - sums).mean(others).round()
            sums += missing.reshape(shape)
            found = (bias / scale).round().reshape(-1) + missing
            self.learned[node.name] = Learned(integers, found.numpy(), unit)
        if node.name in self.prepared.shift:
            sums = (sums * torch.from_numpy(2.0 ** -self.prepared.shift[node.name]).reshape(shape) + 0.5).floor()
        self.fitted.append(Fitted(node.name, self.prepared.bits[node.name], 0, {}))
        return sums.to(x.dtype)

    def _bias(self, node: Node, op: Conv | Linear, shape: tuple[int, ...]) -> Tensor | None:
        """The real bias, broadcastable to the drive, float64."""
        bias = node.params.get("bias")
        if bias is None:
            return None
        if isinstance(op, Conv):
            bias = op.bias_map(bias, op.axes(shape, node.params["weight"]))
        return torch.from_numpy(np.array(bias, np.float64))
