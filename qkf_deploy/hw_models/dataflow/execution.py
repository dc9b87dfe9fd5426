"""Operations and accesses of a unit under a plan, from what was measured at each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from qkf_deploy.hw_models.activity import Activity
from qkf_deploy.hw_models.architecture.chip import Buffer, Chip, Core
from qkf_deploy.hw_models.dataflow.homes import Way, way
from qkf_deploy.hw_models.dataflow.layer import Layer, Synapse
from qkf_deploy.hw_models.dataflow.plan import OVER_TIME, Plan
from qkf_deploy.hw_models.work import Accesses, Place, StepWork, UnitWork
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.values import Kind, Timing
from qkf_deploy.ops import MatMul

#: Classes of the ledger that are operations of a core, whatever the dataflow.
_FIXED: Mapping[str, str] = {
    "mac": "multiply",
    "bias_adds": "accumulate",
    "attention_sum_adds_graded": "accumulate",
    "pool_adds_unary": "accumulate",
    "pool_comparisons": "compare",
    "scale_multiplies": "multiply",
    "head_adds_graded": "accumulate",
    "head_macs": "multiply",
    "gate_ands": "and",
    "neuron_updates_driven": "neuron_driven",
    "resets": "neuron_fire",
}


@dataclass(frozen=True)
class Setting:
    """What all units of a network have in common.

    Attributes:
        graph, activity: the network and what it did.
        chip: where.
        weight_bits: of the whole network.
        routing: nodes outside units (additions and gates of events) by the unit that executes them.
    """

    graph: Graph
    activity: Activity
    chip: Chip
    weight_bits: int
    routing: Mapping[str, tuple[str, ...]]


class Execution:
    """One unit on cores of one kind; :meth:`work` counts it under a plan."""

    def __init__(self, setting: Setting, layer: Layer, core: Core, cores: int) -> None:
        self.setting, self.layer, self.core, self.cores = setting, layer, core, cores
        self.images, self.steps = setting.activity.images, setting.activity.time_steps
        self.resident = setting.chip.execution == "resident"
        names = (*layer.unit.nodes, *setting.routing.get(layer.unit.name, ()))
        self.nodes = [setting.graph[name] for name in names]
        self.weights = way(setting.chip, core, "weights", setting.weight_bits)

    def work(self, plan: Plan) -> UnitWork:
        """Everything the unit does."""
        steps = tuple(self._step(plan, t) for t in range(self.steps))
        layer = self.layer.unit.name
        return UnitWork(layer, self.core.kind, self.cores, plan.dataflow, plan.bands, plan.groups, plan.repeated, steps)

    def _step(self, plan: Plan, t: int) -> StepWork:
        tally = _Tally(self.core)
        for node in self.nodes:
            self._fixed(tally, node, t)
        for synapse in self.layer.synapses:
            self._synapse(tally, synapse, plan, t)
        self._state(tally, plan, t)
        self._events(tally, plan, t)
        return StepWork(dict(tally.operations), tally.accesses, self._busiest(plan, t))

    def _fixed(self, tally: _Tally, node: Node, t: int) -> None:
        found = self.setting.activity.nodes[node.name]
        for name, operation in _FIXED.items():
            counted = name if name in found.counts else name.replace("graded", "unary")  # drives have no events
            tally.add(operation, found.at(counted, t), node.op.kind)
        if node.op.kind == "add" and (node.type.kind is Kind.DRIVE or not self.resident):
            tally.add("accumulate", found.at("residual_adds", t))  # of events: delivered one by one where resident
        tally.add("neuron", found.at("neuron_updates_driven", t) + found.at("neuron_updates_idle", t))
        if isinstance(node.op, MatMul):
            self._product(tally, node, t)
        macs = found.at("mac", t) + found.at("head_macs", t)
        if macs and "weight" in node.params:
            weight = node.params["weight"]
            rows, bits = weight.size // len(weight) * self.images, getattr(node.op, "weight_bits", None) or 32
            self._weights(tally, rows, rows, len(weight) * bits)
            self._sums(tally, macs // len(weight), len(weight) * self.layer.unit.state_bits)

    def _product(self, tally: _Tally, node: Node, t: int) -> None:
        """Bit rows and a population count where both operands are spikes and the core has that, else pair by pair."""
        types, found = self.setting.graph.input_types(node), self.setting.activity.nodes[node.name]
        if "and" in self.core.operations and all(x.kind is Kind.SPIKE for x in types):
            tally.add("and", node.op.static_cost(types, node.params).dense_macs * self.images)
            self._sums(tally, node.type.size * self.images, self.layer.unit.state_bits)
            return
        tally.add("accumulate", found.at("coincidences", t))
        self._sums(tally, found.at("coincidences", t), self.layer.unit.state_bits)

    def _synapse(self, tally: _Tally, s: Synapse, plan: Plan, t: int) -> None:
        """Additions, and what the order of loops makes of weights and sums."""
        flow, b, images = plan.dataflow, s.activity.bands[plan.bands], self.images
        adds, multiplies = s.additions(t, repeated=plan.repeated, gated=flow == "output-stationary-t")
        if flow == "dense":
            every = s.dense * images
            adds, multiplies = (0, every) if s.has_counts else (every, 0)
        tally.add("accumulate", adds, s.layer)
        tally.add("multiply", multiplies)
        pairs = -(-(adds + multiplies) // s.outputs)  # of an event and a tap
        channels = -(-s.outputs // plan.groups)
        rows = [self._rows(s, plan, step) for step in range(self.steps)]
        needed = s.inputs * self.images if flow == "dense" else s.activity.bands[1].channels_ever
        distinct = min(needed * s.taps, sum(rows)) if t == 0 else 0
        self._weights(tally, rows[t] * plan.groups, distinct * plan.groups, channels * s.weight_bits)
        if flow.startswith("output-stationary") and "and" in self.core.operations:
            seen = b.channels[t] if flow == "output-stationary" else b.channels_ever
            tally.add("and", seen * s.taps * s.outputs * s.band_positions(plan.bands))
        place = "state" if flow in ("event-scatter", "weight-stationary") else "partial-sums"
        self._sums(tally, pairs * plan.groups, channels * s.sum_bits, place)
        if flow != "event-scatter" or s.channels * s.positions != self.layer.unit.channels * self.layer.unit.positions:
            whole = s.channels * s.positions * s.sum_bits  # cleared before, taken out after
            self._sums(tally, images, whole, place)

    def _rows(self, s: Synapse, plan: Plan, t: int) -> int:
        """Weights of one input channel and tap to all outputs of a group, read at a step: how often."""
        b = s.activity.bands[plan.bands]
        if plan.dataflow == "event-scatter":
            return -(-sum(s.additions(t, repeated=plan.repeated)) // s.outputs)
        if plan.dataflow == "output-stationary":
            return b.channels[t] * s.taps
        channels = s.inputs * plan.bands * self.images if plan.dataflow == "dense" else b.channels_ever
        return channels * s.taps if t == 0 else 0

    def _sums(self, tally: _Tally, times: int, bits: int, place: str = "partial-sums") -> None:
        """Read and write something of ``bits`` as many times."""
        buffer = self.core.buffer(place)
        if buffer is not None:
            tally.read(buffer, place, times, bits)
            tally.write(buffer, place, times, bits)

    def _weights(self, tally: _Tally, rows: int, distinct: int, bits: int) -> None:
        """Rows of weights read by the lanes, and those of them that are fetched for the first time."""
        near = self.weights.near
        if near is None:
            return
        tally.read(near, "weights", rows, bits)
        padded = -(-bits // near.word_bits) * near.word_bits
        for source, target in self.weights.fills:
            tally.read(source, "weights", 1, distinct * padded)
            tally.write(target, "weights", 1, distinct * padded)

    def _state(self, tally: _Tally, plan: Plan, t: int) -> None:
        """Every membrane is read and written at every step; over all steps that happens beside the sums."""
        neurons = any(n.op.kind == "integer_neuron" for n in self.nodes)
        if neurons and self.layer.state_bits:
            place = "partial-sums" if plan.dataflow in OVER_TIME else "state"
            self._sums(tally, self.images, self.layer.state_bits, place)
        buffer = self.core.buffer("state")
        constant = sum(n.type.size for n in self.nodes if n.type.timing is Timing.CONSTANT)
        if constant and buffer is not None:  # a drive that is the same at every step
            bits = constant * self.layer.unit.state_bits
            tally.read(buffer, "state", self.images, bits)
            tally.write(buffer, "state", self.images if t == 0 else 0, bits)

    def _events(self, tally: _Tally, plan: Plan, t: int) -> None:
        synapses = {self.setting.graph[s.node].inputs[0].node: s for s in self.layer.synapses}
        if self.resident:
            self._messages(tally, plan, t)
            return
        for name, bits in self.layer.sources.items():
            node = self.setting.graph[name]
            if node.op.kind == "input" and self.setting.graph.input_encoding == "direct" and t:
                continue  # read once
            if node.type.timing is Timing.IMAGE and t < self.steps - 1:
                continue
            seen = synapses[name].band_bits(plan.bands) if name in synapses else bits
            outside = node.op.kind == "input"
            self._take(tally, self._value_way(bits, outside=outside), seen, plan.groups)
        if self.nodes[0].type.timing is not Timing.IMAGE or t == self.steps - 1:
            self._give(tally, self._value_way(self.layer.output_bits, outside=False), self.layer.output_bits)

    def _value_way(self, bits: int, *, outside: bool) -> Way:
        """A value of all steps of one image, twice: one is written while one is read."""
        return way(self.setting.chip, self.core, "events", 2 * self.steps * bits, outside=outside)

    def _take(self, tally: _Tally, path: Way, bits: int, groups: int) -> None:
        """Input from its home to the lanes, once for every group of channels; copies at the core serve all groups
        where the tile's input of all steps fits."""
        near = path.near
        if near is None:
            return
        kept = near.bytes is None or bits * self.steps <= 8 * near.bytes * self.cores
        copies = self.images * (1 if kept else groups)
        for source, target in path.fills:
            tally.read(source, "events", copies, bits)
            tally.write(target, "events", copies, bits)
        tally.read(near, "events", self.images * groups, bits)

    def _give(self, tally: _Tally, path: Way, bits: int) -> None:
        """Output from the lanes to its home."""
        for buffer in path.levels:
            tally.write(buffer, "events", self.images, bits)
        for buffer in path.levels[:-1]:
            tally.read(buffer, "events", self.images, bits)

    def _messages(self, tally: _Tally, plan: Plan, t: int) -> None:
        """Events wait in the queue of a core, one word each."""
        buffer = self.core.buffer("events")
        if buffer is None:
            return
        count = 0
        for s in self.layer.synapses:
            more = s.activity.at("events_in_unary", t) - s.activity.at("events_in_graded", t)
            count += (s.activity.bands[plan.bands].events[t] + (more if plan.repeated else 0)) * plan.groups
        others = [n for n in self.nodes if n.name not in {s.node for s in self.layer.synapses}]
        outside = [n for n in others if any(o.node in self.layer.sources for o in n.inputs)]
        count += sum(self.setting.activity.nodes[n.name].at("events_in_graded", t) for n in outside)
        tally.write(buffer, "events", count, buffer.word_bits)
        tally.read(buffer, "events", count, buffer.word_bits)

    def _busiest(self, plan: Plan, t: int) -> Fraction:
        """Share of the core with most work: the busiest band in every round, as long as there are tiles."""
        tiles = plan.bands * plan.groups
        even = Fraction(1, self.cores if not self.layer.synapses else min(self.cores, tiles))
        total = sum(s.activity.at("ac_graded", t) for s in self.layer.synapses)
        if not total:
            return even
        most = sum(s.activity.bands[plan.bands].busiest[t] for s in self.layer.synapses)
        rounds = -(-tiles // self.cores)
        return min(Fraction(1), max(even, Fraction(rounds * most, total * plan.groups)))


class _Tally:
    def __init__(self, core: Core) -> None:
        self.core = core
        self.operations: Counter[str] = Counter()
        self.accesses: dict[Place, Accesses] = {}

    def add(self, operation: str, items: int, layer: str = "") -> None:
        if items:
            special = f"{operation}_{layer}"
            self.operations[special if special in self.core.operations else operation] += items

    def read(self, buffer: Buffer, operand: str, times: int, bits: int) -> None:
        self._touch(buffer, operand, Accesses(reads=times * -(-bits // buffer.word_bits)))

    def write(self, buffer: Buffer, operand: str, times: int, bits: int) -> None:
        self._touch(buffer, operand, Accesses(writes=times * -(-bits // buffer.word_bits)))

    def _touch(self, buffer: Buffer, operand: str, words: Accesses) -> None:
        if words.reads or words.writes:
            place = Place(buffer.name, operand)
            self.accesses[place] = self.accesses.get(place, Accesses()) + words
