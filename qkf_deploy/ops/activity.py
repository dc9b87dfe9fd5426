"""What counting rules ask of a value ``(T or 1, B, *shape)``: exact sums per image, int64 ``(B,)``.

The rules of the operators know no more of a value than its ``shape`` and these functions, so an engine that keeps
values in another form counts by the same rules: it registers how to answer for its own class.
"""

from __future__ import annotations

import math
from functools import singledispatch

import numpy as np

from qkf_deploy.ops.exact import matmul


def elements_per_image(x: np.ndarray) -> int:
    """Elements of one image, all its time steps."""
    return math.prod(x.shape) // max(x.shape[1], 1)


@singledispatch
def per_image(x: np.ndarray) -> np.ndarray:
    """Sum over everything but the batch."""
    return x.sum(axis=(0, *range(2, x.ndim)), dtype=np.int64)


@singledispatch
def nonzero_per_image(x: np.ndarray) -> np.ndarray:
    """Number of non-zero elements."""
    return np.count_nonzero(x, axis=(0, *range(2, x.ndim))).astype(np.int64)


@singledispatch
def per_step(x: np.ndarray) -> np.ndarray:
    """Sum at each time step, int64 ``(T, B)``."""
    return x.sum(axis=tuple(range(2, x.ndim)), dtype=np.int64)


@singledispatch
def weighted(x: np.ndarray, fanout: np.ndarray) -> np.ndarray:
    """Σ x · fan-out of whole numbers.

    Args:
        x: the value.
        fanout: int64, not negative, broadcastable to its per-step shape.
    """
    per_position = x.astype(np.int64).sum(axis=0)
    return (per_position * fanout).sum(axis=tuple(range(1, per_position.ndim)), dtype=np.int64)


@singledispatch
def weighted_nonzero(x: np.ndarray, fanout: np.ndarray) -> np.ndarray:
    """Σ fan-out over the non-zero elements; arguments as of :func:`weighted`."""
    return weighted(x != 0, fanout)


@singledispatch
def magnitude(x: np.ndarray) -> np.ndarray:
    """|x|: spikes of signed events, whatever their polarity."""
    return np.abs(x)


@singledispatch
def negative(x: np.ndarray) -> np.ndarray:
    """-x where x is negative, else 0: spikes of negative polarity."""
    return np.maximum(-x, 0)


@singledispatch
def polarity(x: np.ndarray) -> np.ndarray:
    """-1, 0 or 1."""
    return np.sign(x)


@singledispatch
def product_sum(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sum of all elements of a matrix product of whole numbers."""
    return per_image(matmul(left, right))


@singledispatch
def both_nonzero(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Number of places where two values of one shape are both non-zero."""
    return nonzero_per_image((a != 0) & (b != 0))


@singledispatch
def coincidences(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pairs of non-zero elements that a matrix product of two values multiplies."""
    return per_image(matmul((left != 0).astype(np.int64), (right != 0).astype(np.int64)))
