"""Networks of many time steps, a stretch of them at a time: what is held of a network does not grow with T.

An engine runs the layers in front of the sums over time on a stretch of steps, from the membranes that the last stretch
left. Counts and sums over time add up; what does not change with time, and what stands behind the sums, runs once. Each
number is added in the order in which all steps at once add it, so every bit of the result is theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.values import Timing
from qkf_deploy.ledger import Ledger
from qkf_deploy.ops import IntegerNeuron, Output, Readout
from qkf_deploy.passes.carry import chained
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.carried import Carried, Whole, of_steps
from qkf_deploy.simulators.counting import Account, NodeCounts
from qkf_deploy.simulators.run import Progress, Record, Run, is_neuron
from qkf_deploy.simulators.streamed import Streamed, StreamedArrays

#: Time steps that run as a whole, and those of a stretch of more.
AT_ONCE, STRETCH = 64, 32
#: Likewise as a whole, where kernels hold the membranes: to hand them on takes several times as long.
_IN_KERNELS = 256

#: Runs a stretch: its graph, its inputs, what to keep, the membranes.
Engine = Callable[[Graph, np.ndarray, Record, Carried], Run]


def length(graph: Graph, *, in_kernels: bool = False) -> int:
    """Time steps of a stretch: all where they are few, or where the network cannot be cut or has nothing to cut.

    Args:
        graph: what runs.
        in_kernels: the engine has kernels that hold the membranes of common neurons.
    """
    steps = graph.time_steps
    neurons = [(n.op, n.params) for n in graph if isinstance(n.op, IntegerNeuron)]
    common = in_kernels and all(op.plain(params) and "initial" not in params for op, params in neurons)
    changes = any(n.type.timing is Timing.STEP for n in graph)
    if steps <= (_IN_KERNELS if common else AT_ONCE) or why_whole(graph) is not None or not changes:
        return steps
    awaited = math.lcm(*(node.op.steps_awaited for node in graph))
    return STRETCH // awaited * awaited


def why_whole(graph: Graph) -> str | None:
    """Why a network needs all of its time steps at once; ``None`` where it does not."""
    if chained(graph):
        return "membranes go from image to image, over all time steps"
    if math.lcm(*(node.op.steps_awaited for node in graph)) > STRETCH:
        return "attention over time needs all of its steps at once"
    return None


class Stretches:
    """A network cut into stretches of its time steps.

    Args:
        graph: float or integer; no membrane goes from image to image.
        steps: of a stretch, a multiple of what any node awaits.
    """

    def __init__(self, graph: Graph, steps: int) -> None:
        self.graph, self.steps = graph, steps
        self.whole = Whole.of(graph)
        self.before = [n for n in graph if n.type.timing is not Timing.IMAGE]
        self.readouts = [n for n in graph if isinstance(n.op, Readout) and self._reads_steps(n)]
        self._stored = any("leftover" in n.params for n in self.before)
        self._graphs: dict[tuple[int, int], Graph] = {}

    def _reads_steps(self, node: Node) -> bool:
        return self.graph[node.inputs[0].node].type.timing is Timing.STEP

    def run(self, engine: Engine, inputs: np.ndarray, record: Record, progress: Progress | None = None) -> Run:
        """What the engine gives for all steps at once; ``progress`` is called with (steps done, steps in all)."""
        steps, carried, sums = self.graph.time_steps, Carried(self.whole), _Sums(self, record)
        read = {n.inputs[0].node for n in self.readouts[1:]}
        kept = Record(record.seen.values & {n.name for n in self.before} | read, record.membranes)
        for start in range(0, steps, self.steps):
            stop = min(start + self.steps, steps)
            some = inputs if len(inputs) == 1 else inputs[start:stop]
            sums.add(start, engine(self._graph(start, stop), some, kept, carried))
            if progress is not None:
                progress(stop, steps)
        return self._settled(sums.result(inputs), carried.doubtful, inputs, record)

    def _settled(self, run: Run, doubtful: np.ndarray | None, inputs: np.ndarray, record: Record) -> Run:
        """The run; images in which rounding could have decided a spike are run by the reference engine again."""
        if doubtful is None or not doubtful.any():
            return run
        images = np.flatnonzero(doubtful)
        again = self.run(_by_reference, inputs[:, images], record)
        return _exchanged(run, images, again)

    def _graph(self, start: int, stop: int) -> Graph:
        """What runs of a stretch. Stretches of one length share it, unless every step has parameters of its own."""
        key = (start if self._stored else 0, stop - start)
        found = self._graphs.get(key)
        if found is None:
            found = self._cut(start, stop)
            self._graphs = {key: found} if self._stored else {**self._graphs, key: found}
        return found

    def _cut(self, start: int, stop: int) -> Graph:
        nodes = {n.name: of_steps(n, start, stop) for n in self.before}
        if self.readouts:  # what the first of them reads takes the output's place
            (operand,), name = self.readouts[0].inputs, f"{self.graph.output.name}/step"
            nodes[name] = Node(name, Output(), (operand,), self.graph.operand_type(operand))
        return replace(self.graph, nodes=nodes, time_steps=stop - start)


def _by_reference(graph: Graph, inputs: np.ndarray, record: Record, carried: Carried) -> Run:
    return reference.run(graph, inputs, record, carried=carried)


def _exchanged(run: Run, images: np.ndarray, other: Run) -> Run:
    """The run with some images as another run of them has them."""

    def of(axis: int, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        out = old.copy()
        out.swapaxes(0, axis)[images] = new.swapaxes(0, axis)
        return out

    def each(old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: of(x.ndim > 1, x, new[name]) for name, x in old.items()}

    layers = tuple(
        a.with_counts(
            each(a.counts, b.counts),
            None
            if a.spikes_per_step is None or b.spikes_per_step is None
            else of(1, a.spikes_per_step, b.spikes_per_step),
        )
        for a, b in zip(run.ledger, other.ledger, strict=True)
    )
    return replace(
        run,
        logits=of(run.logits.ndim == run.raw_output.ndim, run.logits, other.logits),
        raw_output=of(1, run.raw_output, other.raw_output),
        ledger=replace(run.ledger, layers=layers),
        spikes=each(run.spikes, other.spikes),
        values=each(run.values, other.values),
        membranes=each(run.membranes, other.membranes),
        fired={name: of(0, x, other.fired[name]) for name, x in run.fired.items()},
    )


class _Sums:
    """What is known of a batch after some stretches."""

    def __init__(self, cut: Stretches, record: Record) -> None:
        self._graph, self._rules, self._record = cut.graph, cut.whole.rules, record
        self._readouts = cut.readouts
        self._counted = {n.name: self._as_counted(n) for n in cut.readouts}
        self._totals = {name: counted.undivided() for name, counted in self._counted.items()}
        self._layers: dict[str, list[NodeCounts]] = {}
        self._raw: list[np.ndarray] = []
        self._values: dict[str, list[np.ndarray]] = {}
        self._membranes: dict[str, list[np.ndarray]] = {}
        self._fired: dict[str, np.ndarray] = {}
        self._notices: dict[str, None] = {}

    def _as_counted(self, node: Node) -> Streamed:
        """What a readout reads in the graph that is counted, divided by what folding moved."""
        rules = self._rules
        counted = rules.graph[node.name]
        divisor = rules.graph.input_factors(counted)[0] / rules.given.input_factors(node)[0]
        return Streamed(counted.op, self._graph.time_steps, rules.graph.input_types(counted)[0], float(divisor))

    def add(self, start: int, run: Run) -> None:
        """One more stretch."""
        if not self._readouts:
            self._raw.append(run.raw_output)
        for index, node in enumerate(self._readouts):
            x, view = (run.values[node.inputs[0].node], node.inputs[0].view) if index else (run.raw_output, None)
            x = x if view is None else view.apply(x)
            for streamed in {self._totals[node.name], self._counted[node.name]}:
                streamed.add(x, start)
        for layer in run.ledger:
            if layer.name in self._rules.records and self._rules.graph[layer.name].type.timing is Timing.STEP:
                self._layers.setdefault(layer.name, []).append((dict(layer.counts), layer.spikes_per_step))
        for kept, found in ((self._values, run.values), (self._membranes, run.membranes)):
            for name, x in found.items():
                if name in self._record.values or kept is self._membranes:
                    kept.setdefault(name, []).append(x)
        for name in self._record.fired:
            steps = np.count_nonzero(run.values[name], axis=0)
            self._fired[name] = self._fired[name] + steps if name in self._fired else steps
        self._notices.update(dict.fromkeys(run.notices))

    def result(self, inputs: np.ndarray) -> Run:
        """The run of all stretches."""
        graph, output = self._graph, self._graph.output
        account, once = self._once(inputs)
        raw = once[output.name] if output.name in once else np.concatenate(self._raw)
        logits = output.op.logits(raw, output.params) if isinstance(output.op, Output) else raw
        values = {
            n: once[n] if n in once else np.concatenate(self._values[n])
            for n in graph.nodes
            if n in self._record.values
        }
        membranes = {n: np.concatenate(self._membranes[n]) for n in graph.nodes if n in self._membranes}
        spikes = {n: v for n, v in values.items() if is_neuron(graph[n].op.kind)}
        ledger = self._ledger(account.ledger(inputs.shape[1]))
        return Run(logits, raw, ledger, spikes, values, membranes, self._fired, tuple(self._notices))

    def _once(self, inputs: np.ndarray) -> tuple[Account, dict[str, np.ndarray]]:
        """What is one for all steps: constants, and the values behind the sums over time."""
        graph, account = self._graph, Account(self._rules, StreamedArrays())
        values: dict[str, np.ndarray] = {}
        for node in graph:
            if node.type.timing is Timing.STEP:
                continue
            operands: Sequence[object]
            if node.name in self._totals:
                operands, value = [self._counted[node.name]], self._totals[node.name].over_time
            else:
                operands = seen = [
                    values[o.node] if o.view is None else o.view.apply(values[o.node]) for o in node.inputs
                ]
                value = inputs if node.op.kind == "input" else node.op.run(seen, node.params, graph.time_steps)
            values[node.name] = value
            account.enter(node, operands, value)
        return account, values

    def _ledger(self, once: Ledger) -> Ledger:
        """All layers, in the order of the network."""
        found = {layer.name: layer for layer in once}
        for name, parts in self._layers.items():
            found[name] = self._rules.records[name].with_counts(*_total(parts))
        return replace(once, layers=tuple(found[name] for name in self._rules.graph.nodes if name in found))


def _total(parts: Sequence[NodeCounts]) -> NodeCounts:
    """Counts of several stretches together."""
    counts = {name: np.sum([part[name] for part, _ in parts], axis=0) for name in parts[0][0]}
    steps = [spikes for _, spikes in parts if spikes is not None]
    return counts, np.concatenate(steps) if steps else None
