"""What the carry modes answer on the same images, as a table and as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import percent, quantity
from qkf_deploy.display.overview import Overview, SelfDescribing
from qkf_deploy.display.tables import Field, Sheet, tabulate
from qkf_deploy.statistics.measures import Flips, McNemar, Share

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame


@dataclass(frozen=True)
class Answers:
    """What one carry mode answers.

    Attributes:
        name: of the mode.
        accuracy: top-1; ``None`` without labels.
        agreement: same answer as ``official``.
        flips, test: of ``official``'s answers into this mode's, and McNemar's test; ``None`` without labels.
        leftover_values: membranes stored with the network.
    """

    name: str
    accuracy: Share | None
    agreement: Share
    flips: Flips | None
    test: McNemar | None
    leftover_values: int


@dataclass(frozen=True, repr=False)
class CarryReport(SelfDescribing):
    """The carry modes side by side, on the same images.

    Attributes:
        modes: own, official, stored in full, stored per channel.
        images: that were answered.
        batch: images per batch of ``official``, in the order of the data.
        chain: images that the leftovers come from; none of them was answered.
        average: the last ones of them, whose leftovers were averaged.
        notes: what is missing, and why.
    """

    modes: tuple[Answers, ...]
    images: int
    batch: int
    chain: int
    average: int = 1
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Answers:
        return next(mode for mode in self.modes if mode.name == name)

    def sheet(self) -> Sheet:
        """One row per mode."""
        labelled = self.modes[0].accuracy is not None
        return tabulate(self.headline, [f for f in _FIELDS if labelled or f.key not in _LABELLED], self.modes)

    @property
    def headline(self) -> str:
        """What was compared."""
        averaged = f", averaged over the last {self.average}" if self.average > 1 else ""
        return (
            f"Carry modes on {quantity(self.images, 'image')}; official in batches of {self.batch}, "
            f"stored from a chain of {quantity(self.chain, 'other image')}{averaged}"
        )

    def overview(self) -> Overview:
        """Headline, modes, notes."""
        return Overview(self.headline, self.sheet(), self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "images": self.images,
            "batch": self.batch,
            "chain": self.chain,
            "average": self.average,
            "modes": self.sheet().records(),
            "notes": list(self.notes),
        }

    def to_pandas(self) -> DataFrame:
        """One row per mode.

        Raises:
            MissingComponent: pandas is not installed.
        """
        sheet = self.sheet()
        return data_frame(sheet.records(), [c.key for c in sheet.columns], images=self.images, batch=self.batch)


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.2f}"


def _end(share: Share | None, name: str) -> float | None:
    return None if share is None or share.interval is None else float(getattr(share.interval, name))


def _gain(mode: Answers) -> float | None:
    return None if mode.flips is None else (mode.flips.wrong_to_right - mode.flips.right_to_wrong) / mode.flips.samples


def _percent(value: float | None) -> str:
    return "" if value is None else percent(value)


_LABELLED = ("accuracy", "accuracy_low", "accuracy_high", "difference", "right_to_wrong", "wrong_to_right", "mid_p")
_FIELDS: tuple[Field[Answers], ...] = (
    Field("carry", "carry", lambda m: m.name, left=True),
    Field("accuracy", "top-1", lambda m: m.accuracy.value if m.accuracy else None, _percent),
    Field("accuracy_low", "95 % from", lambda m: _end(m.accuracy, "low"), _percent),
    Field("accuracy_high", "to", lambda m: _end(m.accuracy, "high"), _percent),
    Field("difference", "points", _gain, _points),
    Field("right_to_wrong", "right→wrong", lambda m: m.flips.right_to_wrong if m.flips else None),
    Field("wrong_to_right", "wrong→right", lambda m: m.flips.wrong_to_right if m.flips else None),
    Field("mid_p", "McNemar p", lambda m: m.test.mid_p if m.test else None, lambda v: "" if v is None else f"{v:.2g}"),
    Field("agreement", "as official", lambda m: m.agreement.value, _percent),
    Field("agreement_low", "95 % from", lambda m: _end(m.agreement, "low"), _percent),
    Field("agreement_high", "to", lambda m: _end(m.agreement, "high"), _percent),
    Field("leftover_values", "stored membranes", lambda m: m.leftover_values, lambda v: f"{v:,}"),
)
