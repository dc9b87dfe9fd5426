"""Matrix products that are exact for integers."""

from __future__ import annotations

import numpy as np

from qkf_deploy.errors import ProofError

#: float64 holds every integer up to 2**53, so sums below it are exact in any order.
_FLOAT64_EXACT = 2**53
_INT64_LIMIT = 2**63


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a @ b``; for integers exactly, never wrapping around.

    Integer products go through float64 BLAS where no partial sum can reach 2**53 (about 15 times faster than numpy's
    int64 product), otherwise through int64.

    Raises:
        ProofError: an integer sum could pass 63 bits.
    """
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        return a @ b
    bound = _magnitude(a) * _magnitude(b) * a.shape[-1]
    if bound < _FLOAT64_EXACT:
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    if bound >= _INT64_LIMIT:
        raise ProofError(f"a sum of {a.shape[-1]} products can reach {bound}, more than 63 bits", hint="use fewer bits")
    return a.astype(np.int64) @ b.astype(np.int64)


def _magnitude(x: np.ndarray) -> int:
    return max(abs(int(x.max(initial=0))), abs(int(x.min(initial=0))))


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """True if an array of this shape broadcasts to ``target`` without making it larger."""
    ends = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(n in (1, wanted) for n, wanted in ends)


def signed_bits(low: int, high: int) -> int:
    """Bits of the smallest two's-complement integer that holds ``low..high``; exact at powers of two."""
    return max((~low if low < 0 else low).bit_length(), (~high if high < 0 else high).bit_length()) + 1
