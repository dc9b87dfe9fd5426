"""One network at several time steps and weight widths: the points of a sweep side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.overview import Overview, SelfDescribing
from qkf_deploy.display.tables import Sheet
from qkf_deploy.errors import UsageError
from qkf_deploy.statistics.comparison import Measured, Side, side
from qkf_deploy.statistics.comparison_tables import partial, sides_sheet, without_result
from qkf_deploy.statistics.summary import data_set

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame


@dataclass(frozen=True, repr=False)
class Sweep(SelfDescribing):
    """The points of a sweep.

    Attributes:
        profile: what energies were priced with.
        made_with: T of the network that was swept; ``None`` where that is not known.
        points: one per T and width, in the order of the file.
        provenance: of the network, versions and command.
        left_out: names of points without a result.
        data_set: which samples these are: name, number and hash; empty where that is not known.
    """

    profile: str
    made_with: int | None
    points: tuple[Side, ...]
    provenance: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    data_set: str = ""

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a reader must know: what is partial, and what another T means."""
        said = [*without_result(self.left_out), *partial(self.points)]
        others = sorted({point.time_steps for point in self.points} - {self.made_with})
        if self.made_with is not None and others:
            said.append(
                f"the network was made with T = {self.made_with}: its weights and batch norms were fitted to that, and "
                f"accuracy at T = {', '.join(map(str, others))} is what it is, not what training at that T would give"
            )
        return tuple(said)

    def sheet(self) -> Sheet:
        """One row per point."""
        return sides_sheet(self.points, self.profile, "Accuracy and energy by time steps and bits")

    def overview(self) -> Overview:
        """The points side by side."""
        return Overview(f"{quantity(len(self.points), 'point')} of a sweep", self.sheet(), self.sentences)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "profile": self.profile,
            "made_with_time_steps": self.made_with,
            "data_set": self.data_set,
            "points": self.sheet().records(),
            "notes": list(self.sentences),
        }

    def to_pandas(self) -> DataFrame:
        """One row per point.

        Raises:
            MissingComponent: pandas is not installed.
        """
        sheet = self.sheet()
        return data_frame(sheet.records(), [c.key for c in sheet.columns], profile=self.profile)


def sweep(points: Iterable[Measured], left_out: Sequence[str] = ()) -> Sweep:
    """Points side by side, all priced under one profile; ``left_out`` are names of points without a result.

    Raises:
        UsageError: no points.
    """
    found: list[Side] = []
    profile, made_with, provenance, samples = "", None, dict[str, str](), ""
    for point in points:  # one at a time: only what is shown of each is kept
        found.append(side(point))
        profile, made_with = point.report.profile.id, point.run.config.get("made_with_steps")
        samples = data_set(point.run)
        provenance = {k: v for k, v in point.run.provenance.items() if k not in ("steps", "quantize")}
    if not found:
        raise UsageError("a sweep of no points", hint="qkf-deploy evaluate net.qkf val/ -o sweep.sqlite --bits 4,8")
    return Sweep(profile, made_with, tuple(found), provenance, tuple(left_out), samples)
