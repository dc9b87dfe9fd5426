"""From a graph to steps: which nodes run together, and on which kernels.

A pattern is fused only if nothing else reads, and nobody recorded, what stays inside it. Whatever matches no pattern
runs through the operator's own semantics, so every graph has a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qkf_deploy.ir import Graph, Kind, Node, Operand, Widths
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import Add, Conv, IntegerNeuron, Mask, MatMul, MaxPool, Sum
from qkf_deploy.simulators.event import proofs
from qkf_deploy.simulators.event.attention_steps import AttentionStep, ChannelGateStep, TokenGateStep
from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.layers import SynapseLayer
from qkf_deploy.simulators.event.neurons import NeuronForm
from qkf_deploy.simulators.event.steps import (
    AddDrivesStep,
    AddStep,
    GeneralStep,
    NeuronStep,
    Step,
    SynapseStep,
    TokenSumStep,
)  # fmt: skip
from qkf_deploy.simulators.event.values import size_of
from qkf_deploy.simulators.run import Record


@dataclass(frozen=True)
class Plan:
    """What is executed, in order.

    Attributes:
        steps: cover every node but the input exactly once.
        last_use: values that may be dropped after each step.
    """

    steps: tuple[Step, ...]
    last_use: Mapping[int, tuple[str, ...]]

    def explain(self) -> list[str]:
        """One line per step: kind and nodes."""
        return [
            f"{type(s).__name__.removesuffix('Step').lower()}: {', '.join(n.name for n in s.nodes)}" for s in self.steps
        ]


class Planner:
    """Builds the plan of a graph.

    Args:
        graph: any graph; only integer graphs with proven widths get kernels.
        widths: proven widths (see :func:`qkf_deploy.passes.widths.proven`), empty for float graphs.
        record: what must be visible.
        isa: instruction set.
        carries: neurons start from given membranes, and theirs are kept.
    """

    def __init__(
        self, graph: Graph, widths: Mapping[str, Widths], record: Record, isa: Isa, *, carries: bool = False
    ) -> None:
        self.graph, self.widths, self.record, self.isa, self.carries = graph, widths, record, isa, carries
        self.readers = graph.consumers()

    def plan(self) -> Plan:
        """The plan."""
        steps: list[Step] = []
        done: set[str] = {self.graph.input.name}
        for node in self.graph:
            if node.name in done:
                continue
            step = self._match(node)
            # A fused step runs where its last node stands, when all its operands exist.
            steps.append(step)
            done.update(n.name for n in step.nodes)
        steps = self._in_order(steps)
        return Plan(tuple(steps), _last_uses(self.graph, steps))

    def _in_order(self, steps: list[Step]) -> list[Step]:
        position = {name: i for i, name in enumerate(self.graph.nodes)}
        return sorted(steps, key=lambda s: max(position[n.name] for n in s.nodes))

    def _match(self, node: Node) -> Step:
        general = GeneralStep(node, node.name in self.record.membranes)
        if not self.widths:
            return general
        for pattern in (
            self._synapse,
            self._token_gate,
            self._channel_gate,
            self._attention,
            self._neuron,
            self._add,
            self._token_sum,
        ):
            step = pattern(node)
            if step is not None:
                return step
        return general

    # -- helpers ----------------------------------------------------------------------------------------------------

    def _only_reader(self, node: Node) -> Node | None:
        """The one reader of a node that nobody recorded."""
        readers = self.readers[node.name]
        return readers[0] if len(readers) == 1 and node.name not in self.record.values else None

    def _form(self, neuron: Node, channels: int) -> NeuronForm | None:
        """Kernel form of a neuron whose membrane is not recorded and whose arithmetic is proven to fit 32 bits."""
        drive = self.widths.get(neuron.inputs[0].node)
        if drive is None or not proofs.neuron_fits(neuron, drive, self.widths[neuron.name]):
            return None
        return NeuronForm.of(neuron, channels)

    def _fusable_form(self, neuron: Node | None, channels: int) -> NeuronForm | None:
        if neuron is None or not isinstance(neuron.op, IntegerNeuron) or neuron.name in self.record.membranes:
            return None
        if self._starts(neuron):
            return None
        view = neuron.inputs[0].view
        return self._form(neuron, channels) if view is None or view.is_reshape else None

    def _starts(self, neuron: Node) -> bool:
        """True for a neuron that does not start every run from 0: it goes through the kernel of neurons alone."""
        return self.carries or "initial" in neuron.params

    def _reads(self, operand: Operand, expected: np.ndarray) -> bool:
        """True if an operand's elements are the source's elements of these flat indices."""
        source = self.graph[operand.node].type
        index = np.arange(source.size).reshape(source.shape)
        seen = index if operand.view is None else operand.view.apply(index, lead=0)
        return seen.shape == expected.shape and bool((seen == expected).all())

    # -- patterns ---------------------------------------------------------------------------------------------------

    def _synapse(self, node: Node) -> Step | None:
        type_ = self.graph.input_types(node)[0] if node.inputs else None
        if not isinstance(node.op, Conv) or not SynapseLayer.supports(node, type_, self.widths[node.name]):
            return None
        channels = node.type.shape[0]
        after = self._only_reader(node)
        pool = None
        if after is not None and isinstance(after.op, MaxPool) and after.inputs[0].view is None:
            pool, after = after, self._only_reader(after)
        form = self._fusable_form(after, channels)
        if form is None or after is None:
            return SynapseStep(self.graph, node, None, None, SynapseLayer(self.graph, node, None, None, self.isa))
        layer = SynapseLayer(self.graph, node, pool, form, self.isa)
        return SynapseStep(self.graph, node, pool, after, layer)

    def _gate(self, node: Node) -> tuple[Node, Node, NeuronForm, tuple[int, ...]] | None:
        """(neuron, mask, form, summed shape) if ``node`` is a sum of spikes that gates other spikes."""
        if not isinstance(node.op, Sum) or not node.op.keepdims:
            return None
        source = self.graph.operand_type(node.inputs[0])
        neuron = self._only_reader(node)
        if (
            source.kind is not Kind.SPIKE
            or source.timing is not Timing.STEP
            or neuron is None
            or neuron.inputs[0].view is not None
        ):
            return None
        masks = self.readers[neuron.name] if isinstance(neuron.op, IntegerNeuron) else []
        form = self._fusable_form(neuron, node.type.size)
        if len(masks) != 1 or form is None:
            return None
        mask = masks[0]
        if not isinstance(mask.op, Mask) or mask.op.invert or mask.inputs[0] != Operand(neuron.name):
            return None
        k = self.graph.operand_type(mask.inputs[1])
        in_order = np.arange(size_of(source.shape)).reshape(source.shape)
        same = k.kind is Kind.SPIKE and k.timing is Timing.STEP and k.shape == source.shape
        if not same or not self._reads(node.inputs[0], in_order) or not self._reads(mask.inputs[1], in_order):
            return None
        return neuron, mask, form, source.shape

    def _token_gate(self, node: Node) -> Step | None:
        found = self._gate(node)
        if found is None or not isinstance(node.op, Sum) or len(found[3]) != 3 or node.op.axes != (1,):
            return None
        neuron, mask, form, (heads, dim, _) = found
        return TokenGateStep(node, neuron, mask, form, heads, dim)

    def _channel_gate(self, node: Node) -> Step | None:
        found = self._gate(node)
        if found is None or not isinstance(node.op, Sum) or node.op.axes != (len(found[3]) - 1,):
            return None
        neuron, mask, form, shape = found
        return ChannelGateStep(node, neuron, mask, form, size_of(shape[:-1]))

    def _attention(self, node: Node) -> Step | None:
        mixed = self._only_reader(node) if isinstance(node.op, MatMul) else None
        neuron = self._only_reader(mixed) if mixed is not None and isinstance(mixed.op, MatMul) else None
        if mixed is None or neuron is None or not isinstance(neuron.op, IntegerNeuron) or len(node.type.shape) != 3:
            return None
        if max(node.op.steps_awaited, mixed.op.steps_awaited) > 1:
            return None
        k, v, q = node.inputs[0], node.inputs[1], mixed.inputs[0]
        types = [self.graph.operand_type(o) for o in (k, v, q)]
        if any(t.kind is not Kind.SPIKE or t.timing is not Timing.STEP for t in types) or mixed.inputs[1] != Operand(
            node.name
        ):
            return None
        heads, dim, tokens = types[0].shape
        split = np.arange(heads * dim * tokens).reshape(heads, dim, tokens)
        by_token = split.transpose(0, 2, 1)
        if (
            neuron.name in self.record.membranes
            or self._starts(neuron)
            or not proofs.fits(self.widths[mixed.name].value, proofs.INT32)
        ):
            return None
        if not (self._reads(k, split) and self._reads(v, by_token) and self._reads(q, by_token)):
            return None
        merged = np.arange(heads * tokens * dim).reshape(heads, tokens, dim).transpose(0, 2, 1)
        form = self._form(neuron, heads * dim)
        if form is None or not self._reads(neuron.inputs[0], merged.reshape(neuron.type.shape)):
            return None
        return AttentionStep(node, mixed, neuron, form, heads, dim)

    def _neuron(self, node: Node) -> Step | None:
        if not isinstance(node.op, IntegerNeuron):
            return None
        channels = node.type.shape[0]
        form = self._form(node, channels)
        if form is None or (self._starts(node) and node.op.fraction_bits):  # what is left would be no whole drive
            return None
        return NeuronStep(node, form, channels, node.name in self.record.membranes)

    def _add(self, node: Node) -> Step | None:
        if not isinstance(node.op, Add):
            return None
        types, channels = self.graph.input_types(node), node.type.shape[0]
        if any(t.timing is not Timing.STEP for t in types) or len(node.type.shape) < 2:
            return None
        if all(t.is_counts for t in types):
            high = node.type.high
            return AddStep(node, channels) if high is not None and high <= proofs.LARGEST_COUNT else None
        drives = all(t.kind is Kind.DRIVE for t in types)
        fits = all(proofs.fits(self.widths[n].value, proofs.INT32) for n in (node.name, *(o.node for o in node.inputs)))
        return AddDrivesStep(node, channels) if drives and fits else None

    def _token_sum(self, node: Node) -> Step | None:
        if not isinstance(node.op, Sum):
            return None
        type_ = self.graph.input_types(node)[0]
        small = type_.is_counts and type_.high is not None and type_.high <= proofs.LARGEST_COUNT
        over_tokens = node.op.axes == tuple(range(1, len(type_.shape)))
        return TokenSumStep(node, type_.shape[0]) if small and over_tokens and type_.timing is Timing.STEP else None


def _last_uses(graph: Graph, steps: list[Step]) -> dict[int, tuple[str, ...]]:
    """Names whose values no later step reads, by step."""
    last: dict[str, int] = {}
    for index, step in enumerate(steps):
        for node in step.nodes:
            last[node.name] = max(last.get(node.name, 0), index)
            for operand in node.inputs:
                last[operand.node] = max(last.get(operand.node, 0), index)
    out: dict[int, list[str]] = {}
    for name, index in last.items():
        out.setdefault(index, []).append(name)
    return {index: tuple(names) for index, names in out.items()}
