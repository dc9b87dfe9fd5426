"""What a quantity is that can have a price: its kind of work, and helpers to count it per layer and image.

Every quantity says which *work* it accounts for. Two prices for the same work are an error; work that occurs and has
no price is reported as unpriced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qkf_deploy.ledger import LayerRecord, Ledger

#: Of int64.
_LIMIT = 2**62
#: Number of operations (or bytes) of one layer for each image: int64 where that holds them, else Python integers.
PerImage = np.ndarray

#: Kinds of work, each with the ledger class that measures it.
WORK: Mapping[str, str] = {
    "synapse.binary": "ac_unary",
    "synapse.integer": "ac_unary",
    "synapse.real": "mac",
    "bias": "bias_adds",
    "products": "coincidences",
    "attention_sums": "attention_sum_adds_unary",
    "gate": "gate_ands",
    "residual": "residual_adds",
    "neuron.driven": "neuron_updates_driven",
    "neuron.idle": "neuron_updates_idle",
    "neuron.reset": "resets",
    "pool.comparisons": "pool_comparisons",
    "pool.adds": "pool_adds_unary",
    "scale": "scale_multiplies",
    "head.adds": "head_adds_unary",
    "head.macs": "head_macs",
    "memory.weights": "weight_bytes",
    "memory.state": "state_bytes",
    "routing": "events_out_graded",
}

#: Work that moves data rather than computes; never priced on top of an all-in figure.
MEMORY_WORK = frozenset({"memory.weights", "memory.state", "routing"})


@dataclass(frozen=True)
class Quantity:
    """Something countable that can have a price.

    Attributes:
        name: key in a profile's price table.
        work: kinds of work it accounts for.
        help: one line.
        count: number per image of one layer.
        buffer: bytes of the buffer that is accessed, for quantities priced by buffer size.
    """

    name: str
    work: frozenset[str]
    help: str
    count: Callable[[LayerRecord, Ledger], PerImage]
    buffer: Callable[[LayerRecord, Ledger], int] | None = None


def class_counts(layer: LayerRecord, ledger: Ledger, name: str) -> PerImage:
    """One ledger class of a layer, per image; zeros where the class cannot occur."""
    return layer.counts[name] if name in layer.counts else none(ledger)


def none(ledger: Ledger) -> PerImage:
    """Zero for every image."""
    return np.zeros(ledger.images, np.int64)


def times(counts: PerImage, factor: int) -> PerImage:
    """Counts times a whole number, exactly."""
    return wide(counts, factor) * factor


def wide(counts: PerImage, factor: int) -> PerImage:
    """The counts in a type that holds ``factor`` times each of them."""
    largest = int(np.abs(counts).max()) if len(counts) else 0
    fits = counts.dtype == object or max(largest, 1) * max(abs(factor), 1) < _LIMIT
    return counts if fits else counts.astype(object)


def same(ledger: Ledger, count: int) -> PerImage:
    """The same number for every image."""
    return np.full(ledger.images, count, np.int64 if abs(count) < _LIMIT else object)


def reads_events(layer: LayerRecord) -> bool:
    """True for a synapse whose input is spikes or counts and that runs at every step."""
    return "ac_unary" in layer.counts


def reads_binary(layer: LayerRecord) -> bool:
    """True if every value that entered the layer in the whole run was 0 or 1 in the model (any image, any step)."""
    in_model = all(f == 1 for f in layer.input_factors)
    return in_model and layer.total("events_in_unary") == layer.total("events_in_graded")


def elements_in(layer: LayerRecord) -> int:
    """Input elements per image and step, all operands."""
    return sum(layer.input_sizes)


def rate_times_dense(layer: LayerRecord, ledger: Ledger) -> PerImage:
    """Eq. 22 of arXiv 2403.16552: SOP = fr x T x FLOPs, fr the mean of the model's own input, padding taps counted.

    Per image, rounded to whole operations (half up): fr x T = factor x spikes / elements, the factor being what turns
    what is counted into the model's value (1/4 behind 2 x 2 average pooling).
    """
    if not reads_events(layer):
        return none(ledger)
    per_spike = Fraction(layer.dense_macs, elements_in(layer)) * input_factor(layer)
    return rounded(class_counts(layer, ledger, "events_in_unary"), per_spike)


def input_factor(layer: LayerRecord, operand: int = 0) -> Fraction:
    """The model's own value over the one counted, of one operand (its size: a sign costs nothing)."""
    return abs(layer.input_factors[operand]) if layer.input_factors else Fraction(1)


def rounded(counts: PerImage, factor: Fraction) -> PerImage:
    """Counts times a fraction, rounded half up: floor((2 n p + q) / 2 q)."""
    p, q = factor.numerator, factor.denominator
    return (wide(counts, 2 * p + q) * (2 * p) + q) // (2 * q)


def add(ledger: Ledger, *parts: PerImage) -> PerImage:
    """Sum of counts, exactly."""
    return sum((wide(part, len(parts)) for part in parts), start=none(ledger))


def neuron_updates(layer: LayerRecord, ledger: Ledger) -> PerImage:
    """Neurons x T."""
    return add(ledger, *(class_counts(layer, ledger, c) for c in ("neuron_updates_driven", "neuron_updates_idle")))
