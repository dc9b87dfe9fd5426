"""Operators one time step at a time, and what is counted and kept meanwhile. Knows nothing of Lava.

A Lava process sends one message per port and time step, so every value has to exist at every step:

- a value that is constant over time is computed at the first step of an image and sent again at the others;
- a value that exists once per image (after the readout) is zero until the last step of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph, Node, Operator, Params, Timing, ValueType, View
from qkf_deploy.ledger import LayerRecord
from qkf_deploy.ops import IntegerNeuron, Readout
from qkf_deploy.ops.membrane import initial_state
from qkf_deploy.simulators.counting import layer_record, node_counts


@dataclass(frozen=True)
class Step:
    """What one operator did in one time step; int64 arrays of per-step shapes.

    Attributes:
        operands: what it read, views applied.
        value: what it gave.
        membrane: charged membrane potential U (neurons only).
        state: membrane after firing and reset (neurons only).
    """

    operands: tuple[np.ndarray, ...]
    value: np.ndarray
    membrane: np.ndarray | None = None
    state: np.ndarray | None = None


class Stepper:
    """One operator, called once per time step; over the T steps of an image it equals ``op.run``.

    Args:
        op: an operator of integer graphs.
        params: its parameters. Arrays may change between images.
        type_: type of the output.
        views: how each operand is read.
        time_steps: T; state is cleared at every T-th call.
    """

    def __init__(
        self, op: Operator, params: Params, type_: ValueType, views: Sequence[View | None], time_steps: int
    ) -> None:
        self.op = op
        self.params = params
        self.type = type_
        self.views = tuple(views)
        self.time_steps = time_steps
        self.time = 0
        self._constant: np.ndarray | None = None

    def step(self, received: Sequence[np.ndarray]) -> Step:
        """Advance by one time step.

        Args:
            received: values as the source nodes sent them, int64, views not applied.
        """
        pairs = zip(received, self.views, strict=True)
        operands = tuple(x if view is None else view.apply(x, lead=0) for x, view in pairs)
        if self.time == 0:
            self._reset()
        result = self._step(operands)
        self.time = (self.time + 1) % self.time_steps
        return result

    @property
    def last(self) -> bool:
        """True before the call for the last step of an image."""
        return self.time == self.time_steps - 1

    def _reset(self) -> None:
        self._constant = None

    def _step(self, operands: tuple[np.ndarray, ...]) -> Step:
        timing = self.type.timing
        if timing is Timing.IMAGE and not self.last:
            return Step(operands, np.zeros(self.type.shape, np.int64))
        if timing is Timing.CONSTANT and self._constant is not None:
            return Step(operands, self._constant)
        value = self.op.run([x[None, None] for x in operands], self.params, 1)[0, 0].astype(np.int64, copy=False)
        self._constant = value
        return Step(operands, value)


class NeuronStepper(Stepper):
    """A neuron: its state lives from step to step and starts anew (or from a stored leftover) with every image."""

    def _reset(self) -> None:
        self.state = initial_state(self.params, self.type.shape, np.int64)

    def _step(self, operands: tuple[np.ndarray, ...]) -> Step:
        op = self.op
        if not isinstance(op, IntegerNeuron):
            raise InputError(f"{op.kind} is not an integer neuron", hint="quantize the graph first")
        state = self.params["leftover"][self.time].astype(np.int64) if op.carry == "stored" else self.state
        charged, self.state = op.step(state, operands[0], self.params)
        return Step(operands, op.spikes(charged, self.params), charged, self.state)


class ReadoutStepper(Stepper):
    """The sum over the time steps of an image: zeros until it is complete."""

    def _reset(self) -> None:
        self.total = np.zeros(self.type.shape, np.int64)

    def _step(self, operands: tuple[np.ndarray, ...]) -> Step:
        weight = self.op.of_steps(self.time_steps, np.dtype(np.int64))[self.time] if isinstance(self.op, Readout) else 1
        self.total = self.total + weight * operands[0]
        return Step(operands, self.total if self.last else np.zeros_like(self.total))


def stepper(op: Operator, params: Params, type_: ValueType, views: Sequence[View | None], time_steps: int) -> Stepper:
    """The stepper of an operator; arguments as of :class:`Stepper`."""
    kinds: dict[type[Operator], type[Stepper]] = {IntegerNeuron: NeuronStepper, Readout: ReadoutStepper}
    return kinds.get(type(op), Stepper)(op, params, type_, views, time_steps)


def node_stepper(graph: Graph, node: Node) -> Stepper:
    """The stepper of a node."""
    return stepper(node.op, node.params, node.type, [o.view for o in node.inputs], graph.time_steps)


#: Array elements (8 bytes each) a probe holds before it counts; counting many images at once costs less per image.
_HELD_ELEMENTS = 1_000_000


class _Track:
    """The steps of one value that its timing makes distinct, image after image."""

    def __init__(self, timing: Timing, time_steps: int) -> None:
        kept = {Timing.STEP: range(time_steps), Timing.CONSTANT: range(1), Timing.IMAGE: range(time_steps)[-1:]}
        self.steps = kept[timing]
        self.parts: list[np.ndarray] = []

    def add(self, time: int, x: np.ndarray) -> None:
        if time in self.steps:
            self.parts.append(x)

    def take(self) -> np.ndarray:
        """``(T or 1, B, *shape)`` of the images since the last call."""
        parts, self.parts = self.parts, []
        stacked = np.stack(parts).reshape(-1, len(self.steps), *parts[0].shape)
        return np.ascontiguousarray(stacked.swapaxes(0, 1))


class Probe:
    """Counts one node and keeps what was asked for, a few images at a time.

    Args:
        graph: the integer graph.
        node: one of its nodes, not the input.
        value: keep the output.
        membrane: keep the charged membrane potential.
        images: number of images; after the last one everything is written.
        path: npz file to write.
    """

    def __init__(self, graph: Graph, node: Node, *, value: bool, membrane: bool, images: int, path: Path) -> None:
        self.graph = graph
        self.node = node
        self.missing = images
        self.path = path
        self.time = 0
        steps = graph.time_steps
        types = graph.input_types(node)
        self._together = max(1, _HELD_ELEMENTS // (steps * sum(t.size for t in (*types, node.type))))
        self._operands = [_Track(t.timing, steps) for t in types]
        self._value = _Track(node.type.timing, steps)
        self._membrane = _Track(Timing.STEP, steps)
        self._keep = {"value": value, "membrane": membrane}
        self._parts: dict[str, list[np.ndarray]] = {}

    def observe(self, step: Step) -> None:
        """Take in one time step; count whenever enough images are complete, write after the last one."""
        for track, operand in zip(self._operands, step.operands, strict=True):
            track.add(self.time, operand)
        self._value.add(self.time, step.value)
        if self._keep["membrane"] and step.membrane is not None:
            self._membrane.add(self.time, step.membrane)
        self.time = (self.time + 1) % self.graph.time_steps
        if self.time > 0:
            return
        self.missing -= 1
        if self.missing % self._together == 0:
            self._count()
        if self.missing == 0:
            self._save()

    def _count(self) -> None:
        value = self._value.take()
        counts, spikes = node_counts(self.graph, self.node, [o.take() for o in self._operands], value)
        for name, count in counts.items():
            self._append(f"count.{name}", count)
        if spikes is not None:
            self._append("spikes_per_step", spikes)
        if self._keep["value"]:
            self._append("value", value)
        if self._keep["membrane"]:
            self._append("membrane", self._membrane.take())

    def _append(self, name: str, array: np.ndarray) -> None:
        self._parts.setdefault(name, []).append(array)

    def _save(self) -> None:
        arrays = {k: np.concatenate(v, axis=0 if k.startswith("count.") else 1) for k, v in self._parts.items()}
        np.savez(self.path, **arrays)  # type: ignore[arg-type]  # stubs take the arrays for a flag


def read_probe(graph: Graph, node: Node, arrays: Mapping[str, np.ndarray]) -> LayerRecord:
    """The ledger record of a node from what its probe saved."""
    counts = {k.removeprefix("count."): v for k, v in arrays.items() if k.startswith("count.")}
    return layer_record(graph, node, counts, arrays.get("spikes_per_step"))
