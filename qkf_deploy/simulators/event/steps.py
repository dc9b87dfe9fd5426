"""The steps of a plan: one or more nodes executed together on one image, with their exact counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import Conv, IntegerNeuron
from qkf_deploy.ops.membrane import SpikingNeuron
from qkf_deploy.simulators.counting import node_counts, state_word
from qkf_deploy.simulators.event.context import Image, NodeCounts
from qkf_deploy.simulators.event.kernels.streams import add_streams
from qkf_deploy.simulators.event.layers import SynapseLayer
from qkf_deploy.simulators.event.neurons import NeuronForm, fire_drive
from qkf_deploy.simulators.event.values import Drive, Plain, Stream, Totals, to_rows, words_of


class Step(ABC):
    """Executes :attr:`nodes`; values of all but those in :attr:`stored` stay inside the step."""

    whole_batch: ClassVar[bool] = False

    @property
    @abstractmethod
    def nodes(self) -> tuple[Node, ...]:
        """Nodes this step covers, in order."""

    @abstractmethod
    def run(self, image: Image) -> None:
        """Execute on one image."""


@dataclass(frozen=True, eq=False)
class NodeStep(Step):
    """Executes one node."""

    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.node,)


@dataclass(frozen=True, eq=False)
class ChannelsStep(NodeStep):
    """Executes one node on operands whose rows hold so many channels."""

    channels: int


def store_neuron(image: Image, node: Node, spikes: Stream, driven: int, entering: NodeCounts | None = None) -> None:
    """Store a neuron's output and enter its counts; ``driven``: non-zero drives over all steps."""
    image.store(node, spikes)
    leaving, steps = image.leaving(spikes)
    updates = node.type.size * image.graph.time_steps
    counts = {
        "neuron_updates_driven": driven,
        "neuron_updates_idle": updates - driven,
        "resets": leaving["events_out_unary"],
        "state_bytes": 2 * updates * state_word(image.graph, node),
        **leaving,
    }
    if entering:
        counts |= entering
    image.tally(node, counts, steps)


@dataclass(frozen=True, eq=False)
class SynapseStep(Step):
    """A convolution, with the pooling and the neuron that follow where they can be fused."""

    graph: Graph
    conv: Node
    pool: Node | None
    neuron: Node | None
    layer: SynapseLayer

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(n for n in (self.conv, self.pool, self.neuron) if n is not None)

    def run(self, image: Image) -> None:
        operand = self.conv.inputs[0]
        if self.layer.constant:
            x = image.plain_operand(operand)
            out, done = self.layer.run(x[0, 0], image.ranges)
            image.tally(self.conv, self._pixel_counts(x))
        else:
            stream = image.stream(operand, self.layer.channels_in)
            out, done = self.layer.run(stream, image.ranges)
            image.tally(self.conv, self._event_counts(image, stream))
        image.gathered[self.conv.name] = done.gathered
        if self.pool is not None:
            image.tally(self.pool, self._pool_comparisons)
        if self.neuron is not None and isinstance(out, Stream):
            store_neuron(image, self.neuron, out, done.driven)
        else:
            image.store(self.conv, out)

    @cached_property
    def _fanouts(self) -> np.ndarray:
        """Outputs reached per class of input pixel and channel, int64 ``(2, classes, 32 * words)``, padding 0.

        Through all weights, and through non-zero ones.
        """
        layer, classes = self.layer, self.layer.window.reader_classes
        weight = layer.weight.reshape(*layer.weight.shape[:2], layer.window.y.kernel, layer.window.x.kernel)
        every = np.full(weight.shape[1:], layer.connected_outputs, np.int64)
        out = np.zeros((2, classes.count, 32 * words_of(layer.channels_in)), np.int64)
        out[0, :, : layer.channels_in] = classes.fanout(every)
        out[1, :, : layer.channels_in] = classes.fanout(np.count_nonzero(weight, axis=0))
        return out

    @cached_property
    def _flat_fanouts(self) -> np.ndarray:
        return self._fanouts.reshape(2, -1)

    def _event_counts(self, image: Image, x: Stream) -> NodeCounts:
        window = self.layer.window
        classes = window.reader_classes
        unary, graded = x.class_counts(image.isa.tag, classes.class_of, classes.count, window.reader_key)
        of_graded = of_unary = (self._flat_fanouts @ graded).tolist()
        if unary is not graded:
            of_unary = (self._flat_fanouts @ unary).tolist()
        return {
            "ac_unary": of_unary[0],
            "ac_graded": of_graded[0],
            "ac_unary_nonzero_weights": of_unary[1],
            "ac_graded_nonzero_weights": of_graded[1],
            "weight_bytes": of_graded[0] * self._weight_bytes,
            **self._bias_adds,
            **image.entering(x),
        }

    @cached_property
    def _weight_bytes(self) -> int:
        """Bytes per weight."""
        bits = self.conv.op.weight_bits if isinstance(self.conv.op, Conv) else None
        return -(-(bits or 32) // 8)

    @cached_property
    def _bias_adds(self) -> NodeCounts:
        has_bias = "bias" in self.conv.params
        return {"bias_adds": self.conv.type.size * self.layer.steps} if has_bias else {}

    @cached_property
    def _pixel_fanouts(self) -> tuple[int, int, np.ndarray]:
        """Outputs reached by all pixels; through non-zero weights; and so by each, int64 ``(C * H * W,)``."""
        every, nonzero = self._fanouts[:, :, : self.layer.channels_in]
        class_of = self.layer.window.reader_classes.class_of
        by_pixel = np.ascontiguousarray(nonzero[class_of].T).reshape(-1)
        return int(every[class_of].sum()), int(by_pixel.sum()), by_pixel

    def _pixel_counts(self, x: np.ndarray) -> NodeCounts:
        """Counts of multiplications; ``x`` is ``(1, 1, C, H, W)``."""
        macs, nonzero, by_pixel = self._pixel_fanouts
        absent = np.flatnonzero(x.reshape(-1) == 0)
        return {
            "mac": macs,
            "mac_every_step": macs * self.graph.time_steps,
            "mac_nonzero": nonzero - int(by_pixel[absent].sum()),
            "weight_bytes": macs * self._weight_bytes,
            **self._bias_adds,
        }

    @cached_property
    def _pool_comparisons(self) -> NodeCounts:
        if self.pool is None:
            return {}
        pool = self.pool
        steps = 1 if self.layer.constant else self.graph.time_steps
        shape_only = np.broadcast_to(np.int64(0), (steps, 1, *pool.type.shape))
        counts = pool.op.count([], shape_only, pool.params, self.graph.input_types(pool), self.graph.time_steps)
        return {name: int(n[0]) for name, n in counts.items()}


@dataclass(frozen=True, eq=False)
class NeuronStep(NodeStep):
    """A neuron by itself. A membrane that it starts from is what the first drive has more."""

    form: NeuronForm
    channels: int
    keep_membrane: bool

    def run(self, image: Image) -> None:
        operand = self.node.inputs[0]
        source, steps = image.values[operand.node], image.graph.time_steps
        drive = image.drive(operand, self.channels)
        drive, unseen = self._started(drive, image)
        keep = self.keep_membrane or image.states is not None
        spikes, driven, kept = fire_drive(image.isa, drive, self.form, steps, image.ranges, keep)
        if kept is not None:
            self._keep(image, kept)
        entering = _plain_entering(image, self.node) if not isinstance(source, Drive) else None
        store_neuron(image, self.node, spikes, driven - unseen, entering)

    def _started(self, drive: Drive, image: Image) -> tuple[Drive, int]:
        """The drive with what is left of the membrane in its first step, and how many more elements drive there."""
        op, state = self.node.op, (image.states or {}).get(self.node.name, self.node.params.get("initial"))
        if state is None or not isinstance(op, IntegerNeuron):
            return drive, 0
        state = np.broadcast_to(state, (1, *self.node.type.shape)).astype(np.int64)
        left = to_rows(((state * op.multiplier(self.node.params)) >> op.decay_shift)[None], self.channels, np.int32)
        steps, columns = image.graph.time_steps, drive.data.shape[1]
        rows = drive.data.reshape(drive.tokens, drive.steps, columns)
        rows = np.array(np.broadcast_to(rows, (drive.tokens, steps, columns)))
        before = np.count_nonzero(rows[:, 0])
        rows[:, 0] += left
        started = Drive(rows.reshape(-1, columns), drive.channels, drive.tokens, steps)
        return started, int(np.count_nonzero(rows[:, 0]) - before)

    def _keep(self, image: Image, charged: Drive) -> None:
        op, shape = self.node.op, self.node.type.shape
        if self.keep_membrane:
            image.membranes[self.node.name] = _unpack(charged, shape)
        if image.states is not None and isinstance(op, IntegerNeuron):
            rows = charged.data.reshape(charged.tokens, charged.steps, -1)[:, -1]
            last = _unpack(Drive(rows, charged.channels, charged.tokens, 1), shape)[0]
            image.states[self.node.name] = op.after(last, self.node.params)


def _unpack(drive: Drive, shape: tuple[int, ...]) -> np.ndarray:
    rows = drive.data[:, : drive.channels].reshape(drive.tokens, drive.steps, drive.channels)
    return rows.transpose(1, 2, 0).reshape(drive.steps, 1, *shape).astype(np.int64)


def _plain_entering(image: Image, node: Node) -> NodeCounts | None:
    """``events_in`` of a neuron that reads counts (attention sums)."""
    type_ = image.graph.input_types(node)[0]
    if not type_.is_events:
        return None
    x = image.plain_operand(node.inputs[0])
    repeat = image.graph.time_steps if type_.timing is Timing.CONSTANT else 1
    unary, graded = int(np.abs(x).sum()) * repeat, int(np.count_nonzero(x)) * repeat
    negative = {"events_in_negative": int(np.maximum(-x, 0).sum()) * repeat} if type_.is_signed else {}
    return {"events_in_unary": unary, "events_in_graded": graded, **negative}


class AddStep(ChannelsStep):
    """A residual addition of spikes and counts."""

    def run(self, image: Image) -> None:
        a, b = (image.stream(o, self.channels) for o in self.node.inputs)
        out = np.empty((a.data.shape[0], 32 * a.words), np.uint8)
        both = add_streams(image.isa.tag, a.data, b.data, a.words, out)
        of_a, of_b = (x.totals(image.isa.tag) for x in (a, b))
        counted = Totals(
            of_a.unary + of_b.unary, of_a.graded + of_b.graded - both, of_a.unary_per_step + of_b.unary_per_step
        )
        total = Stream(out, self.channels, a.tokens, a.steps, counted, a.largest() + b.largest())
        image.store(self.node, total)
        leaving, steps = image.leaving(total)
        image.tally(self.node, {"residual_adds": both, **image.entering(a, b), **leaving}, steps)


class AddDrivesStep(ChannelsStep):
    """A membrane shortcut: two drives of the same layout, the sum proven to fit 32 bits."""

    def run(self, image: Image) -> None:
        a, b = (image.drive(o, self.channels) for o in self.node.inputs)
        image.store(self.node, Drive(a.data + b.data, self.channels, a.tokens, a.steps))
        image.tally(self.node, {"residual_adds": self.node.type.size * a.steps})


class TokenSumStep(ChannelsStep):
    """The readout's sum over tokens."""

    def run(self, image: Image) -> None:
        x = image.stream(self.node.inputs[0], self.channels)
        sums = x.column_sums(image.isa.tag)
        entering = image.entering(x)
        image.store(self.node, Plain(sums.reshape(x.steps, 1, *self.node.type.shape)))
        name = "head_adds" if getattr(self.node.op, "role", "") == "readout" else "attention_sum_adds"
        counts = {
            f"{name}_unary": entering["events_in_unary"],
            f"{name}_graded": entering["events_in_graded"],
            **entering,
            "events_out_unary": entering["events_in_unary"],
            "events_out_graded": int(np.count_nonzero(sums)),
        }
        image.tally(self.node, counts, x.totals(image.isa.tag).unary_per_step)


@dataclass(frozen=True, eq=False)
class GeneralStep(NodeStep):
    """Any operator, through its own numpy semantics; exact for everything the graph can hold."""

    keep_membrane: bool = False

    def run(self, image: Image) -> None:
        self.run_batch([image])

    def run_batch(self, images: list[Image]) -> None:
        """Execute on several images at once, as the operator sees a batch."""
        graph, node = images[0].graph, self.node
        per_image = [[i.plain_operand(o) for o in node.inputs] for i in images]
        operands = [np.concatenate(column, axis=1) for column in zip(*per_image, strict=True)]
        membranes = None
        if isinstance(node.op, SpikingNeuron):
            membranes = self._charged(node.op, operands, images)
            value = node.op.spikes(membranes, node.params)
        else:
            value = node.op.run(operands, node.params, graph.time_steps)
        counts, spikes = node_counts(graph, node, operands, value)
        for b, image in enumerate(images):
            image.store(node, Plain(value[:, b : b + 1]))
            steps = None if spikes is None else spikes[:, b]
            image.tally(node, {name: int(n[b]) for name, n in counts.items()}, steps)
            if membranes is not None and self.keep_membrane:
                image.membranes[node.name] = membranes[:, b : b + 1]

    def _charged(self, op: SpikingNeuron, operands: list[np.ndarray], images: list[Image]) -> np.ndarray:
        """Charged membranes; in a stretch they go on from those of the last one."""
        name, params, steps = self.node.name, self.node.params, images[0].graph.time_steps
        states = [image.states for image in images if image.states is not None]
        if not states:
            return op.membranes(operands, params, steps)
        if name in states[0]:
            params = {**params, "initial": np.concatenate([s[name] for s in states])}
        charged, left = op.history(operands, params, steps)
        for b, state in enumerate(states):
            state[name] = left[-1, b : b + 1].copy()
        return charged


def needs_whole_batch(step: Step) -> bool:
    """True for a neuron whose membrane is carried from image to image."""
    return isinstance(step, GeneralStep) and getattr(step.node.op, "carry", "own") == "official"
