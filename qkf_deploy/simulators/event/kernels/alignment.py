"""Arrays that begin on a cache line: a vector that lies across two lines takes two accesses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.core.imputils import impl_ret_new_ref
from numba.extending import intrinsic
from numba.np import arrayobj

from qkf_deploy.simulators.event.kernels.vector_ir import CACHE_LINE, const


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


def _allocation(*, zeroed: bool) -> Any:
    """Makes an array in compiled code; what numba has for it is compiled for each element type and shape apart."""

    def typed(typingctx: Any, shape: Any, dtype: Any) -> Any:
        several = isinstance(shape, types.BaseTuple)
        kind = types.Array(dtype.dtype, len(shape) if several else 1, "C")

        def generate(context: Any, b: Any, sig: Any, args: Any) -> Any:
            sizes = cgutils.unpack_tuple(b, args[0]) if several else [args[0]]
            itemsize = const(kind.dtype.bitwidth // 8)
            strides = [itemsize]
            for size in reversed(sizes):
                strides.insert(0, b.mul(strides[0], size))
            meminfo = context.nrt.meminfo_alloc_aligned(b, strides[0], CACHE_LINE)
            data = context.nrt.meminfo_data(b, meminfo)
            if zeroed:
                cgutils.memset(b, data, strides[0], 0)
            array = arrayobj.make_array(kind)(context, b)
            element = context.get_data_type(kind.dtype).as_pointer()
            arrayobj.populate_array(array, b.bitcast(data, element), sizes, strides[1:], itemsize, meminfo)
            return impl_ret_new_ref(context, b, kind, array._getvalue())

        return kind(types.UniTuple(types.int64, kind.ndim) if several else types.int64, dtype), generate

    return intrinsic(typed)


#: An uninitialized array, and one of zeros, that start on a cache line, for compiled code: ``(shape, dtype)``.
scratch, zeros = _allocation(zeroed=False), _allocation(zeroed=True)
