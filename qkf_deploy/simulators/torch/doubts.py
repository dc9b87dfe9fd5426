"""Spikes that rounding could decide: found by error bounds, and decided by the reference's own arithmetic.

A float64 sum depends on the order in which its terms are added, and this engine adds in another order than the
reference. Where a membrane lies within the proven error of its threshold, the layers between the last exactly known
values and that neuron run again through the operators' numpy semantics, for the images concerned. So every spike is the
reference's, and so is every count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.ir import Graph, Node, freeze
from qkf_deploy.ops import BatchNorm, Conv, Linear, MatMul, Neuron, Readout, Scale, Sum, SumPool
from qkf_deploy.ops.activity import nonzero_per_image
from qkf_deploy.simulators.torch.neurons import Fired
from qkf_deploy.simulators.torch.operators import STEPS
from qkf_deploy.simulators.torch.setting import Setting, Step
from qkf_deploy.simulators.torch.values import Value

Values = Mapping[str, Value]

#: Operators whose result depends on the order of a sum.
_SUMS = (MatMul, Sum, SumPool, Readout)


def roots(graph: Graph) -> dict[str, frozenset[str]]:
    """For each neuron of a float graph, the values it depends on that are known exactly; the rest lies between."""
    exact: dict[str, bool] = {}
    reach: dict[str, frozenset[str]] = {}
    for node in graph:
        operands = [o.node for o in node.inputs]
        known = not isinstance(node.op, Conv | Linear) and all(exact[name] for name in operands)
        if isinstance(node.op, _SUMS):
            known = known and all(t.is_events for t in graph.input_types(node))
        if isinstance(node.op, Neuron) or not operands:
            known = True
        exact[node.name] = known
        beyond = (frozenset({name}) if exact[name] else reach[name] for name in operands)
        reach[node.name] = frozenset().union(*beyond)
    return {node.name: reach[node.name] for node in graph if isinstance(node.op, Neuron)}


class Judge:
    """Decides what the device's sums leave open.

    Args:
        setting: a float64 graph.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting, self._graph = setting, setting.graph
        self.roots = roots(setting.graph)
        self._magnitudes: dict[str, Step] = {}

    def settle(self, node: Node, drive: Value, fired: Fired, values: Values, keep: bool) -> tuple[Value, Fired]:
        """Drive and spikes of a neuron with the doubtful images decided.

        Args:
            node: the neuron.
            drive: its operand.
            fired: what it did.
            values: every value that is still held, the neuron's roots among them.
            keep: whether the charged membranes are wanted.
        """
        if fired.doubtful is None:
            return drive, fired
        doubtful = self.doubtful(node, drive, fired.doubtful, values)
        return self.decide(node, drive, replace(fired, doubtful=doubtful), values, keep)

    def doubtful(self, node: Node, drive: Value, spikes: Tensor, values: Values) -> Tensor:
        """Images in which rounding could decide whether a drive is zero, or a spike: bool ``(B,)``, as ``spikes``."""
        return spikes | self._doubtful_zeros(node, drive, values)

    def decide(self, node: Node, drive: Value, fired: Fired, values: Values, keep: bool) -> tuple[Value, Fired]:
        """As :meth:`settle`, where the images whose drive may be zero are among the doubtful ones already."""
        doubtful = fired.doubtful
        if doubtful is None or not bool(doubtful.any()):
            return drive, fired
        if isinstance(node.op, Neuron) and node.op.carry == "official":
            doubtful = torch.ones_like(doubtful)
        images = doubtful.nonzero().reshape(-1)
        known: dict[str, np.ndarray] = {}
        operand = node.inputs[0]
        exact = self._by_reference(operand.node, node, images, values, known)
        exact = exact if operand.view is None else operand.view.apply(exact)
        if drive.tensor.dtype == torch.float64:
            settled = Value(_patched(drive.tensor, images, exact), drive.largest, integral=drive.integral)
        else:  # of a drive in float32 its zeros are known
            settled, nonzero = drive, drive.nonzero_per_image()
            nonzero[images] = torch.from_numpy(nonzero_per_image(exact)).to(nonzero)
        steps = self._graph.time_steps
        spikes = _patched(fired.spikes.tensor, images, node.op.run([exact], node.params, steps))
        charged = fired.charged
        if keep and charged is not None and isinstance(node.op, Neuron):
            charged = _patched(charged, images, node.op.membranes([exact], node.params, steps))
        out = Value(spikes, float(spikes.max()), binary=fired.spikes.binary)
        return settled, Fired(out, charged)

    def _by_reference(
        self, name: str, neuron: Node, images: Tensor, values: Values, known: dict[str, np.ndarray]
    ) -> np.ndarray:
        """A value of some images in the reference's own arithmetic, from the neuron's roots."""
        if name not in known:
            if name in self.roots[neuron.name]:
                known[name] = values[name].tensor[:, images].cpu().numpy().astype(np.float64)
            else:
                node = self._graph[name]
                operands = [self._by_reference(o.node, neuron, images, values, known) for o in node.inputs]
                seen = [x if o.view is None else o.view.apply(x) for x, o in zip(operands, node.inputs, strict=True)]
                known[name] = node.op.run(seen, node.params, self._graph.time_steps)
        return known[name]

    def _doubtful_zeros(self, neuron: Node, drive: Value, values: Values) -> Tensor:
        """Images in which a drive may be zero in one order of summation and not in another, bool ``(B,)``.

        Updates without drive are counted. A drive is surely zero where all of its terms are: where the same layers
        with the magnitudes of all weights and values give zero.
        """
        if drive.smallest() > drive.error:
            return torch.zeros(drive.shape[1], dtype=torch.bool, device=drive.tensor.device)
        close = drive.tensor.abs() <= drive.error
        operand = neuron.inputs[0]
        terms = self._magnitude(operand.node, neuron, values, {})
        if terms is not None:
            close &= terms.read(operand.view).tensor > 0
        return close.transpose(0, 1).flatten(1).any(1)

    def _magnitude(self, name: str, neuron: Node, values: Values, known: dict[str, Value | None]) -> Value | None:
        """A value with the magnitudes of all its terms added up; ``None`` behind an operator this engine has not."""
        if name not in known:
            known[name] = self._new_magnitude(name, neuron, values, known)
        return known[name]

    def _new_magnitude(self, name: str, neuron: Node, values: Values, known: dict[str, Value | None]) -> Value | None:
        if name in self.roots[neuron.name]:
            root = values[name]
            return Value(root.tensor.abs(), root.largest, integral=root.integral)
        node = self._graph[name]
        operands = [self._magnitude(o.node, neuron, values, known) for o in node.inputs]
        seen = [x.read(o.view) for x, o in zip(operands, node.inputs, strict=True) if x is not None]
        if node.op.kind not in STEPS or len(seen) < len(operands):
            return None
        if name not in self._magnitudes:
            self._magnitudes[name] = STEPS[node.op.kind](self._setting, _of_magnitudes(node))
        return self._magnitudes[name](seen)


def _patched(x: Tensor, images: Tensor, of_images: np.ndarray) -> Tensor:
    out = x.expand(max(x.shape[0], of_images.shape[0]), *x.shape[1:]).clone()
    out[:, images] = torch.from_numpy(np.array(of_images)).to(out)
    return out


def _of_magnitudes(node: Node) -> Node:
    """The node with the magnitudes of its weights."""
    params = dict(node.params)
    if isinstance(node.op, BatchNorm):
        _, offset = node.op.affine(params)
        params |= {"mean": np.zeros_like(params["mean"]), "weight": np.abs(params["weight"]), "bias": np.abs(offset)}
    elif isinstance(node.op, Scale):
        return replace(node, op=replace(node.op, factor=abs(node.op.factor)))
    else:
        params = {key: np.abs(value) for key, value in params.items()}
    return replace(node, params=freeze(params))
