"""The ledger: exact operation counts per image and layer. It knows no hardware and no prices.

Every engine fills the same classes; :mod:`qkf_deploy.hw_models` multiplies them with a cited table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import quantity, si
from qkf_deploy.display.overview import Overview, SelfDescribing, largest
from qkf_deploy.display.tables import Field, summed, tabulate
from qkf_deploy.errors import InputError, damage

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame

SCHEMA_VERSION = 3
_INT64 = 2**63

#: What is counted. "Unary" counts an element of value 3 as three spikes, "graded" as one event.
COUNT_CLASSES: Mapping[str, str] = {
    "events_in_unary": "spikes that enter (sum of the values of all event operands)",
    "events_in_graded": "non-zero elements that enter (all event operands)",
    "events_out_unary": "spikes that leave",
    "events_out_graded": "non-zero elements that leave",
    "events_in_negative": "spikes of negative polarity that enter (signed events)",
    "events_out_negative": "spikes of negative polarity that leave (signed events)",
    "ac_unary": "synaptic additions, one per spike and existing tap",
    "ac_graded": "synaptic additions, one per non-zero element and existing tap",
    "ac_graded_nonzero_weights": "as ac_graded, taps whose weight is zero skipped",
    "ac_unary_nonzero_weights": "as ac_unary, taps whose weight is zero skipped",
    "ac_negative": "of ac_unary, those of spikes of negative polarity, which subtract (signed events)",
    "mac": "multiply-accumulates of real-valued input over existing taps; an input constant over time is computed once",
    "mac_every_step": "as mac, executed again at every time step",
    "mac_nonzero": "as mac, zero-valued inputs and zero weights skipped",
    "bias_adds": "bias additions (once for a constant input)",
    "coincidences": "matmul of events: pairs in which both elements are non-zero (AND)",
    "coincidences_unary": "matmul of events: sum of the products",
    "coincidences_negative": "of coincidences, those of opposite polarities, which count down (signed events)",
    "fanout_left": "matmul of events: non-zero elements of the left operand times columns of the right one",
    "fanout_right": "matmul of events: non-zero elements of the right operand times rows of the left one",
    "attention_sum_adds_unary": "additions of the Q-K sums (over channels of a head, or tokens), one per spike",
    "attention_sum_adds_graded": "additions of the Q-K sums, one per non-zero element",
    "gate_ands": "events that meet a gate (mask)",
    "events_stopped": "events that a closed gate does not forward",
    "residual_adds": "residual additions where both operands are non-zero (drives: all elements)",
    "neuron_updates_driven": "neuron updates with non-zero drive",
    "neuron_updates_idle": "neuron updates with zero drive",
    "resets": "membrane resets (spikes fired)",
    "pool_comparisons": "comparisons of max pooling over existing taps",
    "pool_adds_unary": "additions of sum pooling, one per spike (drives: per element)",
    "scale_multiplies": "multiplications by a constant that folding could not remove, and rounding shifts of drives",
    "head_adds_unary": "additions of the readout (tokens and time), one per spike",
    "head_adds_graded": "additions of the readout, one per non-zero element",
    "head_macs": "multiply-accumulates of synapses after the readout (once per image)",
    "weight_bytes": "bytes of weights read, one read per graded addition or multiply-accumulate",
    "state_bytes": "bytes of membrane state read and written (stored leftovers: read)",
}


def exact_total(counts: np.ndarray) -> int:
    """Sum of counts without overflow."""
    if not len(counts):
        return 0
    if counts.dtype == object or int(np.abs(counts).max()) * len(counts) >= _INT64:
        return sum(int(v) for v in counts)
    return int(counts.sum())


@dataclass(frozen=True)
class Connections:
    """Who a synapse connects.

    Attributes:
        inputs, outputs: channels (features of a linear layer).
        groups: of channels.
        kernel, stride: per axis; empty for a linear layer.
    """

    inputs: int
    outputs: int
    groups: int = 1
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Connections:
        """Inverse of ``dataclasses.asdict``. Raises KeyError, TypeError or ValueError for anything else."""
        numbers = [int(data[key]) for key in ("inputs", "outputs", "groups")]
        kernel, stride = (tuple(map(int, data[key])) for key in ("kernel", "stride"))
        if min((*numbers, *kernel, *stride)) < 1 or len(kernel) != len(stride):
            raise ValueError("connections are counted from 1")
        return Connections(numbers[0], numbers[1], numbers[2], kernel, stride)


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """Counts of one node.

    Attributes:
        name, op: node name and operator kind.
        input_kinds, input_sizes: kind and number of elements (per image and step) of each operand.
        input_factors: what to multiply each operand with to get the model's own value (1/4 behind 2 x 2 average
            pooling, which is counted as a sum).
        output_kind, output_size: likewise for the output.
        timing: timing of the first operand (``step``, ``constant`` or ``image``).
        dense_macs, border_exact_macs: per image and time step.
        weight_bits: stored bits per weight (32 in float graphs), 0 without weights.
        accumulator_bits, membrane_bits: proven widths (integer graphs), else 0.
        parameters: stored parameters.
        counts: class -> int64 array ``(B,)``; a class that cannot occur is absent.
        spikes_per_step: int64 ``(T, B)``: unary events leaving at each step (timing ``step`` only).
        connections: of a convolution or linear layer, else ``None``.
        leaky: True for a neuron whose membrane decays.
        leftovers: membranes stored for all steps of a neuron that starts from them, else 0.
    """

    name: str
    op: str
    input_kinds: tuple[str, ...]
    input_sizes: tuple[int, ...]
    output_kind: str
    output_size: int
    timing: str
    dense_macs: int
    border_exact_macs: int
    weight_bits: int
    accumulator_bits: int
    membrane_bits: int
    parameters: int
    counts: Mapping[str, np.ndarray]
    spikes_per_step: np.ndarray | None = None
    input_factors: tuple[Fraction, ...] = ()
    connections: Connections | None = None
    leaky: bool = False
    leftovers: int = 0

    def with_counts(self, counts: Mapping[str, np.ndarray], spikes_per_step: np.ndarray | None) -> LayerRecord:
        """The same node in another run."""
        out = object.__new__(LayerRecord)
        # Without going through a constructor of many arguments: an engine makes hundreds of these for every image.
        vars(out).update(vars(self), counts=counts, spikes_per_step=spikes_per_step)
        return out

    def total(self, name: str) -> int:
        """Sum of one class over all images, as a Python integer; 0 for a class that cannot occur here."""
        if name not in COUNT_CLASSES:
            raise InputError(f"no count class {name!r}", hint="see qkf_deploy.ledger.COUNT_CLASSES")
        return exact_total(self.counts[name]) if name in self.counts else 0

    def __eq__(self, other: object) -> bool:
        """Equal in every field and count."""
        return isinstance(other, LayerRecord) and self.to_dict() == other.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        out = {k: v for k, v in vars(self).items() if k not in ("counts", "spikes_per_step", "input_factors")}
        out["input_factors"] = [str(f) for f in self.input_factors]
        out["connections"] = None if self.connections is None else dataclasses.asdict(self.connections)
        out["counts"] = {k: [int(i) for i in v] for k, v in self.counts.items()}
        steps = self.spikes_per_step
        out["spikes_per_step"] = None if steps is None else [[int(i) for i in row] for row in steps]
        return out

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> LayerRecord:
        """Inverse of :meth:`to_dict`. Raises InputError for missing or unknown fields."""
        fields = dict(data)
        try:
            counts = {k: np.array(v, np.int64) for k, v in fields.pop("counts").items()}
            steps = fields.pop("spikes_per_step")
            for key in ("input_kinds", "input_sizes"):
                fields[key] = tuple(fields[key])
            fields["input_factors"] = tuple(Fraction(f) for f in fields["input_factors"])
            connections = fields.pop("connections")
            if not isinstance(fields["leaky"], bool):
                raise TypeError("leaky is true or false")
            return LayerRecord(
                **fields,
                connections=None if connections is None else Connections.from_dict(connections),
                counts=counts,
                spikes_per_step=None if steps is None else np.array(steps, np.int64),
            )
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(
                f"not a ledger layer: {damage(error)}", hint="write it again with `qkf-deploy simulate`"
            ) from error


@dataclass(frozen=True, eq=False, repr=False)
class Ledger(SelfDescribing):
    """Counts of one run.

    Attributes:
        time_steps: T.
        images: B.
        arithmetic: ``float`` or ``integer``.
        input_encoding: ``direct`` or ``frames``.
        layers: one record per node, in topological order.
        provenance: strings carried over from the graph.
    """

    time_steps: int
    images: int
    arithmetic: str
    input_encoding: str
    layers: tuple[LayerRecord, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Equal in every count of every layer, images in the same order."""
        return isinstance(other, Ledger) and self.to_dict() == other.to_dict()

    def __iter__(self) -> Iterator[LayerRecord]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> LayerRecord:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise InputError("no such layer in the ledger", where=name)

    def total(self, name: str) -> int:
        """Sum of one class over layers and images (Python integer, no overflow)."""
        return sum(layer.total(name) for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        head = {k: getattr(self, k) for k in ("time_steps", "images", "arithmetic", "input_encoding")}
        return {
            "schema_version": SCHEMA_VERSION,
            **head,
            "provenance": dict(self.provenance),
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def overview(self) -> Overview:
        """Headline, the layers that compute most, the mean of every class that occurs; all per image."""
        images = max(self.images, 1)
        shown, left_out = largest(
            self.layers, lambda layer: sum(layer.total(name) for name in _WORK), "layers, those that compute most"
        )
        columns: list[Field[LayerRecord]] = [
            Field("layer", "layer", lambda layer: layer.name, left=True),
            Field("op", "operator", lambda layer: layer.op, left=True),
            *(_mean_field(name, images) for name in _WORK),
        ]
        means = [f"{name} {si(Fraction(self.total(name), images))}" for name in COUNT_CLASSES if self.total(name)]
        notes = (f"all counts per image: {', '.join(means)}",) if means else ()
        return Overview(self._headline(), tabulate("", columns, shown, self.layers), (*left_out, *notes))

    def _headline(self) -> str:
        facts = (f"{self.arithmetic} network", f"T = {self.time_steps}", f"{self.input_encoding} input")
        size = (quantity(self.images, "image"), quantity(len(self.layers), "layer"))
        return ", ".join(("exact counts", *facts, *size))

    def to_pandas(self) -> DataFrame:
        """One row per layer; every count class a column, summed over all images (``DataFrame.attrs["images"]``).

        A class that cannot occur in a layer is missing there, one that did not occur is 0.

        Raises:
            MissingComponent: pandas is not installed.
        """
        left_out = ("counts", "spikes_per_step", "connections")
        facts = [f.name for f in dataclasses.fields(LayerRecord) if f.name not in left_out]
        records = [
            {k: getattr(layer, k) for k in facts} | {name: layer.total(name) for name in layer.counts} for layer in self
        ]
        found = [name for name in COUNT_CLASSES if any(name in layer.counts for layer in self)]
        return data_frame(records, [*facts, *found], images=self.images, time_steps=self.time_steps)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Ledger:
        """Inverse of :meth:`to_dict`. Raises InputError for another schema or missing fields."""
        if data.get("schema_version") != SCHEMA_VERSION:
            raise InputError(
                f"ledger schema {data.get('schema_version')!r}, this version reads {SCHEMA_VERSION}",
                hint="write it again with `qkf-deploy simulate`",
            )
        try:
            return Ledger(
                int(data["time_steps"]),
                int(data["images"]),
                str(data["arithmetic"]),
                str(data["input_encoding"]),
                tuple(LayerRecord.from_dict(layer) for layer in data["layers"]),
                dict(data["provenance"]),
            )
        except KeyError as error:
            raise InputError(f"not a ledger: {damage(error)}") from error


#: Work that says how much a layer computes: the columns of the overview.
_WORK = ("ac_unary", "mac", "coincidences", "neuron_updates_driven", "events_out_unary")


def _mean_field(name: str, images: int) -> Field[LayerRecord]:
    title = name.replace("_", " ")
    return summed(name, title, lambda layer: Fraction(layer.total(name), images), lambda mean: si(mean) if mean else "")


def concatenate(parts: Sequence[Ledger]) -> Ledger:
    """One ledger of all images of several runs of the same graph, in order.

    Raises:
        InputError: no parts, or parts of different graphs.
    """
    if not parts:
        raise InputError("no ledger to concatenate")
    first = parts[0]
    if any([a.name for a in p] != [a.name for a in first] or p.time_steps != first.time_steps for p in parts):
        raise InputError("the ledgers belong to different graphs")
    layers = []
    for index, layer in enumerate(first.layers):
        same = [p.layers[index] for p in parts]
        counts = {k: np.concatenate([s.counts[k] for s in same]) for k in layer.counts}
        steps = [s.spikes_per_step for s in same if s.spikes_per_step is not None]
        layers.append(replace(layer, counts=counts, spikes_per_step=np.concatenate(steps, axis=1) if steps else None))
    return replace(first, images=sum(p.images for p in parts), layers=tuple(layers))
