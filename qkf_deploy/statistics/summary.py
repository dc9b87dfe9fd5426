"""One run as an evaluation: accuracy with its interval, and rates, operations and energy with their spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.overview import Overview, SelfDescribing
from qkf_deploy.hw_models.energies import Energies
from qkf_deploy.hw_models.pricing import EnergyReport, LayerEnergy
from qkf_deploy.ledger import LayerRecord, Ledger
from qkf_deploy.runs.content import RunFile
from qkf_deploy.statistics import summary_tables
from qkf_deploy.statistics.measures import (
    Confusion,
    Range,
    Share,
    bootstrap_mean,
    by_class,
    confusion,
    integer_spread,
)

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame

#: The k of top-k, beside 1.
FIVE = 5


@dataclass(frozen=True)
class Spread:
    """A number per image.

    Attributes:
        mean: exact.
        sd: sample standard deviation over images; ``None`` of one image.
        interval: 95 % bootstrap interval of the mean; ``None`` where it was not made.
    """

    mean: Fraction
    sd: float | None
    interval: Range | None = None

    @staticmethod
    def of(counts: np.ndarray, unit: Fraction = Fraction(1), *, interval: bool = False) -> Spread:
        """Of integers ``(images,)``, each worth ``unit``."""
        total, sd = integer_spread(counts)
        found = bootstrap_mean(counts.astype(np.float64) * float(unit)) if interval else None
        return Spread(unit * total / len(counts), None if sd is None else sd * float(unit), found)


@dataclass(frozen=True)
class Accuracy:
    """What was answered, of all samples with a label; a sample that failed is wrong.

    Attributes:
        top1: right at once.
        top5: right among the five largest logits; ``None`` where there are no more than five classes.
        classes: top-1 by class, of the classes that occur.
        confusions: wrong answers, the most frequent first.
        unlabelled: samples whose label is not known; they are in none of these numbers.
    """

    top1: Share
    top5: Share | None
    classes: Mapping[int, Share]
    confusions: tuple[Confusion, ...]
    unlabelled: int


@dataclass(frozen=True)
class LayerSpread:
    """One layer, over images.

    Attributes:
        layer, type: node name and operator.
        firing_rate_in: mean value of the model's own input per element and step; ``None`` for real input.
        firing_rate_out: spikes per neuron and step; ``None`` for what is no neuron.
        sops: synaptic operations that occurred, per image.
        energy_pj: under the first profile, per image.
        share: of the energy of all layers.
    """

    layer: str
    type: str
    firing_rate_in: Spread | None
    firing_rate_out: Spread | None
    sops: Spread
    energy_pj: Spread
    share: Fraction


@dataclass(frozen=True, repr=False)
class Evaluation(SelfDescribing):
    """An evaluation of one network on one data set.

    Attributes:
        samples: in the data set.
        done: samples with a result so far, the failed ones among them.
        failed: position of every sample that failed, with the reason.
        accuracy: ``None`` without labels, or where the output is not one number per class.
        sops, spikes: synaptic operations, and spikes of all neurons, per image that ran.
        firing_rate: spikes per neuron and step, of all neurons that run at every step; ``None`` without such.
        energy_pj: by profile, per image that ran.
        layers: rates, operations and energy (first profile) of every layer.
        class_names: labels of the classes; one without a name is called by its index.
        network, data: digests of what ran on what; ``data`` is empty where it is not known.
        arithmetic, time_steps: of the network.
        bits: different weight widths, ascending; empty for a float network.
    """

    samples: int
    done: int
    failed: Mapping[int, str]
    accuracy: Accuracy | None
    sops: Spread
    spikes: Spread
    firing_rate: Spread | None
    energy_pj: Mapping[str, Spread]
    layers: tuple[LayerSpread, ...]
    class_names: tuple[str, ...]
    network: str
    data: str
    arithmetic: str
    time_steps: int
    bits: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether every sample has a result."""
        return self.done == self.samples

    def name_of(self, label: int | None) -> str:
        """A class as people call it; a failed sample has none."""
        if label is None:
            return "(failed)"
        return self.class_names[label] if label < len(self.class_names) else str(label)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a reader must know of the numbers: what is missing, what failed, what has no label."""
        said = []
        if not self.complete:
            said.append(
                f"partial: {self.done:,} of {quantity(self.samples, 'sample')} so far, and all numbers of those"
            )
        if self.failed:
            first = min(self.failed)
            wrong = "" if self.accuracy is None else ", counted as wrong"
            said.append(
                f"{quantity(len(self.failed), 'sample')} failed{wrong}; the first is {first}: {self.failed[first]}"
            )
        if self.accuracy is not None and self.accuracy.unlabelled:
            said.append(f"{quantity(self.accuracy.unlabelled, 'sample')} without a known label, left out of accuracy")
        return tuple(said)

    def overview(self) -> Overview:
        """Headline, accuracy and totals with their intervals, what is missing."""
        return summary_tables.overview(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return summary_tables.data(self)

    def to_pandas(self) -> DataFrame:
        """One row per layer: rates, operations and energy per image with their standard deviations.

        Raises:
            MissingComponent: pandas is not installed.
        """
        return summary_tables.frame(self)


def summarize(run: RunFile, reports: Sequence[EnergyReport]) -> Evaluation:
    """What a stored run says of its network and data set.

    Args:
        run: partial or complete.
        reports: energies of its ledger, one per profile; the first one's are told by layer.
    """
    ledger = run.ledger
    pairs = zip(ledger, reports[0].layers, strict=True)
    return Evaluation(
        samples=run.samples,
        done=len(run.indices),
        failed=run.errors,
        accuracy=_accuracy(run),
        sops=Spread.of(sops_per_image(ledger), interval=True),
        spikes=Spread.of(spikes_per_image(ledger), interval=True),
        firing_rate=_firing_rate(ledger),
        energy_pj={r.profile.id: Spread.of(*energy_integers(r.energies, r.images), interval=True) for r in reports},
        layers=tuple(_layer(layer, energy, ledger) for layer, energy in pairs),
        class_names=run.class_names,
        network=run.network,
        data=run.data,
        arithmetic=ledger.arithmetic,
        time_steps=ledger.time_steps,
        bits=weight_widths(ledger),
    )


def weight_widths(ledger: Ledger) -> tuple[int, ...]:
    """Different widths of weights in bits, ascending; none of a float network."""
    if ledger.arithmetic == "float":
        return ()
    return tuple(sorted({layer.weight_bits for layer in ledger if layer.weight_bits}))


def data_set(run: RunFile) -> str:
    """Which samples a run is of: name, number and hash; empty where that is not known."""
    if not run.data:
        return ""
    place = run.config.get("data_path")
    name = f"{Path(place).name}, " if place else ""
    return f"{name}{quantity(run.samples, 'sample')}, SHA-256 {run.data}"


def top1(run: RunFile) -> Share | None:
    """Accuracy over the samples with a label, a failed one being wrong; ``None`` where answers or labels are none."""
    known = [(label, answer) for label, answer in zip(run.labels, run.predictions, strict=True) if label is not None]
    if not known or not any(run.top):
        return None
    return Share.of(sum(label == answer for label, answer in known), len(known))


def _accuracy(run: RunFile) -> Accuracy | None:
    first = top1(run)
    if first is None:
        return None
    near = sum(label in best for label, best in zip(run.labels, run.top, strict=True))
    return Accuracy(
        first,
        Share.of(near, first.n) if math.prod(run.graph["nodes"][-1]["shape"]) > FIVE else None,
        by_class(run.labels, run.predictions),
        confusion(run.labels, run.predictions),
        len(run.labels) - first.n,
    )


def energy_integers(energies: Energies, images: int) -> tuple[np.ndarray, Fraction]:
    """Energy of every image as an integer, and what one of them is worth in pJ."""
    return np.broadcast_to(energies.units, images), Fraction(energies.unit_pj)


def sops_per_image(ledger: Ledger) -> np.ndarray:
    """Synaptic operations that occurred, all layers, int64 ``(images,)``."""
    return np.sum([_sops(layer, ledger) for layer in ledger], axis=0)


def spikes_per_image(ledger: Ledger) -> np.ndarray:
    """Spikes of all neurons, int64 ``(images,)``."""
    return np.sum([_counts(layer, ledger, ("resets",)) for layer in ledger], axis=0)


def _fires(layer: LayerRecord) -> bool:
    """Whether a layer is neurons that run at every step."""
    return "resets" in layer.counts and layer.timing != "image"


def _firing_rate(ledger: Ledger) -> Spread | None:
    layers = [layer for layer in ledger if _fires(layer)]
    if not layers:
        return None
    spikes = np.sum([layer.counts["events_out_unary"] for layer in layers], axis=0)
    neurons = sum(layer.output_size for layer in layers)
    return Spread.of(spikes, Fraction(1, neurons * ledger.time_steps), interval=True)


def _sops(layer: LayerRecord, ledger: Ledger) -> np.ndarray:
    """Synaptic operations per image: additions, pairs of spikes that met, additions of the Q-K sums."""
    products = "coincidences_unary" if "coincidences" in layer.counts else "ac_unary"
    return _counts(layer, ledger, (products, "attention_sum_adds_unary"))


def _counts(layer: LayerRecord, ledger: Ledger, names: Sequence[str]) -> np.ndarray:
    """Sum of some classes per image, int64 ``(images,)``."""
    return sum((layer.counts[n] for n in names if n in layer.counts), start=np.zeros(ledger.images, np.int64))


def _layer(layer: LayerRecord, energy: LayerEnergy, ledger: Ledger) -> LayerSpread:
    elements = layer.output_size * ledger.time_steps
    fires = _fires(layer)
    return LayerSpread(
        layer=layer.name,
        type=layer.op,
        firing_rate_in=_rate_in(layer, ledger, energy),
        firing_rate_out=Spread.of(layer.counts["events_out_unary"], Fraction(1, elements)) if fires else None,
        sops=Spread.of(_sops(layer, ledger)),
        energy_pj=Spread.of(*energy_integers(energy.energies, energy.images)),
        share=energy.share,
    )


def _rate_in(layer: LayerRecord, ledger: Ledger, energy: LayerEnergy) -> Spread | None:
    """The spread of what :attr:`LayerEnergy.firing_rate_in` is the mean of."""
    if energy.firing_rate_in is None:
        return None
    counts = layer.counts["events_in_unary"]
    total = int(counts.sum())
    return Spread.of(counts, energy.firing_rate_in * ledger.images / total if total else Fraction(1))
