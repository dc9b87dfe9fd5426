"""Accuracy over energy as plain numbers for the page's SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qkf_deploy.display.numbers import joules, percent
from qkf_deploy.report.charts import Key
from qkf_deploy.statistics.comparison import Side
from qkf_deploy.statistics.comparison_tables import bits_of

_LEFT, _TOP, _WIDTH, _HEIGHT = 72.0, 22.0, 640.0, 320.0
_LINE, _LETTER = 13.0, 8.0  # room that a label takes
_STYLES = 6  # fills of the style sheet: s0 ... s5


@dataclass(frozen=True)
class Mark:
    """One point: its place, the ends of its error bar (accuracy at 95 %), its label and place, and all in words."""

    x: float
    y: float
    low: float
    high: float
    style: str
    label: str
    title: str
    label_x: float = 0.0
    label_y: float = 0.0


@dataclass(frozen=True)
class Tick:
    """A line of the grid and its number."""

    at: float
    text: str


@dataclass(frozen=True)
class Scatter:
    """A plot in pixels; the area lies between (left, top) and (right, bottom).

    Attributes:
        lines: SVG path data and style, one per T: the widths in order.
        keys: one per T.
    """

    left: float
    top: float
    right: float
    bottom: float
    width: float
    height: float
    marks: tuple[Mark, ...]
    lines: tuple[tuple[str, str], ...]
    horizontal: tuple[Tick, ...]
    vertical: tuple[Tick, ...]
    keys: tuple[Key, ...]


def accuracy_over_energy(points: Sequence[Side]) -> Scatter | None:
    """One mark per point of a sweep, a line per T; ``None`` where nothing has an accuracy."""
    shown = [p for p in points if p.accuracy is not None and p.accuracy.interval is not None]
    if not shown:
        return None
    axes = _Axes.of(shown)
    steps = sorted({p.time_steps for p in shown})
    styles = {t: f"s{i % _STYLES}" for i, t in enumerate(steps)}
    marks = {t: [axes.mark(p, styles[t]) for p in shown if p.time_steps == t] for t in steps}
    marks = _labelled(marks)
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    return Scatter(
        _LEFT, _TOP, right, bottom, right + 60, bottom + 44,
        tuple(m for t in steps for m in marks[t]),
        tuple((_path(marks[t]), styles[t]) for t in steps if len(marks[t]) > 1),
        tuple(Tick(axes.y(v), percent(v)) for v in axes.shares),
        tuple(Tick(axes.x(v), joules(v)) for v in axes.energies),
        tuple(Key(styles[t], f"T = {t}") for t in steps),
    )  # fmt: skip


@dataclass(frozen=True)
class _Axes:
    """The numbers along the two axes, and where a value lies."""

    energies: tuple[float, ...]
    shares: tuple[float, ...]

    @staticmethod
    def of(points: Sequence[Side]) -> _Axes:
        ends = [end for p in points for end in _interval(p)]
        return _Axes(_ticks(0.0, max(float(p.energy_pj.mean) for p in points)), _ticks(min(ends), max(ends)))

    def x(self, energy: float) -> float:
        return round(_LEFT + _WIDTH * energy / self.energies[-1], 1)

    def y(self, share: float) -> float:
        low, high = self.shares[0], self.shares[-1]
        return round(_TOP + _HEIGHT * (high - share) / (high - low), 1)

    def mark(self, point: Side, style: str) -> Mark:
        low, high = _interval(point)
        share = point.accuracy.value if point.accuracy else None
        energy = float(point.energy_pj.mean)
        bits = str(min(point.bits)) if point.bits else point.arithmetic  # the first layer keeps more
        words = f"T = {point.time_steps}, {bits_of(point)} bits: {percent(share or 0.0)} at {joules(energy)}"
        return Mark(self.x(energy), self.y(share or 0.0), self.y(low), self.y(high), style, bits, words)


def _labelled(marks: Mapping[int, Sequence[Mark]]) -> dict[int, list[Mark]]:
    """Labels beside their marks, each as far above or below as it must be to cover no other."""
    taken: list[tuple[float, float, float]] = []

    def free(x: float, y: float, width: float) -> bool:
        return all(abs(y - b) >= _LINE or x + width <= a or a + w <= x for a, b, w in taken)

    def beside(mark: Mark) -> Mark:
        x, width = mark.x + 7, _LETTER * len(mark.label)
        steps = (sign * n for n in itertools.count() for sign in (1, -1))
        y = next(y for n in steps if free(x, y := round(mark.y - 5 - n * _LINE, 1), width))
        taken.append((x, y, width))
        return replace(mark, label_x=x, label_y=y)

    return {t: [beside(mark) for mark in row] for t, row in marks.items()}


def _interval(point: Side) -> tuple[float, float]:
    found = point.accuracy.interval if point.accuracy else None
    return (0.0, 0.0) if found is None else (found.low, found.high)


def _path(marks: Sequence[Mark]) -> str:
    return "M" + "L".join(f"{m.x} {m.y}" for m in marks)


def _ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers from below ``low`` to above ``high``, about five steps."""
    rough = max(high - low, 1e-9 * max(abs(high), 1.0)) / 5
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(m * scale for m in (1, 2, 5, 10) if m * scale >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(n * step, 12) for n in range(first, max(last, first + 1) + 1))
