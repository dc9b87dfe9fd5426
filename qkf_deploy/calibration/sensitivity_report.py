"""Which layers lose most at few bits, and the networks of mixed bits along a range of budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qkf_deploy.display.numbers import percent, quantity
from qkf_deploy.display.overview import Overview, SelfDescribing, largest
from qkf_deploy.display.tables import Field, Sheet, tabulate


@dataclass(frozen=True)
class LayerLoss:
    """One synapse.

    Attributes:
        name: node.
        weights: how many.
        losses: by bits of this layer alone, all others at the most bits: mean squared error of the logits, over their
            variance in the float network.
        costs: by bits: bytes of its weights, or energy of an image in pJ that is its part.
        bits: chosen under the budget; ``None`` without one.
    """

    name: str
    weights: int
    losses: Mapping[int, float]
    costs: Mapping[int, float]
    bits: int | None = None


@dataclass(frozen=True)
class Point:
    """One network of mixed bits.

    Attributes:
        budget: asked.
        cost: of the network's weights in bytes, or its energy per image in pJ, as added up layer by layer.
        mean_bits: per weight.
        predicted: sum of the layers' losses.
        loss: of the network as a whole.
        same_class: share of images with the float network's class.
        accuracy: top-1; ``None`` without labels.
        bits: of every layer.
    """

    budget: float
    cost: float
    mean_bits: float
    predicted: float
    loss: float
    same_class: float
    accuracy: float | None
    bits: Mapping[str, int]


@dataclass(frozen=True, repr=False)
class Sensitivity(SelfDescribing):
    """Layers, and networks under budgets.

    Attributes:
        layers: synapses in network order.
        curve: from the smallest budget to the largest.
        chosen: the network under the budget that was asked for; ``None`` without one.
        candidates: bits that were tried, descending.
        images: that were run.
        unit: of costs: ``B`` or ``pJ``.
        notes: sentences the user should read.
    """

    layers: tuple[LayerLoss, ...]
    curve: tuple[Point, ...]
    chosen: Point | None
    candidates: tuple[int, ...]
    images: int
    unit: str
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """What was measured."""
        return f"Loss of each layer alone on {quantity(self.images, 'image')}, all others at {self.candidates[0]} bits"

    def sheet(self) -> Sheet:
        """One row per layer."""
        return tabulate(self.headline, self._fields(), self.layers)

    def curve_sheet(self) -> Sheet:
        """One row per budget."""
        fields = [f for f in _CURVE if f.key != "accuracy" or (self.curve and self.curve[0].accuracy is not None)]
        return tabulate(f"Mixed bits under a budget ({self.unit})", fields, self.curve)

    def _fields(self) -> list[Field[LayerLoss]]:
        losses = [
            Field[LayerLoss](f"loss_{b}", f"{b} bits", lambda f, b=b: f.losses.get(b), _loss) for b in self.candidates
        ]
        chosen = [Field[LayerLoss]("bits", "chosen", lambda f: f.bits)] if self.chosen else []
        return [
            Field("name", "layer", lambda f: f.name, left=True),
            Field("weights", "weights", lambda f: f.weights, lambda v: f"{v:,}"),
            *losses,
            *chosen,
        ]

    def overview(self) -> Overview:
        """Headline and the most sensitive layers."""
        shown, left_out = largest(self.layers, lambda f: max(f.losses.values()), "layers, the most sensitive ones")
        return Overview(self.headline, tabulate("", self._fields(), shown, self.layers), (*left_out, *self.notes))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "images": self.images,
            "unit": self.unit,
            "candidates": list(self.candidates),
            "layers": self.sheet().records(),
            "curve": [{**vars(p), "bits": dict(p.bits)} for p in self.curve],
            "chosen": None if self.chosen is None else {**vars(self.chosen), "bits": dict(self.chosen.bits)},
            "notes": list(self.notes),
        }


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "" if value is None else percent(value)


_CURVE: tuple[Field[Point], ...] = (
    Field("budget", "budget", lambda p: p.budget, lambda v: f"{v:,.0f}"),
    Field("cost", "taken", lambda p: p.cost, lambda v: f"{v:,.0f}"),
    Field("mean_bits", "bits per weight", lambda p: p.mean_bits, lambda v: f"{v:.2f}"),
    Field("predicted", "sum of losses", lambda p: p.predicted, _loss),
    Field("loss", "loss", lambda p: p.loss, _loss),
    Field("same_class", "as float", lambda p: p.same_class, _percent),
    Field("accuracy", "top-1", lambda p: p.accuracy, _percent),
)
