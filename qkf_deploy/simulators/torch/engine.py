"""The torch engine: a graph prepared for a device, then node after node over all time steps and a batch of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import Output
from qkf_deploy.ops.remember import Remembered
from qkf_deploy.passes.widths import proven
from qkf_deploy.simulators.carried import Carried, Whole
from qkf_deploy.simulators.counting import Account, CountedGraph
from qkf_deploy.simulators.run import Progress, Record, Run, is_neuron, last_uses
from qkf_deploy.simulators.torch.carriers import FLOAT32, FLOAT64
from qkf_deploy.simulators.torch.devices import Device
from qkf_deploy.simulators.torch.doubts import Judge
from qkf_deploy.simulators.torch.neurons import Fired, Past
from qkf_deploy.simulators.torch.operators import STEPS, by_numpy, neuron
from qkf_deploy.simulators.torch.screening import Screen, chains
from qkf_deploy.simulators.torch.setting import Setting, Step
from qkf_deploy.simulators.torch.values import DeviceArrays, Value

Replace = Callable[[str, np.ndarray], np.ndarray]


class Engine:
    """A graph ready to run: widths proven, parameters on the device in numbers that hold every sum.

    Args:
        graph: float or integer.
        device: from :func:`qkf_deploy.simulators.torch.devices.open_device`.
        single: float graphs in float32, which need not equal the reference.
        whole: of a stretch of a network's time steps.

    Raises:
        ProofError: stored widths are narrower than what the weights can reach.
    """

    def __init__(self, graph: Graph, device: Device, single: bool = False, whole: Whole | None = None) -> None:
        self.graph = graph
        widths = proven(graph) if whole is None else whole.widths
        self.setting = Setting(graph, widths, device, FLOAT32 if single else FLOAT64)
        self._host: type[Any] = np.int64 if self.setting.whole else np.float64
        self._neurons = {n.name: neuron(self.setting, n) for n in graph if is_neuron(n.op.kind)}
        self._steps = {n.name: self._step(n) for n in graph if n.name not in self._neurons and n.op.kind != "input"}
        self._judge = None if self.setting.whole or single else Judge(self.setting)
        found = chains(graph) if self._judge and whole is None else {}
        self._screens = {name: Screen(self.setting, chain) for name, chain in found.items()}
        roots = self._judge.roots if self._judge else {}
        self._last_use = last_uses(graph, roots)
        self._counted = CountedGraph(graph) if whole is None else whole.rules

    def _step(self, node: Node) -> Step:
        after_readout = node.type.timing is Timing.IMAGE and node.op.kind not in ("readout", "output")
        if node.op.kind not in STEPS or (after_readout and not self.setting.whole):
            return by_numpy(self.setting, node)
        return STEPS[node.op.kind](self.setting, node)

    def run(
        self,
        inputs: np.ndarray,
        record: Record,
        progress: Progress | None = None,
        replace: Replace | None = None,
        carried: Carried | None = None,
    ) -> Run:
        """Simulate a batch; see :func:`qkf_deploy.simulators.torch.run`."""
        graph = self.graph
        account = Account(self._counted, DeviceArrays(self._run_node), graph.time_steps)
        values: dict[str, Value] = {}
        kept: dict[str, np.ndarray] = {}
        membranes: dict[str, np.ndarray] = {}
        screens = _Screens(self._screens, record) if replace is None else _Screens({}, record)
        logits = raw = inputs
        for index, node in enumerate(graph):
            operands = [values[o.node].read(o.view) for o in node.inputs]
            if node.name in self._neurons:
                keep = node.name in record.membranes
                operands, fired = self._screened(screens, node, operands, values) or self._fire(
                    node, operands, values, keep, carried
                )
                value = fired.spikes
                if fired.charged is not None:
                    membranes[node.name] = fired.charged.cpu().numpy().astype(self._host)
            else:
                value = self._input(inputs) if node.op.kind == "input" else screens.drive(node, operands)
                value = value or self._steps[node.name](operands)
            values[node.name] = value if replace is None else self._replaced(node, value, replace)
            account.enter(node, operands, value)
            if node.name in record.values:
                kept[node.name] = inputs if node.op.kind == "input" else value.host(self._host)
            if isinstance(node.op, Output):
                raw = value.host(self._host)
                logits = node.op.logits(raw, node.params)
            for name in self._last_use.get(index, ()):
                del values[name]
            if progress is not None:
                progress(index + 1, len(graph.nodes))
        spikes = {k: v for k, v in kept.items() if is_neuron(graph[k].op.kind)}
        return Run(logits, raw, account.ledger(inputs.shape[1]), spikes, kept, membranes)

    def _fire(
        self, node: Node, operands: list[Value], values: Mapping[str, Value], keep: bool, carried: Carried | None
    ) -> tuple[list[Value], Fired]:
        neuron, steps = self._neurons[node.name], self.graph.time_steps
        if carried is not None:
            fired = neuron.run(operands[0], steps, keep, carried.membranes.get(node.name, Past()))
            carried.membranes[node.name] = fired.past
            if self._judge is not None and fired.doubtful is not None:
                carried.doubt(self._judge.doubtful(node, operands[0], fired.doubtful, values).cpu().numpy())
            return operands, fired
        fired = neuron.run(operands[0], steps, keep)
        if self._judge is None:
            return operands, fired
        drive, fired = self._judge.settle(node, operands[0], fired, values, keep)
        return [drive], fired

    def _screened(
        self, screens: _Screens, node: Node, operands: list[Value], values: dict[str, Value]
    ) -> tuple[list[Value], Fired] | None:
        """What a neuron did, found in float32; ``None`` where it does not, its drive being one of float64 then."""
        screen = screens.of_neuron.get(node.name)
        if screen is None or self._judge is None:
            return None
        synapse, pool = screen.chain.synapse, screen.chain.pool
        events = values[synapse.inputs[0].node].read(synapse.inputs[0].view)
        found = screen.fire(operands[0], events, self.graph.time_steps)
        if found is not None:
            drive, fired = self._judge.decide(node, *found, values, False)
            return [drive], fired
        drive = self._steps[synapse.name]([events])
        drive = drive if pool is None else self._steps[pool.name]([drive])
        operands[:] = [drive.read(node.inputs[0].view)]
        return None

    def _input(self, inputs: np.ndarray) -> Value:
        largest = max(abs(float(inputs.max(initial=0))), abs(float(inputs.min(initial=0))))
        node = self.graph.input
        dtype = self.setting.dtype(node)
        return self.setting.value(node, self.setting.put(inputs, dtype), largest)

    def _replaced(self, node: Node, value: Value, replace: Replace) -> Value:
        given = value.host(self._host)
        new = replace(node.name, given)
        if new is given:
            return value
        largest = float(np.abs(new).max(initial=0))
        return self.setting.value(node, self.setting.put(new, value.tensor.dtype), largest)

    def _run_node(self, node: Node, inputs: Sequence[Value]) -> Value:
        """An operator of the folded graph on values of the one that runs."""
        return STEPS[node.op.kind](self.setting, node)(inputs)


class _Screens:
    """The chains of a run that go through float32: those whose drives and membranes nobody wants to see."""

    def __init__(self, screens: Mapping[str, Screen], record: Record) -> None:
        seen = record.membranes | record.values
        wanted = {n: s for n, s in screens.items() if not (s.chain.names - {n}) & seen and n not in record.membranes}
        self.of_neuron = dict(wanted)
        self._of_synapse = {s.chain.synapse.name: s for s in wanted.values()}

    def drive(self, node: Node, operands: Sequence[Value]) -> Value | None:
        """The drive that a convolution gives; ``None`` where float64 has to."""
        screen = self._of_synapse.get(node.name)
        drive = None if screen is None else screen.drive(operands[0])
        if screen is not None and drive is None:
            del self.of_neuron[screen.chain.neuron.name]
        return drive


_ENGINES = Remembered[Engine](most=4)


def engine_for(graph: Graph, device: Device, single: bool, whole: Whole | None = None) -> Engine:
    """The engine of a graph; the last few are kept, so that widths are proven and weights copied once."""
    return _ENGINES.get(graph, (str(device.torch), single), lambda: Engine(graph, device, single, whole))
