"""Intervals, tests and tables of predictions against their definitions and against scipy."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from qkf_deploy.errors import UsageError
from qkf_deploy.statistics.measures import (
    Confusion,
    Flips,
    Range,
    Share,
    bootstrap_mean,
    by_class,
    confusion,
    difference_interval,
    flips,
    integer_spread,
    mcnemar,
    phi,
    wilson,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (353, 360), (38_000, 50_000)])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_wilson_is_the_inverse_of_the_score_test(hits: int, n: int, level: float) -> None:
    """Its ends are the proportions p with |hits/n - p| = z sqrt(p (1 - p) / n), found here by bisection."""
    z, found = NormalDist().inv_cdf(0.5 + level / 2), wilson(hits, n, level)

    def end(outside: float) -> float:
        inside = hits / n
        for _ in range(200):
            middle = (inside + outside) / 2
            within = abs(hits / n - middle) <= z * math.sqrt(middle * (1 - middle) / n)
            inside, outside = (middle, outside) if within else (inside, middle)
        return inside

    assert found.low == pytest.approx(end(0.0), abs=1e-12)
    assert found.high == pytest.approx(end(1.0), abs=1e-12)
    assert 0 <= found.low <= hits / n <= found.high <= 1


def test_wilson_equals_scipy() -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for hits, n in ((0, 3), (2, 9), (353, 360), (50_000, 50_000)):
        theirs = binomtest(hits, n).proportion_ci(0.95, "wilson")
        assert wilson(hits, n) == Range(pytest.approx(theirs.low, abs=1e-14), pytest.approx(theirs.high, abs=1e-14))


def test_impossible_counts_and_levels_are_refused() -> None:
    for wrong in (lambda: wilson(3, 2), lambda: wilson(-1, 2), lambda: wilson(0, 0), lambda: wilson(1, 2, 1.0),
                  lambda: bootstrap_mean([1, 2], level=0.0), lambda: mcnemar(-1, 3)):  # fmt: skip
        with pytest.raises(UsageError):
            wrong()


def _binomial(n: int, k: int) -> Fraction:
    return Fraction(math.comb(n, k), 2**n)


@pytest.mark.parametrize(("b", "c"), [*product(range(6), range(6)), (40, 61), (0, 1200), (500, 501)])
def test_mcnemar_is_the_binomial_sum(b: int, c: int) -> None:
    found, few = mcnemar(b, c), min(b, c)
    tail = sum((_binomial(b + c, k) for k in range(few + 1)), Fraction(0))
    assert found.exact_p == float(min(Fraction(1), 2 * tail))
    mid = 1 - _binomial(2 * b, b) / 2 if b == c else 2 * tail - _binomial(b + c, few)
    assert found.mid_p == float(mid)
    assert found.mid_p <= found.exact_p <= 1
    assert mcnemar(c, b).mid_p == found.mid_p


def test_mcnemar_equals_scipy_and_the_published_example() -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for b, c in ((1, 7), (59, 6), (13, 13)):
        assert mcnemar(b, c).exact_p == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-12)
    # Fagerland et al. 2013, airway hyper-responsiveness: 7 and 1 discordant pairs, exact 0.070, mid-p 0.039
    assert (round(mcnemar(1, 7).exact_p, 3), round(mcnemar(1, 7).mid_p, 3)) == (0.070, 0.039)


def test_bootstrap_is_repeatable_and_near_the_normal_interval() -> None:
    values = np.random.default_rng(5).gamma(2.0, 3.0, 4000)
    found = bootstrap_mean(values)
    assert found == bootstrap_mean(list(values)) != bootstrap_mean(values, seed=1)
    half = 1.959964 * values.std(ddof=1) / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=half / 8)
    assert found.high == pytest.approx(values.mean() + half, abs=half / 8)


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    covered = sum(r.low <= 2.0 <= r.high for r in (bootstrap_mean(rng.gamma(2.0, 1.0, 60), 0.8) for _ in range(300)))
    assert 220 <= covered <= 255  # 240 expected, standard deviation 7


def test_few_values_have_no_spread() -> None:
    assert bootstrap_mean([]) is bootstrap_mean([3.0]) is None
    assert bootstrap_mean([4.0, 4.0]) == Range(4.0, 4.0)
    assert integer_spread(np.array([7])) == (7, None)
    assert integer_spread(np.array([1, 3])) == (4, math.sqrt(2))
    assert integer_spread(np.array([5, 5, 5])) == (15, 0.0)


@pytest.mark.parametrize("reach", [3, 2**20, 2**33, 2**52, 2**62])
def test_the_spread_of_integers_is_exact_and_knows_no_order(reach: int) -> None:
    rng = np.random.default_rng(reach)
    for low, n in ((-reach, 50), (0, 501), (reach - 2, 8)):
        values = rng.integers(low, reach, n, endpoint=True)
        numbers = [int(v) for v in values]
        mean = Fraction(sum(numbers), n)
        variance = sum((v - mean) ** 2 for v in numbers) / (n - 1)
        assert integer_spread(values) == integer_spread(rng.permutation(values)) == (sum(numbers), math.sqrt(variance))


def test_flips_name_their_direction() -> None:
    labels = [0, 1, 2, 3, 4, 0, None, None, 1]
    first_ = [0, 1, 2, 0, 0, 1, 1, 1, None]
    second = [0, 0, 1, 3, 1, 0, 1, 2, None]
    assert flips(labels, first_, second) == Flips(9, 3, 2, 2, 1, 1)
    assert flips(labels, second, first_) == Flips(9, 3, 2, 2, 1, 1)
    assert flips([5], [5], [None]) == Flips(1, 0, 1, 0, 0, 0)  # what failed is wrong
    assert flips([5, 5], [1, None], [None, 1]).wrong_to_wrong == 2


def test_classes_and_confusions_keep_failed_samples() -> None:
    labels = [3, 3, 3, 0, 0, 7, None, 3]
    answers = [3, 1, None, 0, 3, 7, 7, 1]
    assert by_class(labels, answers) == {0: Share.of(1, 2), 3: Share.of(1, 4), 7: Share.of(1, 1)}
    assert confusion(labels, answers) == (Confusion(3, 1, 2), Confusion(0, 3, 1), Confusion(3, None, 1))
    assert Share.of(0, 0) == Share(0, 0, None)
    assert Share.of(0, 0).value is None
    assert Share.of(3, 4).interval == wilson(3, 4)


@pytest.mark.parametrize("seed", range(4))
def test_tables_of_predictions_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, first, second = (rng.integers(0, 4, 200).tolist() for _ in range(3))
    found, matrix = flips(labels, first, second), np.zeros((4, 4), int)
    for label, answer in zip(labels, first, strict=True):
        matrix[label, answer] += 1
    right = np.array(first) == labels, np.array(second) == labels
    assert found.right_to_wrong == (right[0] & ~right[1]).sum()
    assert found.wrong_to_right == (~right[0] & right[1]).sum()
    assert found.changed == found.right_to_wrong + found.wrong_to_right + found.wrong_to_wrong
    assert {(c.label, c.predicted): c.count for c in confusion(labels, first)} == {
        (i, j): int(matrix[i, j]) for i, j in product(range(4), range(4)) if i != j and matrix[i, j]
    }
    assert {k: (v.hits, v.n) for k, v in by_class(labels, first).items()} == {
        i: (int(matrix[i, i]), int(matrix[i].sum())) for i in range(4)
    }


def test_difference_of_independent_proportions_as_newcombe_prints_it() -> None:
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 (Stat. Med. 17 (1998) 873-890, table II, method 10)."""
    shares = [(hits / n, wilson(hits, n)) for hits, n in ((48, 80), (56, 70))]
    found = difference_interval(*shares)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)


def test_difference_of_paired_proportions() -> None:
    """Halves that agree differ by nothing; pairs that agree leave less open; what is turned round is negated."""
    half = (0.5, wilson(50, 100))
    found = difference_interval(half, half, phi(50, 0, 0, 50))
    assert (found.low, found.high) == pytest.approx((0, 0), abs=1e-9)
    same = (0.9, wilson(90, 100))
    assert phi(25, 25, 25, 25) == 0
    assert phi(10, 0, 0, 0) == 0
    assert phi(0, 5, 5, 0) == -1
    other = (0.85, wilson(85, 100))
    forth, back = difference_interval(same, other, 0.3), difference_interval(other, same, 0.3)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    plain = difference_interval(same, other)
    assert plain.low < forth.low < -0.05 < forth.high < plain.high
