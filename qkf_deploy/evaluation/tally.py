"""How far an evaluation is."""

from __future__ import annotations

from dataclasses import dataclass

#: Price profile of the energy that is told while an evaluation runs.
PROFILE = "paper-eq23"


@dataclass(frozen=True)
class Tally:
    """Progress of an evaluation, what earlier processes stored included.

    Attributes:
        samples: all of the data set.
        stored: samples with a row, failed ones included.
        before: how many of them were stored when this process began.
        failed: rows that are errors.
        labelled: rows with a label; failed ones count, and as wrong.
        hits: labelled rows whose prediction is the label.
        seconds: since this process began to run shards.
        energy_pj: mean per sample of this process under :data:`PROFILE`, a little behind; ``None`` before the first.
    """

    samples: int
    stored: int = 0
    before: int = 0
    failed: int = 0
    labelled: int = 0
    hits: int = 0
    seconds: float = 0.0
    energy_pj: float | None = None

    @property
    def accuracy(self) -> float | None:
        """Share of hits among what is stored; ``None`` without labels."""
        return self.hits / self.labelled if self.labelled else None

    @property
    def rate(self) -> float | None:
        """Samples per second of this process; ``None`` until there is one."""
        new = self.stored - self.before
        return new / self.seconds if new and self.seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Until all are stored, at this rate."""
        return (self.samples - self.stored) / self.rate if self.rate else None
