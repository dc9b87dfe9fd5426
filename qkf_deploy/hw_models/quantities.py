"""What a profile can put a price on: ledger classes and quantities derived from them, per layer and image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np

from qkf_deploy.hw_models.quantity import (
    WORK,
    PerImage,
    Quantity,
    add,
    class_counts,
    elements_in,
    input_factor,
    neuron_updates,
    none,
    rate_times_dense,
    reads_binary,
    reads_events,
    rounded,
    same,
    times,
)
from qkf_deploy.hw_models.tool_quantities import TOOL_QUANTITIES
from qkf_deploy.ir.values import EVENT_KINDS
from qkf_deploy.ledger import COUNT_CLASSES, LayerRecord, Ledger


def _dense_real(layer: LayerRecord, ledger: Ledger, *, every_step: bool) -> PerImage:
    if "mac" not in layer.counts:
        return none(ledger)
    once = layer.timing == "constant" and not every_step
    return same(ledger, layer.dense_macs * (1 if once else ledger.time_steps))


def spike_product_rate(layer: LayerRecord, ledger: Ledger) -> PerImage:
    """SSA rule of the authors' scripts: the smallest rate of the spike operands x T x dense MACs.

    For K^T V that is min(fr_k, fr_v), for Q (K^T V) fr_q: together (min(fr_k, fr_v) + fr_q) T N C d. An operand's rate
    x T x dense MACs equals its fan-out, times the factor between the model's value and the one counted.
    """
    if "coincidences" not in layer.counts:
        return none(ledger)
    sides = [
        rounded(class_counts(layer, ledger, c), input_factor(layer, side))
        for side, c in enumerate(("fanout_left", "fanout_right"))
    ]
    spikes = [s for s, kind in zip(sides, layer.input_kinds, strict=False) if kind == "spike"]
    return functools.reduce(np.minimum, spikes or sides)


def bias_at_rate(layer: LayerRecord, ledger: Ledger) -> PerImage:
    """Bias additions x the mean of the model's own input, rounded half up; 1 where the input is real."""
    added = class_counts(layer, ledger, "bias_adds")
    if not reads_events(layer) or not added.any():
        return added
    per_spike = Fraction(int(added.max()), elements_in(layer) * ledger.time_steps) * input_factor(layer)
    return rounded(class_counts(layer, ledger, "events_in_unary"), per_spike)


def _only(layer: LayerRecord, ledger: Ledger, wanted: bool, counts: PerImage) -> PerImage:
    return counts if reads_events(layer) and reads_binary(layer) is wanted else none(ledger)


def _integer_dense(layer: LayerRecord, ledger: Ledger) -> PerImage:
    return _only(layer, ledger, False, same(ledger, layer.dense_macs * ledger.time_steps))


def _head_nonzero(layer: LayerRecord, ledger: Ledger) -> PerImage:
    """Non-zero inputs of the classifier x outputs, weights taken as non-zero; every input where they are not events.

    A readout that gives each time step a weight multiplies as often as it is counted: it has no dense form.
    """
    if "events_in_graded" not in layer.counts or "head_macs" not in layer.counts or not layer.dense_macs:
        return class_counts(layer, ledger, "head_macs")
    fan_out = layer.dense_macs // elements_in(layer)
    return times(class_counts(layer, ledger, "events_in_graded"), fan_out)


def _ledger_quantities() -> dict[str, Quantity]:
    groups: dict[str, tuple[str, ...]] = {
        "ac_unary": ("synapse.binary", "synapse.integer"),
        "ac_graded": ("synapse.binary", "synapse.integer"),
        "ac_unary_nonzero_weights": ("synapse.binary", "synapse.integer"),
        "ac_graded_nonzero_weights": ("synapse.binary", "synapse.integer"),
        "mac": ("synapse.real",),
        "mac_every_step": ("synapse.real",),
        "mac_nonzero": ("synapse.real",),
        "coincidences": ("products",),
        "coincidences_unary": ("products",),
        "attention_sum_adds_graded": ("attention_sums",),
        "head_adds_graded": ("head.adds",),
        "events_out_unary": ("routing",),
        **{name: (work,) for work, name in WORK.items() if not work.startswith("synapse")},
    }
    buffers = {"weight_bytes": stored_weight_bytes, "state_bytes": stored_state_bytes}
    return {
        name: Quantity(name, frozenset(work), COUNT_CLASSES[name], _by_class(name), buffers.get(name))
        for name, work in groups.items()
    }


def _by_class(name: str) -> Callable[[LayerRecord, Ledger], PerImage]:
    return lambda layer, ledger: class_counts(layer, ledger, name)


def _dense_sum(layer: LayerRecord, ledger: Ledger) -> PerImage:
    occurs = "attention_sum_adds_unary" in layer.counts
    return same(ledger, (elements_in(layer) - layer.output_size) * ledger.time_steps * occurs)


def _tensor_add(layer: LayerRecord, ledger: Ledger) -> PerImage:
    if "residual_adds" not in layer.counts:
        return none(ledger)
    if all(kind in EVENT_KINDS for kind in layer.input_kinds) and reads_binary(layer):
        return class_counts(layer, ledger, "events_in_graded")
    return same(ledger, layer.output_size * ledger.time_steps)


def _weight_reads(layer: LayerRecord, ledger: Ledger) -> PerImage:
    read = ("ac_graded", "mac", "head_macs") if layer.weight_bits else ()
    return add(ledger, *(class_counts(layer, ledger, c) for c in read))


def _state_accesses(layer: LayerRecord, ledger: Ledger) -> PerImage:
    updates = neuron_updates(layer, ledger)
    return times(add(ledger, class_counts(layer, ledger, "ac_graded"), updates), 2)


def stored_weight_bytes(layer: LayerRecord, ledger: Ledger) -> int:
    """Bytes of a layer's parameters as stored."""
    return -(-layer.parameters * layer.weight_bits // 8)


def stored_state_bytes(layer: LayerRecord, ledger: Ledger) -> int:
    """Bytes of a layer's membranes as stored: each is read and written once per step, a leftover only read."""
    stored, each = (layer.leftovers, 1) if layer.leftovers else (layer.output_size, 2)
    accesses = each * layer.output_size * ledger.time_steps * ledger.images
    return stored * -(-layer.total("state_bytes") // max(accesses, 1))


def _nonzero_every_step(layer: LayerRecord, ledger: Ledger) -> PerImage:
    repeat = ledger.time_steps if layer.timing == "constant" else 1
    return times(class_counts(layer, ledger, "mac_nonzero"), repeat)


def _coincidence_or_fanout(layer: LayerRecord, ledger: Ledger) -> PerImage:
    if "coincidences" not in layer.counts:
        return none(ledger)
    if reads_binary(layer):
        return class_counts(layer, ledger, "coincidences")
    return spike_product_rate(layer, ledger)


_EVENTS = frozenset({"synapse.binary", "synapse.integer"})
_REAL = frozenset({"synapse.real"})
_BINARY = frozenset({"synapse.binary"})
_INTEGER = frozenset({"synapse.integer"})

#: Quantities that no single ledger class gives.
_DERIVED = (
    Quantity("sop_rate", _EVENTS, "mean input value x T x dense MACs (Eq. 22)", rate_times_dense),
    Quantity(
        "mac_dense",
        _REAL,
        "dense MACs of real-valued input, padding counted; an input constant over time once",
        lambda layer, ledger: _dense_real(layer, ledger, every_step=False),
    ),
    Quantity(
        "mac_dense_every_step",
        _REAL,
        "dense MACs of real-valued input x T, padding counted",
        lambda layer, ledger: _dense_real(layer, ledger, every_step=True),
    ),
    Quantity(
        "mac_nonzero_every_step",
        _REAL,
        "MACs of real-valued input, zero inputs and weights skipped, at every step",
        _nonzero_every_step,
    ),
    Quantity(
        "binary_ac_rate",
        _BINARY,
        "rate x T x dense MACs where every input is 0 or 1",
        lambda layer, ledger: _only(layer, ledger, True, rate_times_dense(layer, ledger)),
    ),
    Quantity(
        "binary_ac",
        _BINARY,
        "ac_graded where every input is 0 or 1",
        lambda layer, ledger: _only(layer, ledger, True, class_counts(layer, ledger, "ac_graded")),
    ),
    Quantity(
        "binary_ac_nonzero_weights",
        _BINARY,
        "ac_graded_nonzero_weights where every input is 0 or 1",
        lambda layer, ledger: _only(layer, ledger, True, class_counts(layer, ledger, "ac_graded_nonzero_weights")),
    ),
    Quantity("integer_mac_dense", _INTEGER, "dense MACs x T where some input exceeds 1", _integer_dense),
    Quantity(
        "integer_mac_nonzero",
        _INTEGER,
        "MACs of non-zero inputs and weights where some input exceeds 1",
        lambda layer, ledger: _only(layer, ledger, False, class_counts(layer, ledger, "ac_graded_nonzero_weights")),
    ),
    Quantity(
        "product_rate",
        frozenset({"products"}),
        "smallest rate of the spike operands x T x dense MACs of a product of activations",
        spike_product_rate,
    ),
    Quantity(
        "product_coincidence_or_fanout",
        frozenset({"products"}),
        "coincidences where both operands are 0 or 1, else fan-out of the operand that is",
        _coincidence_or_fanout,
    ),
    Quantity(
        "bias_rate",
        frozenset({"bias"}),
        "bias additions x mean input value of their layer, as counters that hook modules have it (1 for real input)",
        bias_at_rate,
    ),
    Quantity("head_macs_nonzero", frozenset({"head.macs"}), "MACs of the head, zero inputs skipped", _head_nonzero),
    Quantity(
        "attention_sum_dense",
        frozenset({"attention_sums"}),
        "Q-K sums executed densely: elements in - elements out, x T",
        _dense_sum,
    ),
    Quantity(
        "residual_adds_tensor",
        frozenset({"residual"}),
        "residual additions of a tensor library: non-zeros of both operands if all are 0 or 1, else every element",
        _tensor_add,
    ),
    Quantity("neuron_updates", frozenset({"neuron.driven", "neuron.idle"}), "neurons x T", neuron_updates),
    Quantity(
        "weight_reads",
        frozenset({"memory.weights"}),
        "weights read, one per graded addition or multiply-accumulate; buffers of 32-bit words",
        _weight_reads,
        lambda layer, ledger: 4 * layer.parameters,
    ),
    Quantity(
        "state_accesses_per_synop",
        frozenset({"memory.state"}),
        "membranes read and written at every graded addition and every neuron update; buffers of 32-bit words",
        _state_accesses,
        lambda layer, ledger: 4 * layer.output_size,
    ),
)

#: Every quantity a profile can price, by name.
QUANTITIES: Mapping[str, Quantity] = {**_ledger_quantities(), **{q.name: q for q in (*_DERIVED, *TOOL_QUANTITIES)}}


def occurring(layer: LayerRecord, work: str) -> int:
    """Size of one kind of work in a layer, all images, by the ledger class of :data:`WORK`."""
    if work.startswith("synapse.") and work != "synapse.real" and (work == "synapse.binary") is not reads_binary(layer):
        return 0
    return layer.total(WORK[work])
