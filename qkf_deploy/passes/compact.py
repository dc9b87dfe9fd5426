"""Arrays that stand for every element of a value, of size 1 along the axes on which they do not depend."""

from __future__ import annotations

import numpy as np

from qkf_deploy.ir import View


def compact(x: np.ndarray) -> np.ndarray:
    """Axes along which nothing changes, cut to size 1."""
    for axis in range(x.ndim):
        first = x.take([0], axis=axis)
        if x.shape[axis] > 1 and (x == first).all():
            x = first
    return x


def viewed(x: np.ndarray, shape: tuple[int, ...], view: View) -> np.ndarray:
    """What stands for a value of this shape, as it stands for the value seen through a view."""
    return compact(view.apply(np.broadcast_to(x, shape), lead=0))
