"""Runs side by side, and sample by sample where they are of the same data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from qkf_deploy.display.overview import Overview, SelfDescribing
from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.movement import movement
from qkf_deploy.hw_models.pricing import EnergyReport
from qkf_deploy.runs.content import RunFile
from qkf_deploy.statistics import comparison_tables
from qkf_deploy.statistics.measures import Flips, McNemar, Range, Share, difference_interval, flips, mcnemar, phi
from qkf_deploy.statistics.summary import Spread, energy_integers, sops_per_image, top1, weight_widths

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
        accuracy_interval: of it at 95 %, Newcombe's of paired or of independent proportions.
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
    accuracy_interval: Range | None = None


@dataclass(frozen=True)
class Convention:
    """Energy of one run under one of several profiles.

    Attributes:
        run, profile: names.
        energy_pj: per image that ran.
        relative: to the same run under the first profile; ``None`` where that is 0.
        change: from the first run under the same profile; ``None`` for the first run.
    """

    run: str
    profile: str
    energy_pj: Spread
    relative: Fraction | None
    change: Change | None


@dataclass(frozen=True, repr=False)
class RunComparison(SelfDescribing):
    """Several runs side by side.

    Attributes:
        profile: what energies were priced with.
        sides: the runs in the order given.
        differences: of every run but the first from the first.
        left_out: names of runs without a result.
        conventions: of every run under every profile; empty where there is one profile.
    """

    profile: str
    sides: tuple[Side, ...]
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...] = ()
    conventions: tuple[Convention, ...] = ()

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
    """A run with its energies under one profile, and perhaps under others."""

    name: str
    run: RunFile
    report: EnergyReport
    others: tuple[EnergyReport, ...] = ()


def compare_runs(runs: Iterable[Measured], left_out: Sequence[str] = ()) -> RunComparison:
    """Compare runs with the first of them.

    Args:
        runs: two or more, priced under the same profiles; one where there are several profiles.
        left_out: names of runs without a result.

    Raises:
        UsageError: fewer than two runs, and one profile.
    """
    parts = [_Part.of(run) for run in runs]
    if len(parts) < 2 and not (parts and len(parts[0].energies) > 1):
        raise UsageError("a comparison needs two runs or more", hint="qkf-deploy compare a.sqlite b.sqlite")
    differences = tuple(_difference(parts[0], part) for part in parts[1:])
    several = len(parts[0].energies) > 1
    conventions = tuple(_conventions(parts)) if several else ()
    profile = parts[0].energies[0].profile
    return RunComparison(profile, tuple(part.side for part in parts), differences, tuple(left_out), conventions)


def _conventions(parts: Sequence[_Part]) -> Iterator[Convention]:
    for part in parts:
        base = part.energies[0].spread.mean
        for number, energy in enumerate(part.energies):
            change = None if part is parts[0] else _energy_change(parts[0], part, number)
            relative = energy.spread.mean / base if base else None
            yield Convention(part.side.name, energy.profile, energy.spread, relative, change)


def side(measured: Measured) -> Side:
    """One run by itself."""
    run, ledger, rows = measured.run, measured.run.ledger, movement(measured.run.ledger)
    return Side(
        name=measured.name,
        arithmetic=ledger.arithmetic,
        time_steps=ledger.time_steps,
        bits=weight_widths(ledger),
        samples=run.samples,
        done=len(run.indices),
        accuracy=top1(run),
        sops=Spread.of(sops_per_image(ledger), interval=True),
        energy_pj=Spread.of(*energy_integers(measured.report.energies, run.ledger.images), interval=True),
        weight_bytes=sum(row.weight_size for row in rows),
        state_bytes=sum(row.state_size for row in rows),
    )


@dataclass(frozen=True, eq=False)
class _Energy:
    """Energies under one profile: of the samples that ran, in their order, each worth ``unit`` pJ."""

    profile: str
    values: np.ndarray
    unit: Fraction
    spread: Spread

    @staticmethod
    def of(report: EnergyReport, images: int) -> _Energy:
        values, unit = energy_integers(report.energies, images)
        return _Energy(report.profile.id, values, unit, Spread.of(values, unit, interval=True))


@dataclass(frozen=True, eq=False)
class _Part:
    """A run as it is compared: no more of it than that, so that many runs find room.

    Attributes:
        side: what is shown of it.
        data: digest of its data set.
        answers: label and prediction by sample.
        ran: samples that ran, ascending.
        sops: of those, in the same order.
        energies: under every profile.
    """

    side: Side
    data: str
    answers: Mapping[int, tuple[int | None, int | None]]
    ran: np.ndarray
    sops: np.ndarray
    energies: tuple[_Energy, ...]

    @staticmethod
    def of(measured: Measured) -> _Part:
        run = measured.run
        answers = dict(zip(run.indices, zip(run.labels, run.predictions, strict=True), strict=True))
        ran = np.array([i for i in run.indices if i not in run.errors])
        energies = tuple(_Energy.of(report, run.ledger.images) for report in (measured.report, *measured.others))
        return _Part(side(measured), run.data, answers, ran, sops_per_image(run.ledger), energies)


def _difference(first: _Part, other: _Part) -> Difference:
    a, b = first.side, other.side
    energy, both = _energy_change(first, other, 0), _both(first, other)
    sops = _of_means(a.sops, b.sops) if both is None else _of_images(first.sops[both[0]], other.sops[both[1]])
    same = bool(first.data) and first.data == other.data
    shared = sorted(first.answers.keys() & other.answers.keys()) if same else []
    paired = len(shared) if same else None
    if a.accuracy is None or b.accuracy is None or not shared:
        gained, interval = _accuracy(a.accuracy, b.accuracy)
        return Difference(b.name, paired, gained, sops, energy, None, None, interval)
    labels = [first.answers[i][0] for i in shared]
    answers = [[part.answers[i][1] for i in shared] for part in (first, other)]
    found = flips(labels, *answers)
    gained, interval = _paired_accuracy(labels, *answers)
    test = mcnemar(found.right_to_wrong, found.wrong_to_right)
    return Difference(b.name, paired, gained, sops, energy, found, test, interval)


def _both(first: _Part, other: _Part) -> tuple[np.ndarray, np.ndarray] | None:
    """Places of the samples of one data set that ran in both; ``None`` where there are none."""
    if not first.data or first.data != other.data:
        return None
    both, left, right = np.intersect1d(first.ran, other.ran, assume_unique=True, return_indices=True)
    return (left, right) if len(both) else None


def _energy_change(first: _Part, other: _Part, number: int) -> Change:
    """How much more energy under one of the profiles."""
    a, b, both = first.energies[number], other.energies[number], _both(first, other)
    if both is None:
        return _of_means(a.spread, b.spread)
    unit = min(a.unit, b.unit)
    return _of_images(a.values[both[0]] * int(a.unit / unit), b.values[both[1]] * int(b.unit / unit), unit)


def _accuracy(first: Share | None, other: Share | None) -> tuple[Fraction | None, Range | None]:
    """Of independent samples."""
    if first is None or other is None:
        return None, None
    gained = Fraction(other.hits, other.n) - Fraction(first.hits, first.n)
    return gained, _share_interval(first, other)


def _paired_accuracy(
    labels: Sequence[int | None], first: Sequence[int | None], other: Sequence[int | None]
) -> tuple[Fraction | None, Range | None]:
    """Of the same samples, as far as their label is known."""
    known = [(a == label, b == label) for label, a, b in zip(labels, first, other, strict=True) if label is not None]
    if not known:
        return None, None
    shares = [Share.of(sum(right), len(known)) for right in zip(*known, strict=True)]
    counts = [known.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))]
    gained = Fraction(shares[1].hits - shares[0].hits, len(known))
    return gained, _share_interval(shares[0], shares[1], phi(*counts))


def _share_interval(first: Share, other: Share, correlation: float = 0.0) -> Range | None:
    if first.interval is None or other.interval is None:
        return None
    a, b = (share.hits / share.n for share in (first, other))
    return difference_interval((a, first.interval), (b, other.interval), correlation)


def _of_means(first: Spread, other: Spread) -> Change:
    """Of independent images."""
    difference, interval = other.mean - first.mean, None
    if first.interval is not None and other.interval is not None:
        interval = difference_interval((float(first.mean), first.interval), (float(other.mean), other.interval))
    return Change(Spread(difference, None, interval), difference / first.mean if first.mean else None)


def _of_images(first: np.ndarray, other: np.ndarray, unit: Fraction = Fraction(1)) -> Change:
    """Of integers of the same images, each worth ``unit``."""
    spread, mean = Spread.of(other - first, unit, interval=True), Spread.of(first, unit).mean
    return Change(spread, spread.mean / mean if mean else None)
