"""Runs side by side as tables, and the same numbers as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import joules, percent, quantity, ratio, si, signed_percent
from qkf_deploy.display.overview import Overview
from qkf_deploy.display.tables import Cell, Field, Sheet, tabulate

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame
    from qkf_deploy.statistics.comparison import Change, Convention, Difference, RunComparison, Side
    from qkf_deploy.statistics.measures import Range


def _bytes(value: int) -> str:
    return si(value, "B", 3)


def bits_of(side: Side) -> str:
    """Weight widths, or that there are none."""
    return ", ".join(map(str, side.bits)) or side.arithmetic


SIDE: tuple[Field[Side], ...] = (
    Field("run", "run", lambda s: s.name, left=True),
    Field("time_steps", "T", lambda s: s.time_steps),
    Field("bits", "bits", bits_of),
    Field("done", "samples", lambda s: s.done),
    Field("samples", "of", lambda s: s.samples),
    Field("accuracy", "top-1", lambda s: s.accuracy.value if s.accuracy else None, lambda v: _shown(v, percent)),
    Field("accuracy_low", "95 % from", lambda s: _end(s, "low"), lambda v: _shown(v, percent)),
    Field("accuracy_high", "to", lambda s: _end(s, "high"), lambda v: _shown(v, percent)),
    Field("sops_per_image", "SOPs / image", lambda s: s.sops.mean, si),
    Field("sops_per_image_sd", "± sd", lambda s: s.sops.sd, lambda v: _shown(v, si)),
    Field("energy_per_image_pj", "energy / image", lambda s: s.energy_pj.mean, joules),
    Field("energy_per_image_pj_sd", "± sd", lambda s: s.energy_pj.sd, lambda v: _shown(v, joules)),
    Field("weight_bytes", "weights", lambda s: s.weight_bytes, _bytes),
    Field("state_bytes", "membranes", lambda s: s.state_bytes, _bytes),
)


def _shown(value: Any, text: Any) -> str:
    return "" if value is None else str(text(value))


def _end(side: Side, name: str) -> float | None:
    interval = side.accuracy.interval if side.accuracy else None
    return None if interval is None else float(getattr(interval, name))


def sides_sheet(sides: Sequence[Side], profile: str, title: str = "Runs side by side") -> Sheet:
    """One row per run."""
    return tabulate(f"{title}; energy by {profile}", SIDE, sides)


def partial(sides: Sequence[Side]) -> tuple[str, ...]:
    """Which runs are not complete."""
    return tuple(
        f"{side.name}: partial, {side.done:,} of {quantity(side.samples, 'sample')}"
        for side in sides
        if side.done < side.samples
    )


def without_result(names: Sequence[str]) -> tuple[str, ...]:
    """Which runs are not shown."""
    return tuple(f"{name}: no sample has a result yet, left out" for name in names)


def _relative(change: Change, name: str) -> Cell:
    """An end of the interval as a share of the first run's mean."""
    interval, mean = change.difference.interval, change.difference.mean
    if interval is None or not change.relative:
        return None
    return float(getattr(interval, name)) * float(change.relative / mean)


def _limit(interval: Range | None, name: str) -> float | None:
    return None if interval is None else float(getattr(interval, name))


def _points(value: Any) -> str:
    """A difference of shares."""
    return "" if value is None else signed_percent(value).replace(" %", " points")


_DIFFERENCE: tuple[Field[Difference], ...] = (
    Field("run", "run", lambda d: d.name, left=True),
    Field("paired_samples", "paired", lambda d: d.paired, lambda v: "no" if v is None else f"{v:,}"),
    Field("accuracy_difference", "top-1", lambda d: d.accuracy, _points),
    Field("accuracy_difference_low", "95 % from", lambda d: _limit(d.accuracy_interval, "low"), _points),
    Field("accuracy_difference_high", "to", lambda d: _limit(d.accuracy_interval, "high"), _points),
    Field("right_to_wrong", "right→wrong", lambda d: d.flips.right_to_wrong if d.flips else None),
    Field("wrong_to_right", "wrong→right", lambda d: d.flips.wrong_to_right if d.flips else None),
    Field("wrong_to_wrong", "wrong→other", lambda d: d.flips.wrong_to_wrong if d.flips else None),
    Field(
        "mcnemar_mid_p", "mid-p", lambda d: d.test.mid_p if d.test else None, lambda v: _shown(v, lambda p: f"{p:.3g}")
    ),
    Field(
        "mcnemar_exact_p",
        "exact p",
        lambda d: d.test.exact_p if d.test else None,
        lambda v: _shown(v, lambda p: f"{p:.3g}"),
    ),
    Field("sops_relative", "SOPs", lambda d: d.sops.relative, signed_percent),
    Field("sops_difference", "SOPs / image", lambda d: d.sops.difference.mean, si),
    Field("energy_relative", "energy", lambda d: d.energy_pj.relative, signed_percent),
    Field(
        "energy_relative_low", "95 % from", lambda d: _relative(d.energy_pj, "low"), lambda v: _shown(v, signed_percent)
    ),
    Field("energy_relative_high", "to", lambda d: _relative(d.energy_pj, "high"), lambda v: _shown(v, signed_percent)),
    Field("energy_difference_pj", "energy / image", lambda d: d.energy_pj.difference.mean, joules),
    Field("energy_difference_pj_sd", "± sd", lambda d: d.energy_pj.difference.sd, lambda v: _shown(v, joules)),
)


def differences_sheet(comparison: RunComparison) -> Sheet:
    """One row per run but the first."""
    return tabulate(f"Differences from {comparison.sides[0].name}", _DIFFERENCE, comparison.differences)


_CONVENTION: tuple[Field[Convention], ...] = (
    Field("run", "run", lambda c: c.run, left=True),
    Field("profile", "profile", lambda c: c.profile, left=True),
    Field("energy_per_image_pj", "energy / image", lambda c: c.energy_pj.mean, joules),
    Field("energy_per_image_pj_sd", "± sd", lambda c: c.energy_pj.sd, lambda v: _shown(v, joules)),
    Field("energy_low_pj", "95 % from", lambda c: _limit(c.energy_pj.interval, "low"), lambda v: _shown(v, joules)),
    Field("energy_high_pj", "to", lambda c: _limit(c.energy_pj.interval, "high"), lambda v: _shown(v, joules)),
    Field("over_first_profile", "x first profile", lambda c: c.relative, ratio),
    Field("energy_relative", "from first run", lambda c: c.change.relative if c.change else None, signed_percent),
    Field(
        "energy_relative_low", "95 % from", lambda c: _relative(c.change, "low") if c.change else None,
        lambda v: _shown(v, signed_percent),
    ),
    Field(
        "energy_relative_high", "to", lambda c: _relative(c.change, "high") if c.change else None,
        lambda v: _shown(v, signed_percent),
    ),
)  # fmt: skip


def conventions_sheet(comparison: RunComparison) -> Sheet:
    """One row per run and profile."""
    return tabulate("Conventions side by side", _CONVENTION, comparison.conventions)


def sentences(comparison: RunComparison) -> tuple[str, ...]:
    """What a reader must know: what is partial, what is not paired, and what the test says."""
    said = [*without_result(comparison.left_out), *partial(comparison.sides)]
    for difference in comparison.differences:
        if difference.paired is None:
            said.append(f"{difference.name}: not known to be of the same data set; not paired, no test")
        elif difference.test is not None and difference.flips is not None:
            only = f"{difference.test.only_first:,} against {difference.test.only_second:,}"
            said.append(
                f"{difference.name}: {difference.flips.changed:,} of {quantity(difference.paired, 'answer')} changed; "
                f"right in one run only {only}, McNemar's mid-p {difference.test.mid_p:.3g}"
            )
    return tuple(said)


def overview(comparison: RunComparison) -> Overview:
    """See :meth:`qkf_deploy.statistics.comparison.RunComparison.overview`."""
    headline = f"{quantity(len(comparison.sides), 'run')}; energy by {comparison.profile}"
    return Overview(headline, tabulate("", SIDE, comparison.sides), sentences(comparison))


def data(comparison: RunComparison) -> dict[str, Any]:
    """See :meth:`qkf_deploy.statistics.comparison.RunComparison.to_dict`."""
    return {
        "profile": comparison.profile,
        "runs": sides_sheet(comparison.sides, comparison.profile).records(),
        "differences": differences_sheet(comparison).records(),
        **({"conventions": conventions_sheet(comparison).records()} if comparison.conventions else {}),
        "notes": list(sentences(comparison)),
    }


def frame(comparison: RunComparison) -> DataFrame:
    """See :meth:`qkf_deploy.statistics.comparison.RunComparison.to_pandas`."""
    sheet = sides_sheet(comparison.sides, comparison.profile)
    return data_frame(sheet.records(), [c.key for c in sheet.columns], profile=comparison.profile)
