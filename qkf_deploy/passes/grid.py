"""Weights that lie on a grid already: integers times a step, as quantization-aware training leaves them.

A grid is looked for in the whole tensor first and then in every channel (batch norms scale each channel by its own
gain). Where it is kept, sums that meet a threshold exactly in the float network meet it in the integer network too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Steps are looked for up to this many levels where rounding hides the exact one; finer grids are no grids.
_MOST_LEVELS = 2**15
#: Bits of agreement beyond chance before a common step counts as a grid of the model's own.
_EVIDENCE = 20.0
_FLOAT64, _FLOAT32 = 2.0**-50, 2.0**-23


@dataclass(frozen=True)
class Grid:
    """Steps of the channels of one synapse.

    Attributes:
        step: float64 ``(O,)``, NaN for channels without one.
        own: True where so many weights agree that the step is no coincidence, bool ``(O,)``.
    """

    step: np.ndarray
    own: np.ndarray


def find_grid(weight: np.ndarray, limit: int) -> Grid:
    """The step of every channel, so that weight / step are integers within ``limit``.

    A step is taken where it represents the weights exactly, or as well as float32 storage of k·step does and no worse
    than ``limit`` levels of the largest weight would.

    Args:
        weight: ``(O, ...)`` float64.
        limit: largest integer.
    """
    rows = np.abs(weight.reshape(len(weight), -1))
    whole = _find(rows.reshape(1, -1), limit)
    if whole.own[0]:
        step = np.where(rows.any(axis=1), whole.step[0], np.nan)
        return Grid(step, ~np.isnan(step))
    return _find(rows, limit)


def unit(grid: Grid, weight: np.ndarray, bias: np.ndarray | None, limit: int, *, finest: bool) -> np.ndarray:
    """The step of every channel, halved as often as its bias needs to lie on the grid too, or as ``limit`` allows.

    Args:
        grid: of the synapse.
        weight: ``(O, ...)``.
        bias: ``(O, ...)`` in the same unit, or ``None``.
        limit: largest integer of a weight.
        finest: as often as ``limit`` allows, whatever the bias.
    """
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    levels = np.where(np.isnan(grid.step), 1.0, np.rint(largest / grid.step))
    room = np.floor(np.log2(limit / np.maximum(levels, 1.0))).astype(np.int64)
    halvings = room.copy()
    for i in () if finest else range(int(room.max(initial=0)), -1, -1):
        step = grid.step * 2.0**-i
        halvings = np.where(grid.own & (i <= room) & _on_grid(bias, step), i, halvings)
    return np.ldexp(grid.step, -halvings)


def is_own_grid(integers: np.ndarray) -> bool:
    """True if integer weights use so few levels for their number that they came from a grid."""
    values = np.abs(integers.reshape(-1).astype(np.int64))
    count = np.count_nonzero(values)
    if not count:
        return False
    levels = int(values.max()) // int(np.gcd.reduce(values))
    return bool(_evidence(np.array([float(levels)]), np.array([count]), np.array([_FLOAT32]))[0])


def _on_grid(bias: np.ndarray | None, step: np.ndarray) -> np.ndarray:
    if bias is None:
        return np.ones(len(step), bool)
    integers = bias.reshape(len(bias), -1) / step[:, None]
    off = np.abs(integers - np.rint(integers)) > 8 * np.finfo(np.float64).eps * np.abs(integers)
    return np.asarray(~off.any(axis=1))


def _find(rows: np.ndarray, limit: int) -> Grid:
    exact, levels = _exact_step(rows, limit)
    noise = np.where((rows == rows.astype(np.float32)).all(axis=1), _FLOAT32, _FLOAT64)
    count = np.count_nonzero(rows, axis=1)
    own = ~np.isnan(exact) & _evidence(levels, count, noise)
    rounded = _rounded_step(rows, limit)
    step = np.where(own | np.isnan(rounded), exact, rounded)
    return Grid(step, own | ~np.isnan(rounded))


def _evidence(levels: np.ndarray, count: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """True where ``count`` weights on ``levels`` levels within ``noise`` are no coincidence."""
    size = np.log2(np.maximum(levels, 1.0))
    chance = size + (count - 1) * np.minimum(size + 1 + np.log2(noise), 0.0)
    return np.asarray(chance < -_EVIDENCE)


def _exact_step(rows: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Greatest common divisor of the floats of each row where at least two fit ``limit`` levels, and the levels."""
    mantissa, exponent = np.frexp(rows)
    digits = (mantissa * 2.0**53).astype(np.int64)
    lowest = np.frexp((digits & -digits).astype(np.float64))[1] - 1 + exponent - 53
    lowest = np.where(rows > 0, lowest, np.iinfo(np.int32).max).min(axis=1)
    top = np.where(rows > 0, exponent, np.iinfo(np.int32).min).max(axis=1)
    fits = (np.count_nonzero(rows, axis=1) > 1) & (top - lowest.astype(np.int64) <= 53)
    lowest = np.where(fits, lowest, 0)
    integers = np.where(fits[:, None], np.ldexp(rows, -lowest[:, None]), 0.0).astype(np.int64)
    divisor = np.gcd.reduce(integers, axis=1)
    levels = integers.max(axis=1) / np.maximum(divisor, 1)
    fits &= levels <= limit
    return np.where(fits, np.ldexp(divisor.astype(np.float64), lowest), np.nan), np.where(fits, levels, np.inf)


def _rounded_step(rows: np.ndarray, limit: int) -> np.ndarray:
    """A step that the weights are multiples of up to rounding, NaN where there is none."""
    most = min(limit, _MOST_LEVELS)
    largest = rows.max(axis=1)
    divisor = _float_gcd(rows, largest / (2 * most))
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.rint(largest / divisor)
        step = largest / levels
        step = np.where(np.isfinite(step) & (levels <= most), step, np.nan)
        stored = step.astype(np.float32).astype(np.float64)[:, None]  # a float32 step, its multiples rounded to float32
        same = (np.float32(np.rint(rows / stored) * stored) == rows).all(axis=1)
        step = np.where(same, stored[:, 0], step)
        off = np.abs(rows - np.rint(rows / step[:, None]) * step[:, None])
        relative = np.where(rows > 0, off / rows, 0.0).max(axis=1)
    good = (relative <= _FLOAT32) & (off.max(axis=1) <= largest / (2 * limit))
    noise = np.maximum(relative, _FLOAT64)
    good &= _evidence(np.where(good, levels, np.inf), np.count_nonzero(rows, axis=1), np.where(good, noise, 1.0))
    return np.where(good, step, np.nan)


def _float_gcd(rows: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Euclid's algorithm on each row, remainders below ``least`` taken as zero; zero where nothing larger divides."""
    x = np.where(rows > least[:, None], rows, 0.0)
    while x.shape[1] > 1:
        if x.shape[1] % 2:
            x = np.pad(x, [(0, 0), (0, 1)])
        half = x.shape[1] // 2
        x = _gcd_pairs(x[:, :half], x[:, half:], least[:, None])
        x[(x > 0).any(axis=1) & ((x > 0) & (x < 1.8 * least[:, None])).any(axis=1)] = 0.0
        if not x.any():
            break
    return x[:, 0]


def _gcd_pairs(a: np.ndarray, b: np.ndarray, least: np.ndarray) -> np.ndarray:
    high, low = np.maximum(a, b), np.minimum(a, b)
    while True:
        going = low > least
        if not going.any():
            return np.where(low > least, low, high)
        divisor = np.where(going, low, 1.0)
        rest = np.abs(high - np.rint(high / divisor) * divisor)
        high, low = np.where(going, low, high), np.where(going, rest, low)
