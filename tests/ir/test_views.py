"""Views: any chain of reshapes, transpositions and slices reads what numpy reads."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qkf_deploy.errors import GraphError
from qkf_deploy.ir import View, compose, identity

SHAPES = [(12,), (4, 6), (1, 8, 3), (6, 1, 4), (2, 3, 4), (8, 4, 4), (1, 1, 1), (2, 1, 3, 4), (5, 7)]
LEADS = [0, 1, 2]


def factorizations(rng: np.random.Generator, size: int) -> tuple[int, ...]:
    """A random shape of ``size`` elements, ones included."""
    shape = []
    while size > 1:
        divisors = [d for d in range(2, size + 1) if size % d == 0]
        pick = int(rng.choice(divisors))
        shape.append(pick)
        size //= pick
    for _ in range(int(rng.integers(0, 3))):
        shape.insert(int(rng.integers(0, len(shape) + 1)), 1)
    return tuple(shape) or (1,)


def random_step(rng: np.random.Generator, view: View, x: np.ndarray) -> tuple[View, np.ndarray] | None:
    """One more reshape, transposition or slice on both sides; None where a view cannot say it."""
    kind = rng.integers(0, 3)
    if kind == 0:
        shape = factorizations(rng, x.size)
        try:
            return view.then(shape), x.reshape(shape)
        except GraphError:
            return None
    if kind == 1:
        order = [int(i) for i in rng.permutation(x.ndim)]
        return view.transposed(order), x.transpose(order)
    axis = int(rng.integers(0, x.ndim))
    start = int(rng.integers(0, x.shape[axis]))
    stop = int(rng.integers(start + 1, x.shape[axis] + 1))
    try:
        return view.narrowed(axis, start, stop), x[(slice(None),) * axis + (slice(start, stop),)]
    except GraphError:
        return None


def random_view(rng: np.random.Generator, shape: tuple[int, ...], steps: int) -> tuple[View, np.ndarray, np.ndarray]:
    """A view made of random steps, its source and what numpy makes of the same steps."""
    source = rng.permutation(int(np.prod(shape))).reshape(shape)
    view, expected = identity(shape), source
    for _ in range(steps):
        step = random_step(rng, view, expected)
        view, expected = (view, expected) if step is None else step
    return view, source, expected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(40))
def test_random_chains_read_what_numpy_reads(shape: tuple[int, ...], seed: int) -> None:
    view, source, expected = random_view(np.random.default_rng(seed), shape, steps=6)
    assert view.shape == expected.shape
    assert np.array_equal(view.apply(source, lead=0), expected)
    assert view.keeps_all == (expected.size == source.size)
    if view.is_reshape:
        assert np.array_equal(source.reshape(-1), expected.reshape(-1))
    elif view.keeps_all:
        assert not np.array_equal(source.reshape(-1), expected.reshape(-1))


@pytest.mark.parametrize("lead", LEADS)
def test_leading_axes_pass_through(lead: int) -> None:
    rng = np.random.default_rng(lead)
    view, source, _ = random_view(rng, (4, 6, 2), steps=5)
    stacked = rng.integers(0, 9, (3, 2)[:lead] + source.shape)
    got = view.apply(stacked, lead=lead)
    assert got.shape == stacked.shape[:lead] + view.shape
    for index in np.ndindex(*stacked.shape[:lead]):
        assert np.array_equal(got[index], view.apply(stacked[index], lead=0))


@pytest.mark.parametrize("seed", range(60))
def test_composition(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    first, source, between = random_view(rng, (4, 6, 2), steps=3)
    second, _, _ = random_view(rng, between.shape, steps=3)
    expected = second.apply(between, lead=0)
    try:
        joined = compose(first, second)
    except GraphError:
        pytest.skip("the second view cuts through axes of the first")
    assert joined is not None
    assert joined.shape == expected.shape
    assert np.array_equal(joined.apply(source, lead=0), expected)


def test_most_compositions_are_expressible() -> None:
    """Guards the skip above: a composition that always refused would pass it."""
    refused = 0
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        first, _, between = random_view(rng, (4, 6, 2), steps=3)
        second, _, _ = random_view(rng, between.shape, steps=3)
        try:
            compose(first, second)
        except GraphError:
            refused += 1
    assert refused <= 20


def test_none_changes_nothing() -> None:
    view = View.of((2, 3), (1, 0), (3, 2))
    assert compose(None, None) is None
    assert compose(view, None) is view
    assert compose(None, view) is view


def test_json_round_trip() -> None:
    for seed in range(20):
        view, source, expected = random_view(np.random.default_rng(seed), (8, 4, 4), steps=5)
        split, take, perm, shape = json.loads(json.dumps([view.split, view.take, view.perm, view.shape]))
        again = View(tuple(split), tuple(map(tuple, take)), tuple(perm), tuple(shape))
        assert again == view
        assert np.array_equal(again.apply(source, lead=0), expected)


@pytest.mark.parametrize(
    "fields",
    [
        ((4,), ((0, 4),), (0,), (5,)),  # other number of elements
        ((4,), ((0, 5),), (0,), (5,)),  # takes more than there is
        ((4,), ((2, 2),), (0,), (0,)),  # takes nothing
        ((4,), ((-1, 3),), (0,), (4,)),  # starts before the beginning
        ((2, 2), ((0, 2), (0, 2)), (0, 0), (4,)),  # an axis twice
        ((2, 2), ((0, 2),), (0, 1), (4,)),  # an axis without a range
    ],
)
def test_impossible_views_are_refused(fields: tuple) -> None:
    with pytest.raises(GraphError, match="does not describe an array"):
        View(*fields)


def test_reshape_through_a_permutation_is_refused_where_it_has_no_axes() -> None:
    swapped = identity((4, 6)).transposed([1, 0])
    assert swapped.then((3, 2, 2, 2)).shape == (3, 2, 2, 2)
    with pytest.raises(GraphError, match="cuts through an axis"):
        swapped.then((4, 6))
    with pytest.raises(GraphError, match="cannot reshape"):
        swapped.then((5, 5))


def test_heads_of_attention() -> None:
    """The split of Q-K attention: tokens (C, N) to (heads, N, d), as torch does it."""
    x = np.arange(8 * 5).reshape(8, 5)
    view = identity((8, 5)).transposed([1, 0]).then((5, 2, 4)).transposed([1, 0, 2])
    assert np.array_equal(view.apply(x, lead=0), x.T.reshape(5, 2, 4).transpose(1, 0, 2))
