"""Which instructions this CPU has, and which tier of kernels that selects.

A tier is one of three sets of kernels that compute the same integers:

- ``vnni``: AVX-512 with VNNI, 64-byte vectors, ``vpdpbusd`` for dense products;
- ``vector``: LLVM vector code; on x86 with AVX2 it uses the byte multiply-add instructions, elsewhere portable code;
- ``numba``: plain loops that numba compiles anywhere.

The environment variable ``QKF_EVENT_TIER`` forces a tier.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from llvmlite import binding

from qkf_deploy.errors import UsageError

Tier = Literal["vnni", "vector", "numba"]
TIERS: tuple[Tier, ...] = ("vnni", "vector", "numba")
TIER_VARIABLE = "QKF_EVENT_TIER"

_VNNI_FEATURES = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")
_AVX2_FEATURES = ("avx2",)


@dataclass(frozen=True)
class Isa:
    """Instruction set of a tier on this CPU.

    Attributes:
        tier: the tier.
        name: what the kernels use, for reports.
        tag: numpy scalar passed to every kernel; its *type* selects the instructions when the kernel is compiled.
        dense_crossover: fraction of non-zero inputs from which the dense kernel is faster than gathering events.
        saturating_pairs: True if dense byte products are added in pairs to 16 bits (``vpmaddubsw``), which limits the
            values.
        vector_bytes: bytes per vector, 0 for plain loops.
        strip_bytes: weights that one pass over the rows of a block should read at most.
    """

    tier: Tier
    name: str
    tag: np.generic
    dense_crossover: float
    saturating_pairs: bool
    vector_bytes: int
    strip_bytes: int


_KIB = 1024

# Crossovers: where the event and dense kernels took equal time in the layers of HST-10-384 (portable: in the single
# kernels). Strips: half a second cache; with 64-byte vectors, which outrun that cache, most of a first one.
# They steer speed only, never a result.
PLAIN = Isa("numba", "plain numba", np.int64(0), 2.0, False, 0, 256 * _KIB)
PORTABLE = Isa("vector", "portable vectors", np.int8(0), 0.6, False, 64, 256 * _KIB)
AVX2 = Isa("vector", "AVX2", np.int16(0), 0.48, True, 32, 256 * _KIB)
VNNI = Isa("vnni", "AVX-512 VNNI", np.int32(0), 0.33, False, 64, 40 * _KIB)


@cache
def host_features() -> frozenset[str]:
    """LLVM names of the features of this CPU."""
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


def available_tiers() -> tuple[Tier, ...]:
    """Tiers this CPU can run, fastest first."""
    return TIERS if _has(_VNNI_FEATURES) else TIERS[1:]


def _has(features: tuple[str, ...]) -> bool:
    return host_features().issuperset(features)


def select(tier: str | None = None) -> Isa:
    """The instruction set to use.

    Args:
        tier: a tier, or ``None`` for the one in ``QKF_EVENT_TIER``, or else the fastest this CPU has.

    Raises:
        UsageError: an unknown tier, or one this CPU lacks.
    """
    chosen = tier or os.environ.get(TIER_VARIABLE) or available_tiers()[0]
    if chosen not in TIERS:
        raise UsageError(f"unknown tier {chosen!r}", where=TIER_VARIABLE, hint=f"one of: {', '.join(TIERS)}")
    if chosen not in available_tiers():
        missing = sorted(set(_VNNI_FEATURES) - host_features())
        raise UsageError(
            f"this CPU cannot run the tier {chosen!r}: it lacks {', '.join(missing)}",
            where=TIER_VARIABLE,
            hint=f"one of: {', '.join(available_tiers())}",
        )
    if chosen == "vnni":
        return VNNI
    if chosen == "numba":
        return PLAIN
    return AVX2 if _has(_AVX2_FEATURES) else PORTABLE
