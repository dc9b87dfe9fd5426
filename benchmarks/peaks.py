"""Speed of the inner loops on data that stays in the first cache: what no layer can exceed on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numba import njit

from qkf_deploy.ledger import LayerRecord
from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.kernels.alignment import aligned
from qkf_deploy.simulators.event.kernels.dense import TILE, dense_block
from qkf_deploy.simulators.event.kernels.gather import UNIT, widen_row
from qkf_deploy.simulators.event.kernels.vector_ir import address

_REPEATS = 7
_UNITS, _ROWS, _EVENTS = 6, 96, 4096
_INPUTS, _BLOCK = 384, 16


@dataclass(frozen=True)
class Peaks:
    """Rates per second: synaptic operations by gathering, byte and word multiply-accumulates."""

    gather: float
    dense_bytes: float
    dense_words: float


#: What plain AVX-512 loops reach on one Zen 5 core: weight rows widened and added one at a time, and ``vpdpbusd``. A
#: yardstick that does not change with the kernels; of another CPU it says nothing.
NOMINAL = Peaks(gather=146e9, dense_bytes=463e9, dense_words=463e9)


@njit(nogil=True)
def _gather_many(isa, w, idx, val, segments, base, x, times):  # type: ignore[no-untyped-def]
    for _ in range(times):
        widen_row(isa, 6, address(w), address(idx), address(val), address(segments), 1, address(base), address(x))


@njit(nogil=True)
def _dense_many(isa, a, starts, rows, taps, flush, w, x, times):  # type: ignore[no-untyped-def]
    for _ in range(times):
        dense_block(isa, a, starts, rows, taps, flush, w, x)


def _rate(work: float, run, *arguments: object) -> float:  # type: ignore[no-untyped-def]
    run(*arguments)
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run(*arguments)
        best = min(best, time.perf_counter() - start)
    return work / best


def measure(isa: Isa) -> Peaks:
    """Best of a few runs of a few milliseconds each."""
    rng = np.random.default_rng(0)
    width = UNIT * _UNITS
    w = aligned(rng.integers(-127, 128, _ROWS * width).astype(np.int8))
    idx, val = rng.integers(0, _ROWS, _EVENTS).astype(np.uint16), np.ones(_EVENTS, np.uint8)
    segments = np.array([[0, _EVENTS // 2, 0, _EVENTS]], np.int32)
    x = np.zeros(width, np.int32)
    times = 20
    gathered = _rate(_EVENTS * width * times, _gather_many, isa.tag, w, idx, val, segments, x, x, times)
    dense = []
    for dtype, group in ((np.uint8, 4), (np.int16, 2)):
        a = rng.integers(0, 2, _BLOCK * _INPUTS).astype(dtype)
        weights = aligned(
            rng.integers(-127, 128, (1, _INPUTS // group, TILE, group)).astype(np.int8 if group == 4 else np.int16)
        )
        starts = np.concatenate([np.arange(_BLOCK) * _INPUTS, np.zeros(8, np.int64)])
        out = np.zeros((_BLOCK + 8, TILE), np.int32)
        work = _BLOCK * _INPUTS * TILE * times * 10
        dense.append(
            _rate(work, _dense_many, isa.tag, a, starts, _BLOCK, np.zeros(1, np.int64), 64, weights, out, times * 10)
        )
    return Peaks(gathered, *dense)


def roofline_seconds(layers: list[LayerRecord], time_steps: int, images: int, peaks: Peaks) -> float:
    """Time of all synapses of one image if every one ran at its faster peak and everything else were free."""
    total = 0.0
    for layer in layers:
        if layer.op != "conv":
            continue
        if "ac_graded" in layer.counts:
            by_event = layer.total("ac_graded") / images / peaks.gather
            total += min(by_event, layer.border_exact_macs * time_steps / peaks.dense_bytes)
        else:
            total += layer.border_exact_macs / peaks.dense_words
    return total
