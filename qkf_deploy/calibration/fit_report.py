"""What fitting integers to images came to, synapse by synapse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qkf_deploy.display.numbers import percent, quantity
from qkf_deploy.display.overview import Overview, SelfDescribing, largest
from qkf_deploy.display.tables import Field, Sheet, tabulate


@dataclass(frozen=True)
class Fitted:
    """What was found for one synapse.

    Attributes:
        name: node.
        bits: per weight.
        outputs: spikes and silences of its neuron that were compared; 0 where it has none of its own.
        errors: what the neuron did wrong with the largest weight as the end of the range (``max``) and after each
            method, in order: wrong spikes, and the balance of wrong spikes of each channel.
    """

    name: str
    bits: int
    outputs: int
    errors: Mapping[str, float]

    def share(self, method: str) -> float | None:
        """Errors per output after a method; ``None`` where there is nothing to count."""
        return self.errors[method] / self.outputs if self.outputs and method in self.errors else None

    @property
    def last(self) -> str:
        """The last method."""
        return list(self.errors)[-1] if self.errors else "max"


@dataclass(frozen=True, repr=False)
class FitReport(SelfDescribing):
    """Integers fitted to images.

    Attributes:
        layers: synapses in network order.
        images: that they were fitted to.
        digest: sha256 of those images.
        methods: that were used.
    """

    layers: tuple[Fitted, ...]
    images: int
    digest: str
    methods: tuple[str, ...]

    @property
    def headline(self) -> str:
        """What was done."""
        return f"Integers fitted to {quantity(self.images, 'image')} by {', '.join(self.methods) or 'nothing'}"

    def sheet(self) -> Sheet:
        """One row per synapse."""
        return tabulate(self.headline, _FIELDS, self.layers)

    def overview(self) -> Overview:
        """Headline and the layers that stay worst."""
        shown, left_out = largest(self.layers, lambda f: (f.share(f.last) or 0.0,), "layers, those that stay worst")
        notes = ("wrong: spikes that differ from the float network's, and their balance per channel, per output",)
        return Overview(self.headline, tabulate("", _FIELDS, shown, self.layers), (*left_out, *notes))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "images": self.images,
            "digest": self.digest,
            "methods": list(self.methods),
            "layers": [{**vars(f), "errors": dict(f.errors)} for f in self.layers],
        }


def _percent(value: float | None) -> str:
    return "" if value is None else percent(value)


_FIELDS: tuple[Field[Fitted], ...] = (
    Field("name", "layer", lambda f: f.name, left=True),
    Field("bits", "bits", lambda f: f.bits),
    Field("outputs", "outputs", lambda f: f.outputs),
    Field("wrong_max", "wrong, largest weight", lambda f: f.share("max"), text=_percent),
    Field("wrong_fitted", "wrong, fitted", lambda f: f.share(f.last), text=_percent),
)
