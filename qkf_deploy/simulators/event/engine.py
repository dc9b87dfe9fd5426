"""The event engine: layer by layer over all time steps, image by image, on any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import LayerRecord, Ledger
from qkf_deploy.ops import Output
from qkf_deploy.ops.remember import Remembered
from qkf_deploy.passes.widths import proven
from qkf_deploy.simulators.carried import Carried, Whole
from qkf_deploy.simulators.counting import layer_record
from qkf_deploy.simulators.event import ahead, cpu, proofs
from qkf_deploy.simulators.event.context import Image
from qkf_deploy.simulators.event.kernels import compiling
from qkf_deploy.simulators.event.plan import Plan, Planner
from qkf_deploy.simulators.event.steps import GeneralStep, needs_whole_batch
from qkf_deploy.simulators.event.values import Plain, Value, to_stream
from qkf_deploy.simulators.event.work import Ranges
from qkf_deploy.simulators.run import Progress, Record, Run, is_neuron

#: Ranges per thread when one image is divided: small enough to balance, large enough to keep weights in cache.
_RANGES_PER_THREAD = 4
#: Images that take each step together, so that large weights are read from memory once for all of them.
_TOGETHER = 4
_NOTHING = Record()


class Engine:
    """A network ready to run: widths proven, steps planned, weights packed on first use.

    Args:
        graph: integer graph (float graphs run through the operators' own semantics).
        record: what to keep.
        tier: forces a tier, see :func:`qkf_deploy.simulators.event.cpu.select`, or an instruction set as it is (for
            measurements).
        whole: of a stretch of a network's time steps.

    Raises:
        ProofError: the graph's stored widths are narrower than what its weights can reach.
        UsageError: an unknown or unavailable tier.
    """

    def __init__(
        self, graph: Graph, record: Record = _NOTHING, tier: str | cpu.Isa | None = None, whole: Whole | None = None
    ) -> None:
        self.graph, self.record = graph, record
        self.isa = tier if isinstance(tier, cpu.Isa) else cpu.select(tier)
        compiling.announce(self.isa.name)
        widths = proven(graph) if whole is None else whole.widths
        self.plan: Plan = Planner(graph, widths, record, self.isa, carries=whole is not None).plan()
        self._compiled = False
        self._given, self._wanted = graph.input, graph.output
        self._whole_batch = any(needs_whole_batch(step) for step in self.plan.steps)
        kept = {*record.values, self._wanted.name}
        self._kept = [[n.name for n in step.nodes if n.name in kept] for step in self.plan.steps]
        # What a ledger says of a node apart from its counts does not change from run to run.
        self._records = {n.name: layer_record(graph, n, {}, None) for n in graph if n.op.kind != "input"}

    def run(
        self,
        inputs: np.ndarray,
        progress: Progress | None = None,
        threads: int = 1,
        carried: Carried | None = None,
    ) -> Run:
        """Simulate a batch; see :func:`run`."""
        if threads < 1:
            raise UsageError(f"threads: {threads}", hint="use 1 or more")
        if not self._compiled:
            ahead.compile_missing(self.graph, self.plan, self.isa)
            self._compiled = True
        counter = _Counter(progress, inputs.shape[1] * (len(self.graph.nodes) - 1))
        given = _Given.of(inputs, carried)
        if threads == 1:
            images = self._batch(given, range(inputs.shape[1]), _whole, counter)
        else:
            with ThreadPoolExecutor(threads) as pool:
                images = self._on_threads(given, pool, threads, counter)
        if carried is not None:
            carried.membranes = given.membranes()
        return self._result(images)

    def _on_threads(self, given: _Given, pool: ThreadPoolExecutor, threads: int, counter: _Counter) -> list[Image]:
        """As many images for every thread while there are enough; the rest are divided within each layer."""
        batch = given.inputs.shape[1]
        each = 0 if self._whole_batch else batch // threads
        shares = [range(first, first + each) for first in range(0, each * threads, max(each, 1))]
        groups = [group for share in shares for group in self._groups(share)]
        tasks = [pool.submit(self._in_lockstep, given, group, _whole, counter) for group in groups]
        images = [image for task in tasks for image in task.result()]
        return images + self._batch(given, range(each * threads, batch), _divider(pool, threads), counter)

    def _batch(self, given: _Given, which: range, ranges: Ranges, counter: _Counter) -> list[Image]:
        return [i for group in self._groups(which) for i in self._in_lockstep(given, group, ranges, counter)]

    def _groups(self, which: range) -> list[range]:
        """Images that take every step together."""
        size = max(len(which), 1) if self._whole_batch else _TOGETHER
        return [which[i : i + size] for i in range(0, len(which), size)]

    def _in_lockstep(self, given: _Given, which: range, ranges: Ranges, counter: _Counter) -> list[Image]:
        images = [Image(self.graph, self.isa, ranges, states=given.states[b]) for b in which]
        for image, b in zip(images, which, strict=True):
            image.values[self._given.name] = self._input(given.inputs[:, b : b + 1])
        for index, step in enumerate(self.plan.steps):
            if isinstance(step, GeneralStep):
                step.run_batch(images)
            else:
                for image in images:
                    step.run(image)
            for image in images:
                for name in self._kept[index]:
                    image.kept[name] = image.plain(name)
                for name in self.plan.last_use.get(index, ()):
                    image.values.pop(name, None)
            counter.advance(len(step.nodes) * len(images))
        return images

    def _input(self, x: np.ndarray) -> Value:
        type_ = self._given.type
        if type_.is_counts and self.graph.arithmetic == "integer" and int(x.max(initial=0)) <= proofs.LARGEST_COUNT:
            return to_stream(x, type_.shape[0], type_.high, self.graph.time_steps)
        return Plain(x)

    def _result(self, images: Sequence[Image]) -> Run:
        output = self._wanted
        raw = np.concatenate([i.kept[output.name] for i in images], axis=1)
        logits = output.op.logits(raw, output.params) if isinstance(output.op, Output) else raw
        kept = {
            n: np.concatenate([i.kept[n] for i in images], axis=1) for n in self.graph.nodes if n in self.record.values
        }
        membranes = {
            n: np.concatenate([i.membranes[n] for i in images], axis=1)
            for n in self.graph.nodes
            if n in self.record.membranes
        }
        spikes = {n: v for n, v in kept.items() if is_neuron(self.graph[n].op.kind)}
        return Run(logits, raw, self._ledger(images), spikes, kept, membranes)

    def _ledger(self, images: Sequence[Image]) -> Ledger:
        names = {name: tuple(images[0].counts[name]) for name in self._records}
        every = [[i.counts[name][n] for name, of_node in names.items() for n in of_node] for i in images]
        # One table for all counts: an array per count would take as long as a small layer.
        columns = iter(np.ascontiguousarray(np.array(every, np.int64).T))
        layers: list[LayerRecord] = []
        for name, record in self._records.items():
            counts = dict(zip(names[name], columns, strict=False))
            known = [s for s in (i.spikes_per_step[name] for i in images) if s is not None]
            layers.append(record.with_counts(counts, np.array(known).T if known else None))
        g = self.graph
        return Ledger(g.time_steps, len(images), g.arithmetic, g.input_encoding, tuple(layers), g.provenance)


@dataclass(frozen=True)
class _Given:
    """What a batch starts from: inputs ``(T or 1, B, *shape)``, and in a stretch the membranes of each image."""

    inputs: np.ndarray
    states: list[dict[str, np.ndarray] | None]

    @staticmethod
    def of(inputs: np.ndarray, carried: Carried | None) -> _Given:
        images = range(inputs.shape[1])
        if carried is None:
            return _Given(inputs, [None for _ in images])
        return _Given(inputs, [{n: m[b : b + 1] for n, m in carried.membranes.items()} for b in images])

    def membranes(self) -> dict[str, np.ndarray]:
        """Those that the images have left, ``(B, *shape)`` each."""
        states = [state for state in self.states if state is not None]
        return {name: np.concatenate([state[name] for state in states]) for name in states[0]}


def _whole(n: int, task: Callable[[int, int], Any], least: int = 1) -> list[Any]:
    return [task(0, n)]


def _divider(pool: ThreadPoolExecutor, threads: int) -> Ranges:
    def ranges(n: int, task: Callable[[int, int], Any], least: int = 16) -> list[Any]:
        parts = max(1, min(threads * _RANGES_PER_THREAD, n // least))
        edges = [n * i // parts for i in range(parts + 1)]
        return list(pool.map(task, edges[:-1], edges[1:]))

    return ranges


class _Counter:
    """Progress over all images, called from several threads."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()

    def advance(self, nodes: int) -> None:
        if self._progress is None:
            return
        with self._lock:
            self._done += nodes
            self._progress(self._done, self._total)


_ENGINES = Remembered[Engine](most=4)


def engine_for(graph: Graph, record: Record = _NOTHING, tier: str | None = None, whole: Whole | None = None) -> Engine:
    """The engine of a graph; the last few are kept, so that weights are packed once."""
    return _ENGINES.get(graph, (record, cpu.select(tier).name), lambda: Engine(graph, record, tier, whole))
