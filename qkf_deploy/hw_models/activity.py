"""What a network did on images, step by step and tile by tile: measured, where a ledger has sums over the steps.

A tile is a band of output rows with every input row that its windows reach, so an event at a border of two bands is
read by both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Node, Operand
from qkf_deploy.ir.values import Kind, Timing
from qkf_deploy.ops import Conv, IntegerNeuron, Linear, Mask, Readout
from qkf_deploy.ops.activity import nonzero_per_image, per_image
from qkf_deploy.ops.geometry import Axis

#: Counted here besides the classes of the ledger.
ABOVE_ONE = "ac_graded_above_one"
LIVE, LIVE_ABOVE_ONE = "ac_graded_live", "ac_graded_live_above_one"


@dataclass(frozen=True)
class Bands:
    """The input of a synapse seen by bands of its output rows; sums over bands and images.

    Attributes:
        events: per step, non-zero elements in the windows.
        channels: per step, input channels with at least one event in the window of a band.
        channels_ever: the same over all steps together.
        busiest: per step, additions of the band that has most of them (largest of each image, summed).
        elements: input elements in the windows, of one image and step.
    """

    events: tuple[int, ...]
    channels: tuple[int, ...]
    channels_ever: int
    busiest: tuple[int, ...]
    elements: int


@dataclass(frozen=True)
class NodeActivity:
    """One node.

    Attributes:
        counts: class of the ledger -> sum over images at each step; a value constant over time in the first step, one
            of the whole image in the last. ``ac_graded_above_one`` are additions of events of more than one spike;
            ``ac_graded_live`` those of a projection whose result some gate lets pass at this step or later (those of
            them of more than one spike: ``ac_graded_live_above_one``).
        bands: number of bands -> what they see; one band is the whole input. Synapses that read events only.
    """

    counts: Mapping[str, tuple[int, ...]]
    bands: Mapping[int, Bands]

    def at(self, name: str, step: int) -> int:
        """One class at one step; 0 where it cannot occur."""
        return self.counts[name][step] if name in self.counts else 0

    def total(self, name: str) -> int:
        """One class over all steps."""
        return sum(self.counts.get(name, ()))


@dataclass(frozen=True)
class Activity:
    """All nodes.

    Attributes:
        time_steps, images: T, and how many images are summed.
        nodes: by name.
    """

    time_steps: int
    images: int
    nodes: Mapping[str, NodeActivity]

    def __add__(self, other: Activity) -> Activity:
        return Activity(
            self.time_steps,
            self.images + other.images,
            {name: _joined(node, other.nodes[name]) for name, node in self.nodes.items()},
        )


def measure_activity(graph: Graph, values: Mapping[str, np.ndarray]) -> Activity:
    """Count a run by steps and tiles.

    Args:
        graph: integer graph.
        values: of every node, the input included, ``(T or 1, B, *shape)``.

    Raises:
        UnsupportedError: attention over several time steps: what it does belongs to no single step.
    """
    for name in graph.not_causal:
        raise UnsupportedError("waits for several time steps, so its work cannot be told by steps", where=name)
    images = values[graph.input.name].shape[1]
    live = dict(_live_additions(graph, values))
    nodes = {}
    for node in graph:
        if node.op.kind in ("input", "output"):
            continue
        inputs = [_seen(values[o.node], o) for o in node.inputs]
        counts = _by_step(graph, node, inputs, values[node.name])
        if node.name in live:
            counts[LIVE], counts[LIVE_ABOVE_ONE] = live[node.name]
        nodes[node.name] = NodeActivity(counts, _bands(graph, node, inputs[0]) if "ac_graded" in counts else {})
    return Activity(graph.time_steps, images, nodes)


def _joined(a: NodeActivity, b: NodeActivity) -> NodeActivity:
    counts = {name: _plus(a.counts[name], b.counts[name]) for name in a.counts}
    bands = {
        n: Bands(
            _plus(x.events, b.bands[n].events),
            _plus(x.channels, b.bands[n].channels),
            x.channels_ever + b.bands[n].channels_ever,
            _plus(x.busiest, b.bands[n].busiest),
            x.elements,
        )
        for n, x in a.bands.items()
    }
    return NodeActivity(counts, bands)


def _plus(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _seen(value: np.ndarray, operand: Operand) -> np.ndarray:
    return value if operand.view is None else operand.view.apply(value)


def _by_step(graph: Graph, node: Node, inputs: Sequence[np.ndarray], output: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Counts of a node at each step, by its own rule."""
    steps, types = graph.time_steps, graph.input_types(node)
    rows: dict[str, list[int]] = {}
    for t, (seen, value) in _slices(node, inputs, output, steps):
        op = node.op
        if isinstance(op, Readout) and op.weights:
            op = Readout(op.weights[t : t + 1])
        found = dict(op.count(seen, value, node.params, types, 1))
        if node.type.is_events:
            found["events_out_unary"], found["events_out_graded"] = per_image(np.abs(value)), nonzero_per_image(value)
        entering = [np.abs(x) for x, kind in zip(seen, types, strict=True) if kind.is_events]
        if entering:
            found["events_in_unary"] = sum((per_image(x) for x in entering), np.zeros(1, np.int64))
            found["events_in_graded"] = sum((nonzero_per_image(x) for x in entering), np.zeros(1, np.int64))
        if "ac_graded" in found:
            above = np.asarray(np.abs(seen[0]) > 1).astype(np.int64)
            found[ABOVE_ONE] = node.op.count([above], value, node.params, types, 1)["ac_graded"]
        for name, count in found.items():
            rows.setdefault(name, [0] * steps)[t] = int(count.sum())
    return {name: tuple(row) for name, row in rows.items()}


def _slices(
    node: Node, inputs: Sequence[np.ndarray], output: np.ndarray, steps: int
) -> Iterator[tuple[int, tuple[Sequence[np.ndarray], np.ndarray]]]:
    """(step, operands and output at it)."""
    if isinstance(node.op, Readout):  # adds what each step brings
        for t in range(len(inputs[0])):
            yield t, ([inputs[0][t : t + 1]], inputs[0][t : t + 1])
        return
    if node.type.timing is not Timing.STEP:
        yield steps - 1 if node.type.timing is Timing.IMAGE else 0, (inputs, output)
        return
    for t in range(len(output)):
        yield t, ([x[min(t, len(x) - 1)][None] for x in inputs], output[t : t + 1])


def _bands(graph: Graph, node: Node, x: np.ndarray) -> dict[int, Bands]:
    """The input by bands of output rows: one, two, four ... and one for each row."""
    kind = graph.input_types(node)[0]
    axes = node.op.axes(kind.shape, node.params["weight"]) if isinstance(node.op, Conv) else ()
    active = x != 0
    if isinstance(node.op, Linear):
        active = np.moveaxis(active, -1, 2)
    events = active.reshape(*active.shape[:3], axes[0].size if axes else 1, -1)
    any_event, number = events.any(axis=-1), events.sum(axis=(2, 4), dtype=np.int64)
    additions = _additions(node, events, axes)
    reads = axes[0].reads() if axes else np.ones((1, 1), np.int64)
    rows = len(reads)
    out = {}
    for count in sorted({min(2**i, rows) for i in range(rows.bit_length() + 1)}):
        bounds = [(i * rows // count, (i + 1) * rows // count) for i in range(count)]
        windows = [np.asarray(reads[a:b].any(axis=0)) for a, b in bounds]
        seen = [any_event[:, :, :, w].any(axis=-1) for w in windows]  # (T, B, C)
        busiest = np.stack([additions[:, :, a:b].sum(axis=-1) for a, b in bounds]).max(axis=0).sum(axis=1)
        out[count] = Bands(
            _whole(sum(number[:, :, w].sum(axis=(1, 2)) for w in windows)),
            _whole(sum(s.sum(axis=(1, 2)) for s in seen)),
            int(sum(s.any(axis=0).sum() for s in seen)),
            _whole(busiest),
            int(sum(w.sum() for w in windows)) * kind.size // len(windows[0]),
        )
    return out


def _additions(node: Node, events: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """Additions into each output row, ``(T, B, rows)``; events are ``(T, B, C, rows in, rest)``."""
    weight = node.params["weight"]
    outputs = len(weight) // (node.op.groups if isinstance(node.op, Conv) else 1)
    rest = np.ones(1, np.int64) if len(axes) < 2 else axes[1].readers().sum(axis=1)
    per_row = (events * rest).sum(axis=(2, 4), dtype=np.int64) * outputs
    return per_row @ axes[0].reads().T if axes else per_row


def _whole(row: np.ndarray | int) -> tuple[int, ...]:
    return tuple(int(n) for n in np.asarray(row))


def _live_additions(graph: Graph, values: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Sequence[tuple[int, ...]]]]:
    """Projections that only a gate reads, with the additions whose result it lets pass at that step or later.

    A neuron keeps a membrane, so a drive matters until the last step at which its gate is open; after that it does not.
    """
    readers = graph.consumers()
    for node in graph:
        if not isinstance(node.op, Mask) or node.type.kind is Kind.DRIVE:
            continue
        masked = graph[node.inputs[1].node]
        synapse = graph[masked.inputs[0].node] if isinstance(masked.op, IntegerNeuron) else masked
        alone = len(readers[masked.name]) == len(readers[synapse.name]) == 1
        if not alone or not _pointwise(graph, synapse) or masked.inputs[0].view is not None:
            continue
        gate = _seen(values[node.inputs[0].node], node.inputs[0]) != 0
        passes = ~gate if node.op.invert else gate
        needed = np.flip(np.logical_or.accumulate(np.flip(passes, axis=0), axis=0), axis=0)
        outputs = _behind(node.inputs[1], np.broadcast_to(needed, (*needed.shape[:2], *node.type.shape)), masked)
        x, readers_at = _seen(values[synapse.inputs[0].node], synapse.inputs[0]), outputs.sum(axis=2, dtype=np.int64)
        per_position = [readers_at * (x > least).sum(axis=2, dtype=np.int64) for least in (0, 1)]
        yield synapse.name, [_whole(p.sum(axis=tuple(range(1, p.ndim)))) for p in per_position]


def _pointwise(graph: Graph, node: Node) -> bool:
    """A convolution of one tap at every position, all inputs to all outputs, that reads events of every step."""
    if not isinstance(node.op, Conv) or node.op.groups != 1 or not graph.input_types(node)[0].is_counts:
        return False
    axes = node.op.axes(graph.input_types(node)[0].shape, node.params["weight"])
    return node.type.timing is Timing.STEP and all(a == Axis(a.size, 1) for a in axes)


def _behind(operand: Operand, seen: np.ndarray, node: Node) -> np.ndarray:
    """``(T, B, ...)`` as the operand shows it, as ``(T, B, *shape)`` of the node it comes from."""
    if operand.view is None:
        return seen
    out = np.zeros((*seen.shape[:2], node.type.size), bool)
    order = operand.view.apply(np.arange(node.type.size).reshape(node.type.shape), lead=0)
    out[:, :, order.reshape(-1)] = seen.reshape(*seen.shape[:2], -1)
    return out.reshape(*seen.shape[:2], *node.type.shape)
