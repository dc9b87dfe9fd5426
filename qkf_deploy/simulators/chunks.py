"""Many time steps in little memory: a few steps at a time, membranes carried on, and an answer after every step.

What is kept of a network does not grow with T: the values of one chunk of steps, a membrane per neuron, the sums over
time. Each operator runs through its own numpy semantics, so the last answer is that of the reference engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import Output, Readout
from qkf_deploy.ops.membrane import SpikingNeuron
from qkf_deploy.passes.steps import means_over_time
from qkf_deploy.simulators.carried import charged, of_steps

#: Called with (steps done, steps in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Answers:
    """What a network answers after each of its time steps.

    Attributes:
        logits: of the last step, ``(B, *shape)``.
        raw_output: of the last step, ``(1, B, *shape)``: what the reference engine gives.
        largest: index of the largest class logit after every step, int64 ``(T, B)``.
    """

    logits: np.ndarray
    raw_output: np.ndarray
    largest: np.ndarray


def run(graph: Graph, inputs: np.ndarray, chunk: int = 16, progress: Progress | None = None) -> Answers:
    """Run a network chunk by chunk.

    After t of T steps a sum over time has t of its terms; a mean is taken over those t.

    Args:
        graph: float or integer, with a readout.
        inputs: encoded as for :func:`qkf_deploy.simulators.reference.run`.
        chunk: steps at a time.
        progress: called after each chunk.

    Raises:
        UnsupportedError: no readout, no output that is one number per class, membranes that are carried from image to
            image, or a network whose steps do not come one after the other (attention over time).
    """
    walk = _Walk(graph, inputs)
    largest: list[np.ndarray] = []
    raw = logits = inputs
    for start in range(0, graph.time_steps, chunk):
        stop = min(start + chunk, graph.time_steps)
        raw, logits = walk.advance(start, stop)
        largest.append(logits.reshape(*logits.shape[:2], -1)[..., walk.classes].argmax(axis=-1))
        if progress is not None:
            progress(stop, graph.time_steps)
    return Answers(logits[-1], raw[-1:], np.concatenate(largest))


class _Walk:
    """A network between two chunks."""

    def __init__(self, graph: Graph, inputs: np.ndarray) -> None:
        self.graph, self.inputs = graph, inputs
        self.before = [n for n in graph if n.type.timing is not Timing.IMAGE]
        self.after = [n for n in graph if n.type.timing is Timing.IMAGE]
        _check(graph, self.before)
        self.means = means_over_time(graph, self.after)
        classes = graph.classes
        if classes is None:
            raise UnsupportedError("no output is one number per class: there are no answers", where=graph.output.name)
        self.classes = slice(classes.start, classes.start + classes.size)
        self.states: dict[str, np.ndarray] = {}
        self.totals: dict[str, np.ndarray] = {}
        self.constant: dict[str, np.ndarray] = {}

    def advance(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Raw output and logits after each of these steps, ``(steps, B, *shape)``."""
        values = dict(self.constant)
        for node in self.before:
            if node.name not in values:
                values[node.name] = self._step_value(node, values, start, stop)
            if node.type.timing is Timing.CONSTANT:
                self.constant[node.name] = values[node.name]
        sums = {node.name: self._sum(node, values, start, stop) for node in self.after if isinstance(node.op, Readout)}
        raw = real = self._behind(sums)
        if self.means:
            parts = self.graph.time_steps / np.arange(start + 1, stop + 1)
            scaled = {
                name: value * parts.reshape(-1, *[1] * (value.ndim - 1)) if name in self.means else value
                for name, value in sums.items()
            }
            real = self._behind(scaled)
        return raw, real * self.graph.output.params.get("scale", np.ones(1))

    def _step_value(self, node: Node, values: Mapping[str, np.ndarray], start: int, stop: int) -> np.ndarray:
        if node.op.kind == "input":
            return self.inputs if len(self.inputs) == 1 else self.inputs[start:stop]
        operands = _operands(node, values)
        if not isinstance(node.op, SpikingNeuron):
            return node.op.run(operands, node.params, stop - start)
        part = of_steps(node, start, stop)
        return node.op.spikes(charged(part, node.op, operands, stop - start, self.states), node.params)

    def _sum(self, node: Node, values: Mapping[str, np.ndarray], start: int, stop: int) -> np.ndarray:
        """The sum over time after each of these steps."""
        (x,) = _operands(node, values)
        x = np.broadcast_to(x, (stop - start, *x.shape[1:]))
        if isinstance(node.op, Readout) and node.op.weights:
            x = x * node.op.of_steps(self.graph.time_steps, x.dtype)[start:stop].reshape(-1, *[1] * (x.ndim - 1))
        total = self.totals.get(node.name, np.zeros_like(x[0])) + np.cumsum(x, axis=0)
        self.totals[node.name] = total[-1]
        return total

    def _behind(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output node's value, the steps where T was."""
        values = dict(sums)
        for node in self.after:
            if node.name not in values:
                values[node.name] = node.op.run(_operands(node, values), node.params, 1)
        return values[self.graph.output.name]


def _operands(node: Node, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [values[o.node] if o.view is None else o.view.apply(values[o.node]) for o in node.inputs]


def _check(graph: Graph, before: list[Node]) -> None:
    if not isinstance(graph.output.op, Output) or graph.output.type.timing is not Timing.IMAGE:
        raise UnsupportedError("a network without a readout has one answer per step already", where=graph.output.name)
    for node in before:
        if getattr(node.op, "carry", "own") == "official":
            raise UnsupportedError("its membrane goes from image to image, over all time steps", where=node.name)
        if node.op.steps_awaited > 1:
            raise UnsupportedError("attention over time needs all of its steps at once", where=node.name)
