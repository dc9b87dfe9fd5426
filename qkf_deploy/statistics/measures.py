"""Statistics of an evaluation: pure functions of counts, labels and predictions. Standard library and numpy only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

import numpy as np

from qkf_deploy.errors import UsageError

#: Draws that one block of the bootstrap holds (8 bytes each).
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Range:
    """A confidence interval, both ends included."""

    low: float
    high: float


def wilson(hits: int, n: int, level: float = 0.95) -> Range:
    """Wilson's score interval of a proportion: within [0, 1], and of use near 0, near 1 and for small ``n``.

    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", J. Am. Stat. Assoc. 22 (1927)
    209-212; recommended over Wald's by Brown, Cai and DasGupta, Stat. Sci. 16 (2001) 101-133.

    Args:
        hits: successes, 0 to ``n``.
        n: trials, at least 1.
        level: of confidence, between 0 and 1.

    Raises:
        UsageError: counts or a level that cannot be.
    """
    if not 0 <= hits <= n or n < 1:
        raise UsageError(f"{hits} of {n} is no proportion")
    z2 = NormalDist().inv_cdf(0.5 + _checked(level) / 2) ** 2
    share = hits / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Range(0.0 if hits == 0 else centre - half, 1.0 if hits == n else centre + half)


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise UsageError(f"level: {level}", hint="use a number between 0 and 1, such as 0.95")
    return level


def difference_interval(first: tuple[float, Range], other: tuple[float, Range], correlation: float = 0.0) -> Range:
    """Interval of ``other - first`` from the intervals of both (MOVER).

    G. Y. Zou and A. Donner, "Construction of confidence limits about effect measures", Stat. Med. 27 (2008) 1693-1702.
    With Wilson's intervals of proportions it is Newcombe's: R. G. Newcombe, Stat. Med. 17 (1998) 873-890 for
    independent and 2635-2650 for paired ones, with ``correlation`` the phi coefficient of the pairs.

    Args:
        first, other: estimate and interval.
        correlation: of the two estimates, -1 to 1.
    """
    (a, of_a), (b, of_b) = first, other

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x + y * y - 2 * correlation * x * y, 0.0))

    return Range(b - a - reach(b - of_b.low, of_a.high - a), b - a + reach(of_b.high - b, a - of_a.low))


def phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Correlation of two yes-or-no answers to the same questions; 0 where one of them never varies."""
    sums = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    return (both * neither - only_first * only_second) / math.sqrt(sums) if sums else 0.0


def integer_spread(values: np.ndarray) -> tuple[int, float | None]:
    """Sum and sample standard deviation (n - 1 in the denominator) of integers, the sums exact: no order matters.

    Args:
        values: int64 ``(n,)``, at least one.

    Returns:
        The deviation is ``None`` of one value.
    """
    n, low, high = len(values), int(values.min()), int(values.max())
    total = int(values.sum()) if max(-low, high) * n < 2**63 else sum(map(int, values))
    if n < 2:
        return total, None
    offset = total // n
    narrow = max(high - offset, offset - low) < 2**31 and n < 2**31
    squares = _sum_of_squares(values - offset) if narrow else sum((int(v) - offset) ** 2 for v in values)
    rest = total - n * offset
    return total, math.sqrt(Fraction(n * squares - rest * rest, n * (n - 1)))


def _sum_of_squares(values: np.ndarray) -> int:
    """Of integers below 2^31, exact: the two halves of every square are added up apart."""
    squares = values * values
    return (int((squares >> 31).sum()) << 31) + int((squares & (2**31 - 1)).sum())


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Range | None:
    """Percentile bootstrap interval of the mean; the same values in the same order give the same interval.

    B. Efron, "Bootstrap Methods: Another Look at the Jackknife", Ann. Stat. 7 (1979) 1-26; the percentile interval is
    that of Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3.

    Args:
        values: one number per image.
        level: of confidence, between 0 and 1.
        resamples: how often as many values are drawn with replacement.
        seed: of the draws.

    Returns:
        ``None`` of fewer than two values, which say nothing about their spread.

    Raises:
        UsageError: an impossible level.
    """
    numbers = np.array([float(v) for v in values])
    tail = (1 - _checked(level)) / 2
    if len(numbers) < 2:
        return None
    rng, means = np.random.default_rng(seed), np.empty(resamples)
    rows = max(1, _BLOCK // len(numbers))
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, len(numbers), (min(rows, resamples - start), len(numbers)))
        means[start : start + rows] = numbers[drawn].mean(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Range(float(low), float(high))


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two classifiers on the same samples.

    Attributes:
        only_first, only_second: samples that only the first, or only the second one has right.
        exact_p: two-sided p value of the exact conditional (binomial) test.
        mid_p: two-sided mid-p value, less conservative; the one to read.
    """

    only_first: int
    only_second: int
    exact_p: float
    mid_p: float


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """McNemar's test: are two classifiers equally often right, judged by the samples on which just one of them is?

    Q. McNemar, "Note on the Sampling Error of the Difference between Correlated Proportions or Percentages",
    Psychometrika 12 (1947) 153-157. Exact and mid-p values as in M. W. Fagerland, S. Lydersen, P. Laake, "The McNemar
    Test for Binary Matched-Pairs Data: Mid-p and Asymptotic Are Better than Exact Conditional", BMC Med. Res. Methodol.
    13:91 (2013). Computed in integers, correctly rounded.

    Args:
        only_first: samples only the first one has right.
        only_second: samples only the second one has right.

    Raises:
        UsageError: a negative count.
    """
    few, n = min(only_first, only_second), only_first + only_second
    if few < 0:
        raise UsageError(f"{few} samples are no count")
    term = tail = 1  # binomial coefficients of n, up to `few`: P(X = k) is term / 2^n for a fair coin
    for k in range(few):
        term = term * (n - k) // (k + 1)
        tail += term
    whole = 2**n
    if only_first == only_second:
        return McNemar(only_first, only_second, 1.0, (2 * whole - term) / (2 * whole))
    return McNemar(only_first, only_second, 2 * tail / whole, (2 * tail - term) / whole)


@dataclass(frozen=True)
class Flips:
    """What became of the predictions between two runs of the same samples.

    Attributes:
        samples: compared.
        same: with the same answer.
        right_to_wrong, wrong_to_right: right in one run only.
        wrong_to_wrong: another wrong answer. A failed sample is wrong, with an answer of its own.
        unlabelled: changed answers of samples whose label is not known.
    """

    samples: int
    same: int
    right_to_wrong: int
    wrong_to_right: int
    wrong_to_wrong: int
    unlabelled: int

    @property
    def changed(self) -> int:
        """Samples with another answer."""
        return self.samples - self.same


def flips(labels: Sequence[int | None], first: Sequence[int | None], second: Sequence[int | None]) -> Flips:
    """Compare predictions sample by sample; ``None`` is an unknown label, or a sample that failed.

    Args:
        labels, first, second: one entry per sample, in the same order.
    """
    found: Counter[str] = Counter()
    for label, a, b in zip(labels, first, second, strict=True):
        if a == b:
            found["same"] += 1
        elif label is None:
            found["unlabelled"] += 1
        else:
            found["right_to_wrong" if a == label else "wrong_to_right" if b == label else "wrong_to_wrong"] += 1
    kinds = ("same", "right_to_wrong", "wrong_to_right", "wrong_to_wrong", "unlabelled")
    return Flips(sum(found.values()), *(found[kind] for kind in kinds))


@dataclass(frozen=True)
class Share:
    """Successes of trials with Wilson's interval.

    Attributes:
        hits, n: successes and trials.
        interval: at 95 %; ``None`` without trials.
    """

    hits: int
    n: int
    interval: Range | None

    @staticmethod
    def of(hits: int, n: int) -> Share:
        """The share of ``hits`` in ``n``."""
        return Share(hits, n, wilson(hits, n) if n else None)

    @property
    def value(self) -> float | None:
        """The proportion; ``None`` without trials."""
        return self.hits / self.n if self.n else None


def by_class(labels: Sequence[int | None], predictions: Sequence[int | None]) -> Mapping[int, Share]:
    """Accuracy of every class that occurs among the labels; a failed sample (``None``) counts as wrong."""
    seen, right = Counter[int](), Counter[int]()
    for label, prediction in zip(labels, predictions, strict=True):
        if label is not None:
            seen[label] += 1
            right[label] += prediction == label
    return {label: Share.of(right[label], seen[label]) for label in sorted(seen)}


@dataclass(frozen=True)
class Confusion:
    """How often one class was taken for another (``predicted`` is ``None`` for samples that failed)."""

    label: int
    predicted: int | None
    count: int


def confusion(labels: Iterable[int | None], predictions: Iterable[int | None]) -> tuple[Confusion, ...]:
    """The confusion matrix without its diagonal and zeros, the most frequent first, then by class."""
    pairs = Counter(
        (label, prediction)
        for label, prediction in zip(labels, predictions, strict=True)
        if label is not None and prediction != label
    )
    found = [Confusion(label, prediction, count) for (label, prediction), count in pairs.items()]
    return tuple(sorted(found, key=lambda c: (-c.count, c.label, -1 if c.predicted is None else c.predicted)))
