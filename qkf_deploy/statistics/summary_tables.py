"""An evaluation as tables, and the same numbers as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import joules, percent, quantity, rate, si
from qkf_deploy.display.overview import Overview, largest
from qkf_deploy.display.tables import Cell, Column, Field, Sheet, tabulate

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame
    from qkf_deploy.statistics.measures import Confusion, Share
    from qkf_deploy.statistics.summary import Evaluation, LayerSpread, Spread

#: Wrong answers that are shown to people.
CONFUSIONS = 10


@dataclass(frozen=True)
class Line:
    """One number of a whole evaluation.

    Attributes:
        key: its name for machines, unit included.
        profile: of an energy, else empty.
        title: for people.
        text: how it is shown.
        value, sd, low, high: the number, its standard deviation over images, the 95 % interval.
        samples: what it was found on; ``hits`` of them are the value where it is a proportion.
    """

    key: str
    profile: str
    title: str
    text: Callable[[Any], str]
    value: Cell
    sd: float | None
    low: float | None
    high: float | None
    samples: int
    hits: int | None = None

    @property
    def of(self) -> str:
        """What it was found on, for people."""
        return quantity(self.samples, "image") if self.hits is None else f"{self.hits:,} of {self.samples:,}"

    def shown(self, number: Cell) -> str:
        """One of its numbers for people; empty where there is none."""
        return "" if number is None else self.text(number)


def lines(evaluation: Evaluation) -> list[Line]:
    """Accuracy, operations, spikes, firing rate and energy of the whole evaluation, in this order."""
    found: list[Line] = []
    accuracy = evaluation.accuracy
    if accuracy is not None:
        found.append(_of_share("accuracy_top1", "top-1 accuracy", accuracy.top1))
        if accuracy.top5 is not None:
            found.append(_of_share("accuracy_top5", "top-5 accuracy", accuracy.top5))
    images = evaluation.done - len(evaluation.failed)
    found.append(_of_spread("sops_per_image", "synaptic operations / image", si, evaluation.sops, images))
    found.append(_of_spread("spikes_per_image", "spikes / image", si, evaluation.spikes, images))
    if evaluation.firing_rate is not None:
        found.append(_of_spread("firing_rate", "firing rate", rate, evaluation.firing_rate, images))
    for profile, spread in evaluation.energy_pj.items():
        found.append(_of_spread("energy_per_image_pj", "energy / image", joules, spread, images, profile))
    return found


def _of_share(key: str, title: str, share: Share) -> Line:
    low, high = (None, None) if share.interval is None else (share.interval.low, share.interval.high)
    return Line(key, "", title, percent, share.value, None, low, high, share.n, share.hits)


def _of_spread(
    key: str, title: str, text: Callable[[Any], str], spread: Spread, images: int, profile: str = ""
) -> Line:
    low, high = (None, None) if spread.interval is None else (spread.interval.low, spread.interval.high)
    return Line(key, profile, title, text, spread.mean, spread.sd, low, high, images)


def totals_sheet(evaluation: Evaluation) -> Sheet:
    """The lines as a table."""
    found = lines(evaluation)
    columns = (
        Column("quantity", "quantity", True), Column("profile", "profile", True), Column("value", "value"),
        Column("sd", "± sd"), Column("low", "95 % from"), Column("high", "to"), Column("of", "of", True),
    )  # fmt: skip
    rows = tuple((n.key, n.profile, n.value, n.sd, n.low, n.high, n.of) for n in found)
    shown = tuple((n.title, n.profile, *(map(n.shown, (n.value, n.sd, n.low, n.high))), n.of) for n in found)
    widths = f"{' and '.join(map(str, evaluation.bits))} bits, " if evaluation.bits else ""
    what = f"{evaluation.arithmetic} network, {widths}T = {evaluation.time_steps}"
    return Sheet(f"{_headline(evaluation)}; {what}", columns, rows, shown)


def _headline(evaluation: Evaluation) -> str:
    return f"Evaluation of {evaluation.done:,} of {quantity(evaluation.samples, 'sample')}"


def class_sheet(evaluation: Evaluation, *, every: bool = True) -> Sheet:
    """Accuracy by class; ``every=False`` keeps the classes that are least often right."""
    rows = [] if evaluation.accuracy is None else list(evaluation.accuracy.classes.items())
    title = "Accuracy by class"
    if not every:
        rows, left_out = largest(rows, lambda row: -(row[1].value or 0), "classes, those least often right")
        title = ": ".join((title, *(note.partition(";")[0] for note in left_out)))
    fields: tuple[Field[tuple[int, Share]], ...] = (
        Field("class", "class", lambda r: evaluation.name_of(r[0]), left=True),
        Field("right", "right", lambda r: r[1].hits),
        Field("samples", "of", lambda r: r[1].n),
        Field("accuracy", "accuracy", lambda r: r[1].value, percent),
        Field("low", "95 % from", lambda r: r[1].interval.low if r[1].interval else None, percent),
        Field("high", "to", lambda r: r[1].interval.high if r[1].interval else None, percent),
    )
    return tabulate(title, fields, rows)


def confusion_sheet(evaluation: Evaluation, most: int | None = None) -> Sheet:
    """Wrong answers, the most frequent first; at most so many."""
    rows = () if evaluation.accuracy is None else evaluation.accuracy.confusions
    shown = rows[:most]
    title = "Wrong answers" + (f", the {len(shown)} most frequent of {len(rows):,} kinds" if shown != rows else "")
    fields: tuple[Field[Confusion], ...] = (
        Field("class", "class", lambda c: evaluation.name_of(c.label), left=True),
        Field("answer", "answer", lambda c: evaluation.name_of(c.predicted), left=True),
        Field("samples", "samples", lambda c: c.count),
    )
    return tabulate(title, fields, shown)


def layer_sheet(evaluation: Evaluation, *, every: bool = True) -> Sheet:
    """Mean and standard deviation over images by layer; ``every=False`` leaves out layers without work or rate."""
    rows = [r for r in evaluation.layers if every or r.sops.mean or r.energy_pj.mean or r.firing_rate_out]
    profile = next(iter(evaluation.energy_pj), "")
    return tabulate(f"By layer, means over images ± sd; energy by {profile}", _LAYER, rows)


def _spread_fields(
    key: str, title: str, of: Callable[[LayerSpread], Spread | None], text: Callable[[Any], str]
) -> tuple[Field[LayerSpread], Field[LayerSpread]]:
    """A column of means, and one of their standard deviations."""

    def part(name: str) -> Callable[[LayerSpread], Cell]:
        def value(row: LayerSpread) -> Cell:
            spread = of(row)
            return None if spread is None else getattr(spread, name)

        return value

    def shown(number: Any) -> str:
        return text(number) if number else ""

    return Field(key, title, part("mean"), shown), Field(f"{key}_sd", "± sd", part("sd"), shown)


_LAYER: tuple[Field[LayerSpread], ...] = (
    Field("layer", "layer", lambda r: r.layer, left=True),
    Field("type", "type", lambda r: r.type, left=True),
    *_spread_fields("firing_rate_in", "rate in", lambda r: r.firing_rate_in, lambda v: rate(Fraction(v))),
    *_spread_fields("firing_rate_out", "rate out", lambda r: r.firing_rate_out, lambda v: rate(Fraction(v))),
    *_spread_fields("sops_per_image", "SOPs", lambda r: r.sops, si),
    *_spread_fields("energy_per_image_pj", "energy", lambda r: r.energy_pj, joules),
    Field("share", "share", lambda r: r.share, lambda v: percent(v) if v else ""),
)


def overview(evaluation: Evaluation) -> Overview:
    """See :meth:`qkf_deploy.statistics.summary.Evaluation.overview`."""
    return Overview(_headline(evaluation), totals_sheet(evaluation), evaluation.sentences)


def data(evaluation: Evaluation) -> dict[str, Any]:
    """See :meth:`qkf_deploy.statistics.summary.Evaluation.to_dict`."""
    return {
        "network": evaluation.network,
        "data": evaluation.data,
        "arithmetic": evaluation.arithmetic,
        "time_steps": evaluation.time_steps,
        "bits": list(evaluation.bits),
        "samples": evaluation.samples,
        "done": evaluation.done,
        "complete": evaluation.complete,
        "failed": [{"sample": i, "error": text} for i, text in sorted(evaluation.failed.items())],
        "unlabelled": 0 if evaluation.accuracy is None else evaluation.accuracy.unlabelled,
        "totals": totals_sheet(evaluation).records(),
        "classes": class_sheet(evaluation).records(),
        "confusions": confusion_sheet(evaluation).records(),
        "layers": layer_sheet(evaluation).records(),
    }


def frame(evaluation: Evaluation) -> DataFrame:
    """See :meth:`qkf_deploy.statistics.summary.Evaluation.to_pandas`."""
    sheet = layer_sheet(evaluation)
    return data_frame(sheet.records(), [c.key for c in sheet.columns], images=evaluation.done - len(evaluation.failed))
