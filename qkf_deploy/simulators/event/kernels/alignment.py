"""Arrays that begin on a cache line: a vector that lies across two lines takes two accesses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qkf_deploy.simulators.event.kernels.compiling import kernel
from qkf_deploy.simulators.event.kernels.vector_ir import CACHE_LINE, address


def aligned_empty(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An uninitialized array that starts on a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + size].view(dtype).reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that starts on a cache line."""
    out = aligned_empty(array.shape, array.dtype.type)
    out[...] = array
    return out


@kernel()
def scratch(count: int, dtype: Any) -> Any:
    """An uninitialized flat array that starts on a cache line, for compiled code."""
    buffer = np.empty(count + CACHE_LINE, dtype)
    first = (-address(buffer) % CACHE_LINE) // buffer.itemsize
    return buffer[first : first + count]
