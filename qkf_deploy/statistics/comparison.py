"""Runs side by side, and sample by sample where they are of the same data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from qkf_deploy.display.overview import Overview, SelfDescribing
from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.movement import movement
from qkf_deploy.hw_models.pricing import EnergyReport
from qkf_deploy.ledger import Ledger
from qkf_deploy.runs.content import RunFile
from qkf_deploy.statistics import comparison_tables
from qkf_deploy.statistics.measures import Flips, McNemar, Share, flips, mcnemar
from qkf_deploy.statistics.summary import Spread, energy_integers, sops_per_image, top1

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame


@dataclass(frozen=True)
class Side:
    """One run.

    Attributes:
        name: what it is called.
        arithmetic, time_steps: of the network.
        bits: different weight widths, ascending; empty for a float network.
        samples, done: in the data set, and with a result so far.
        accuracy: top-1; ``None`` without labels.
        sops, energy_pj: per image that ran.
        weight_bytes, state_bytes: stored weights and biases, and membranes.
    """

    name: str
    arithmetic: str
    time_steps: int
    bits: tuple[int, ...]
    samples: int
    done: int
    accuracy: Share | None
    sops: Spread
    energy_pj: Spread
    weight_bytes: int
    state_bytes: int


@dataclass(frozen=True)
class Change:
    """How much more than the first run, per image.

    Attributes:
        difference: with standard deviation and interval where the same images are compared.
        relative: as a share of the first run's mean; ``None`` where that is 0.
    """

    difference: Spread
    relative: Fraction | None


@dataclass(frozen=True)
class Difference:
    """A run against the first one.

    Attributes:
        name: of the run.
        paired: samples with a result in both runs of one data set; ``None`` where it is not known to be the same.
        accuracy: this share minus the first one; of the paired samples where there are some.
        sops, energy_pj: per image, of the images that ran in both where they are paired.
        flips, test: what became of the answers, and McNemar's test; ``None`` without pairs or labels.
    """

    name: str
    paired: int | None
    accuracy: Fraction | None
    sops: Change
    energy_pj: Change
    flips: Flips | None
    test: McNemar | None


@dataclass(frozen=True, repr=False)
class RunComparison(SelfDescribing):
    """Several runs side by side.

    Attributes:
        profile: what energies were priced with.
        sides: the runs in the order given.
        differences: of every run but the first from the first.
        left_out: names of runs without a result.
    """

    profile: str
    sides: tuple[Side, ...]
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a reader must know: what is partial or not paired, and what McNemar's test says."""
        return comparison_tables.sentences(self)

    def overview(self) -> Overview:
        """The runs side by side, and what to know of their differences."""
        return comparison_tables.overview(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return comparison_tables.data(self)

    def to_pandas(self) -> DataFrame:
        """One row per run.

        Raises:
            MissingComponent: pandas is not installed.
        """
        return comparison_tables.frame(self)


@dataclass(frozen=True)
class Measured:
    """A run with its energies under one profile."""

    name: str
    run: RunFile
    report: EnergyReport


def compare_runs(runs: Iterable[Measured], left_out: Sequence[str] = ()) -> RunComparison:
    """Compare runs with the first of them.

    Args:
        runs: two or more, priced under the same profile.
        left_out: names of runs without a result.

    Raises:
        UsageError: fewer than two runs.
    """
    parts = [_Part.of(run) for run in runs]
    if len(parts) < 2:
        raise UsageError("a comparison needs two runs or more", hint="qkf-deploy compare a.sqlite b.sqlite")
    differences = tuple(_difference(parts[0], part) for part in parts[1:])
    return RunComparison(parts[0].profile, tuple(part.side for part in parts), differences, tuple(left_out))


def side(measured: Measured) -> Side:
    """One run by itself."""
    run, ledger, rows = measured.run, measured.run.ledger, movement(measured.run.ledger)
    return Side(
        name=measured.name,
        arithmetic=ledger.arithmetic,
        time_steps=ledger.time_steps,
        bits=_bits(ledger),
        samples=run.samples,
        done=len(run.indices),
        accuracy=top1(run),
        sops=Spread.of(sops_per_image(ledger), interval=True),
        energy_pj=Spread.of(*energy_integers(measured.report.energies, run.ledger.images), interval=True),
        weight_bytes=sum(row.weight_size for row in rows),
        state_bytes=sum(row.state_size for row in rows),
    )


def _bits(ledger: Ledger) -> tuple[int, ...]:
    if ledger.arithmetic == "float":
        return ()
    return tuple(sorted({layer.weight_bits for layer in ledger if layer.weight_bits}))


@dataclass(frozen=True, eq=False)
class _Part:
    """A run as it is compared: no more of it than that, so that many runs find room.

    Attributes:
        profile: what its energies were priced with.
        side: what is shown of it.
        data: digest of its data set.
        answers: label and prediction by sample.
        ran: samples that ran, ascending.
        sops, energy: of those, in the same order; an energy is worth ``unit`` pJ.
    """

    profile: str
    side: Side
    data: str
    answers: Mapping[int, tuple[int | None, int | None]]
    ran: np.ndarray
    sops: np.ndarray
    energy: np.ndarray
    unit: Fraction

    @staticmethod
    def of(measured: Measured) -> _Part:
        run = measured.run
        answers = dict(zip(run.indices, zip(run.labels, run.predictions, strict=True), strict=True))
        ran = np.array([i for i in run.indices if i not in run.errors])
        energy, unit = energy_integers(measured.report.energies, run.ledger.images)
        profile = measured.report.profile.id
        return _Part(profile, side(measured), run.data, answers, ran, sops_per_image(run.ledger), energy, unit)


def _difference(first: _Part, other: _Part) -> Difference:
    a, b = first.side, other.side
    if not first.data or first.data != other.data:
        sops, energy = _of_means(a.sops, b.sops), _of_means(a.energy_pj, b.energy_pj)
        return Difference(b.name, None, _accuracy(a.accuracy, b.accuracy), sops, energy, None, None)
    both, left, right = np.intersect1d(first.ran, other.ran, assume_unique=True, return_indices=True)
    if len(both):
        unit = min(first.unit, other.unit)
        energies = first.energy[left] * int(first.unit / unit), other.energy[right] * int(other.unit / unit)
        sops, energy = _of_images(first.sops[left], other.sops[right]), _of_images(*energies, unit)
    else:
        sops, energy = _of_means(a.sops, b.sops), _of_means(a.energy_pj, b.energy_pj)
    shared = sorted(first.answers.keys() & other.answers.keys())
    if a.accuracy is None or b.accuracy is None or not shared:
        return Difference(b.name, len(shared), _accuracy(a.accuracy, b.accuracy), sops, energy, None, None)
    labels = [first.answers[i][0] for i in shared]
    found = flips(labels, [first.answers[i][1] for i in shared], [other.answers[i][1] for i in shared])
    known = sum(label is not None for label in labels)
    gained = Fraction(found.wrong_to_right - found.right_to_wrong, known) if known else None
    test = mcnemar(found.right_to_wrong, found.wrong_to_right)
    return Difference(b.name, len(shared), gained, sops, energy, found, test)


def _accuracy(first: Share | None, other: Share | None) -> Fraction | None:
    if first is None or other is None:
        return None
    return Fraction(other.hits, other.n) - Fraction(first.hits, first.n)


def _of_means(first: Spread, other: Spread) -> Change:
    difference = other.mean - first.mean
    return Change(Spread(difference, None), difference / first.mean if first.mean else None)


def _of_images(first: np.ndarray, other: np.ndarray, unit: Fraction = Fraction(1)) -> Change:
    """Of integers of the same images, each worth ``unit``."""
    spread, mean = Spread.of(other - first, unit, interval=True), Spread.of(first, unit).mean
    return Change(spread, spread.mean / mean if mean else None)
