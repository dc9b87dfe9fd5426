"""Dataclasses of a chip. Files are read by :mod:`qkf_deploy.hw_models.architecture.reading`.

``None`` always means that no source gives the number: what needs it is left out and named, never taken as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from qkf_deploy.hw_models.architecture.ranges import Range

#: What a core does, item by item, with what one item is.
OPERATIONS: Mapping[str, str] = {
    "accumulate": "one synaptic addition: a weight added to a partial sum or membrane",
    "accumulate_conv": "the same in a convolution, where it differs",
    "accumulate_linear": "the same in a linear layer, where it differs",
    "and": "one AND of two spikes and its addition to a population count",
    "multiply": "one multiply-accumulate of two numbers",
    "compare": "one comparison of max pooling",
    "neuron": "one neuron at one time step, whatever happens in it",
    "neuron_driven": "on top, a neuron whose drive is not zero",
    "neuron_fire": "on top, a neuron that fires",
    "receive": "one message taken from the network",
    "send": "one message given to the network",
}
#: What a buffer can hold. Weights include biases and thresholds; without a buffer for partial sums they live with the
#: state.
HOLDS = ("weights", "state", "events", "partial-sums")
#: Ways of a message: within a tile, one hop along a row, one along a column, to another chip.
LINKS = ("local", "east_west", "north_south", "between_chips")
#: ``resident``: every layer has cores of its own that keep its weights and state, all layers work at once.
#: ``layer-by-layer``: the whole chip works at one layer after another, weights come from DRAM.
EXECUTIONS = ("resident", "layer-by-layer")
#: Orders of the loops over events, outputs and weights of one layer.
DATAFLOWS: Mapping[str, str] = {
    "event-scatter": "each event reads its weights and adds them to the membranes it reaches",
    "output-stationary": "a tile of sums stays while inputs and weights pass; weights are read at every step",
    "output-stationary-t": "the same over all steps; weights are read once for all of them, membranes never leave",
    "weight-stationary": "each weight is read once, the sums of all steps are read and written for every event",
    "dense": "output-stationary over all steps, every tap computed, no event looked at",
}


@dataclass(frozen=True)
class Operation:
    """One row of :data:`OPERATIONS` in a core.

    Attributes:
        pj: energy of one item, without the buffers it reads and writes.
        lanes: items that run at once.
        ns: time that ``lanes`` items take, 0 for what is contained in another; ``None`` with lanes is one cycle of
            the clock.
        source: citation of the numbers.
    """

    pj: Range | None
    lanes: int | None
    ns: Decimal | None
    source: str


@dataclass(frozen=True)
class Buffer:
    """Memory that is read and written in words; DRAM is one without a size.

    Attributes:
        name: key in the file.
        holds: which of :data:`HOLDS`.
        bytes: capacity, ``None`` is unlimited.
        word_bits: bits of one access.
        read_pj, write_pj: of one word.
        leakage_mw: power while the chip is on.
        bits_per_ns: bandwidth.
        source: citation of the numbers.
    """

    name: str
    holds: frozenset[str]
    bytes: int | None
    word_bits: int
    read_pj: Range | None
    write_pj: Range | None
    leakage_mw: Range | None
    bits_per_ns: Decimal | None
    source: str


@dataclass(frozen=True)
class LayerForm:
    """What a core that is one whole layer can be: a convolution, neurons without decay, sum pooling of what leaves.

    Its memories are addressed by bits: kernels and maps take powers of two.

    Attributes:
        kernel_side_max, input_side_max, output_side_max: pixels.
        channels_max: of input and of output.
        padding_max: pixels.
        strides, pools: allowed, the same along both axes of a pool.
    """

    kernel_side_max: int
    input_side_max: int
    output_side_max: int
    channels_max: int
    padding_max: int
    strides: tuple[int, ...]
    pools: tuple[int, ...]


@dataclass(frozen=True)
class Core:
    """One kind of core.

    Attributes:
        kind: key in the file.
        count: cores of this kind on a chip.
        supports: operator kinds it executes.
        share_convolution_weights: it stores a kernel once for all positions it holds.
        neurons_max: neurons (or accumulators) it holds.
        weight_bits_max, state_bits_max: widest weight and membrane.
        synapses_max: stored weights (connections, where weights are not shared).
        synapse_bits_max: the same in bits.
        fan_in_max: connections of one neuron.
        axons_in_max: distinct inputs of one core, over all neurons that it holds.
        axons_out_max: distinct (neuron, target core) pairs.
        destinations_max: layers that one core can send to.
        biases_max: stored biases.
        queue_events: messages that wait in front of it before the network stalls.
        static_mw: power of one core while the chip is on, without its buffers.
        source: citation of limits and static power.
        dataflows: which of :data:`DATAFLOWS` it can execute.
        operations_include_buffers: the energy of an operation contains what it reads and writes.
        operations: what it does, by name of :data:`OPERATIONS`.
        buffers: at most one for each of :data:`HOLDS`.
        layer: a core that is one whole layer; ``None`` for one that holds pieces of any.
    """

    kind: str
    count: int
    supports: frozenset[str]
    share_convolution_weights: bool
    neurons_max: int
    weight_bits_max: int
    state_bits_max: int
    source: str
    operations: Mapping[str, Operation]
    buffers: tuple[Buffer, ...]
    synapses_max: int | None = None
    synapse_bits_max: int | None = None
    fan_in_max: int | None = None
    axons_in_max: int | None = None
    axons_out_max: int | None = None
    destinations_max: int | None = None
    biases_max: int | None = None
    queue_events: int | None = None
    static_mw: Range | None = None
    dataflows: tuple[str, ...] = ("event-scatter",)
    operations_include_buffers: bool = False
    layer: LayerForm | None = None

    def buffer(self, operand: str) -> Buffer | None:
        """The buffer that holds one of :data:`HOLDS`; partial sums without one lie with the state."""
        found = next((b for b in self.buffers if operand in b.holds), None)
        return self.buffer("state") if found is None and operand == "partial-sums" else found

    def operation(self, name: str, layer: str = "") -> Operation | None:
        """An operation, the one for a kind of layer (``conv``, ``linear``) before the general one."""
        return self.operations.get(f"{name}_{layer}") or self.operations.get(name)

    @property
    def memory_bytes(self) -> int:
        """Bytes that weights and state have together."""
        return sum(b.bytes or 0 for b in self.buffers if b.holds & {"weights", "state"})

    def memory_problem(self, weight_bits: int, state_bits: int) -> str:
        """Why that much of weights (with biases, thresholds) and of state does not fit; empty where it does."""
        for buffer in self.buffers:
            bits = weight_bits * ("weights" in buffer.holds) + state_bits * ("state" in buffer.holds)
            need = -(-bits // 8)
            if buffer.bytes is not None and need > buffer.bytes:
                whole = {"weights", "state"} <= buffer.holds
                return f"{need} bytes, a core has {buffer.bytes}{'' if whole else f' of {buffer.name}'}"
        return ""


@dataclass(frozen=True)
class Link:
    """One hop of a message.

    Attributes:
        pj, ns: of one message, or of one bit of it.
        per: ``message`` or ``bit``.
        source: citation.
    """

    pj: Range | None
    ns: Decimal | None
    per: str
    source: str


@dataclass(frozen=True)
class Network:
    """A mesh of tiles.

    Attributes:
        columns, rows, cores_per_tile: places for cores, filled along rows.
        multicast: a message to several cores crosses a common link once.
        message_bits: of one event with its address.
        queue_messages: that a router holds for one link.
        barrier_ns: of the synchronization that ends a time step; by number of tiles in use where a list, the last one
            for all larger numbers; empty without one.
        source: citation.
        links: by name of :data:`LINKS`.
    """

    columns: int
    rows: int
    cores_per_tile: int
    multicast: bool
    message_bits: int | None
    queue_messages: int | None
    barrier_ns: tuple[Decimal, ...]
    source: str
    links: Mapping[str, Link]


@dataclass(frozen=True)
class Chip:
    """A chip.

    Attributes:
        id, title, citation, url: what and from where.
        node_nm: technology, as text; ``not stated`` without one.
        execution: one of :data:`EXECUTIONS`.
        cores: kinds of cores; cores of a chip are numbered kind by kind.
        network: between cores, ``None`` where nothing is known of it.
        buffers: shared by all cores, between theirs and DRAM.
        dram: outside; ``None`` without one.
        clock_mhz: of all cores.
        static_mw: power of the whole chip while it is on, without cores and buffers that have figures of their own.
        static_source: citation of clock and static power.
        assumptions: sentences printed under every result.
    """

    id: str
    title: str
    citation: str
    url: str
    node_nm: str
    execution: str
    cores: tuple[Core, ...]
    network: Network | None = None
    buffers: tuple[Buffer, ...] = ()
    dram: Buffer | None = None
    clock_mhz: Decimal | None = None
    static_mw: Range | None = None
    static_source: str = ""
    assumptions: tuple[str, ...] = field(default=())

    @property
    def cores_per_chip(self) -> int:
        """Cores of all kinds."""
        return sum(core.count for core in self.cores)

    def core_at(self, index: int) -> Core:
        """The kind of a core, by its number on a chip or over several chips."""
        place = index % self.cores_per_chip
        for core in self.cores:
            if place < core.count:
                return core
            place -= core.count
        raise IndexError(index)

    def levels(self, core: Core, operand: str) -> tuple[Buffer, ...]:
        """Where an operand lies, from the core towards DRAM."""
        own = core.buffer(operand)
        shared = [b for b in self.buffers if operand in b.holds]
        return (*([own] if own else []), *shared, *([self.dram] if self.dram else []))

    def batch_ns(self, operation: Operation) -> Fraction | None:
        """Time that one item in every lane takes together; ``None`` where lanes or clock are not known."""
        if operation.lanes is None:
            return None
        if operation.ns is not None:
            return Fraction(operation.ns)
        return None if self.clock_mhz is None else 1000 / Fraction(self.clock_mhz)
