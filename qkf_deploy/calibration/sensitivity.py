"""Every layer at few bits alone, and mixed precision under a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qkf_deploy.calibration.assignment import assign
from qkf_deploy.calibration.sensitivity_report import LayerLoss, Point, Sensitivity
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger
from qkf_deploy.ops import Conv, Linear
from qkf_deploy.options import QuantizeOptions
from qkf_deploy.passes.clipping import clipped_scales, with_scales
from qkf_deploy.passes.fold import fold
from qkf_deploy.passes.quantize import quantize
from qkf_deploy.simulators.run import Run

#: Budgets of the curve.
_POINTS = 8


@dataclass(frozen=True, eq=False)
class Setting:
    """How layers are tried.

    Attributes:
        images: what they are run on.
        labels: where known.
        candidates: bits, descending; the first is what all other layers have meanwhile.
        run: simulates a graph on images.
        energy_pj: of one image under the chosen prices; ``None``: the cost is memory.
        progress: called with (runs done, runs in all).
    """

    images: np.ndarray
    labels: np.ndarray | None
    candidates: tuple[int, ...]
    run: Callable[[Graph, np.ndarray], Run]
    energy_pj: Callable[[Ledger], float] | None
    progress: Callable[[int, int], None] | None


def sensitivity(graph: Graph, setting: Setting, budget: float | None) -> Sensitivity:
    """Loss of each layer at each of the candidate bits, and networks of mixed bits.

    Args:
        graph: float graph.
        setting: images, candidates, prices.
        budget: bytes, or pJ per image.

    Raises:
        UsageError: a budget that no assignment meets.
    """
    trial = _Trial(fold(graph), setting)
    layers = trial.layers()
    losses = {layer.name: layer.losses for layer in layers}
    costs = {layer.name: layer.costs for layer in layers}
    low, high = (sum(end(of.values()) for of in costs.values()) for end in (min, max))
    # Before the curve, which takes long: a budget may be too small.
    chosen = None if budget is None else trial.point(layers, assign(losses, costs, budget), budget)
    curve = [trial.point(layers, assign(losses, costs, b), b) for b in np.linspace(low, high, _POINTS).tolist()]
    if chosen is not None:
        layers = tuple(replace(layer, bits=chosen.bits[layer.name]) for layer in layers)
    unit = "B" if setting.energy_pj is None else "pJ"
    return Sensitivity(layers, tuple(curve), chosen, setting.candidates, len(setting.images), unit)


def mixed(graph: Graph, bits: Mapping[str, int]) -> Graph:
    """The integer network with these bits, scales cutting off what makes the weights' error larger than need be."""
    options = QuantizeOptions(max(bits.values()), layer_bits=bits)
    return quantize(with_scales(graph, clipped_scales(graph, options)), options)


class _Trial:
    """Runs of one network at many bits."""

    def __init__(self, graph: Graph, setting: Setting) -> None:
        self.graph, self.setting = graph, setting
        self.names = [n.name for n in graph if isinstance(n.op, Conv | Linear)]
        self.sizes = {name: int(graph[name].params["weight"].size) for name in self.names}
        run = setting.run(graph, setting.images)
        self.real, self.answers = run.outputs, _answers(run)
        spread = self.real - self.real.mean(axis=0)
        self.variance = float(np.square(spread).mean()) or 1.0
        self.done = 0
        self.total = 1 + len(self.names) * (len(setting.candidates) - 1) + _POINTS + 1

    def _run(self, bits: Mapping[str, int]) -> Run:
        run = self.setting.run(mixed(self.graph, bits), self.setting.images)
        self.done += 1
        if self.setting.progress is not None:
            self.setting.progress(self.done, self.total)
        return run

    def _loss(self, run: Run) -> float:
        return float(np.square(run.outputs - self.real).mean()) / self.variance

    def layers(self) -> tuple[LayerLoss, ...]:
        most, *fewer = self.setting.candidates
        every = dict.fromkeys(self.names, most)
        base = self._run(every)
        found: list[LayerLoss] = []
        for name in self.names:
            runs = {most: base, **{b: self._run({**every, name: b}) for b in fewer}}
            losses = {bits: self._loss(run) for bits, run in runs.items()}
            found.append(LayerLoss(name, self.sizes[name], losses, self._costs(name, base, runs)))
        return tuple(found)

    def _costs(self, name: str, base: Run, runs: Mapping[int, Run]) -> dict[int, float]:
        price = self.setting.energy_pj
        if price is None:
            return {bits: self.sizes[name] * bits / 8 for bits in runs}
        whole = price(base.ledger)  # every layer's equal part, and what changes with its bits
        return {bits: whole / len(self.names) + price(run.ledger) - whole for bits, run in runs.items()}

    def point(self, layers: Sequence[LayerLoss], bits: Mapping[str, int], budget: float) -> Point:
        run = self._run(bits)
        best = _answers(run)
        labels = self.setting.labels
        return Point(
            budget,
            sum(layer.costs[bits[layer.name]] for layer in layers),
            sum(self.sizes[name] * b for name, b in bits.items()) / sum(self.sizes.values()),
            sum(layer.losses[bits[layer.name]] for layer in layers),
            self._loss(run),
            float((best == self.answers).mean()),
            None if labels is None else float((best == labels).mean()),
            dict(bits),
        )


def _answers(run: Run) -> np.ndarray:
    """The class of each image; of a map, that of each place."""
    return run.predicted if run.classifies else run.outputs.argmax(axis=1)
