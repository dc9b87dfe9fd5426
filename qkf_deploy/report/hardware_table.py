"""A network on a chip as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from qkf_deploy.display.numbers import percent, quantity, ratio, si
from qkf_deploy.display.tables import Field, Sheet, summed, tabulate
from qkf_deploy.hw_models.architecture.ranges import BOUNDS, Bound, Range
from qkf_deploy.hw_models.exploring import Variant
from qkf_deploy.hw_models.hardware import Hardware, UnitCost, Verdict
from qkf_deploy.hw_models.timing.latency import Latency
from qkf_deploy.report.formats import below, for_people, to_csv, to_json
from qkf_deploy.report.time_table import busy_sheet, mesh_record, mesh_summary

_MILLI = 10**9  # pJ in a mJ


@dataclass(frozen=True)
class _Component:
    name: str
    energy: Range
    images: int

    def pj(self, bound: str) -> Fraction:
        return Fraction(getattr(self.energy, bound)) / self.images


def _mj(pj: Fraction) -> str:
    return f"{float(pj) / _MILLI:.4g}"


def _energy(found: Hardware) -> Fraction | None:
    """pJ of an image; ``None``, not zero, where nothing has a place and a price."""
    return Fraction(found.pj.nominal) / found.images if found.components else None


def _latency(found: Hardware) -> Fraction | None:
    """ns of an image; ``None``, not zero, where nothing has a place and a time."""
    return found.ns / found.images or None


def _edp(found: Hardware) -> Fraction | None:
    return found.edp if found.components and found.ns else None


def component_sheet(found: Hardware) -> Sheet:
    """Energy of one image by component, low to high."""
    rows = [_Component(name, energy, found.images) for name, energy in found.components.items()]
    whole = Fraction(found.pj.nominal) / found.images
    fields: list[Field[_Component]] = [
        Field("component", "component", lambda r: r.name, left=True, total=lambda _: "total"),
        *(summed(f"{b}_energy_pj", f"{b} mJ", lambda r, b=b: r.pj(b), _mj) for b in BOUNDS),
        Field("share", "share", lambda r: r.pj("nominal") / whole if whole else None, percent),
    ]
    return tabulate(f"{found.chip.title}: energy of one image", fields, rows)


def unit_sheet(found: Hardware) -> Sheet:
    """One row per unit: how it is executed, what that costs, and what the other ways would."""
    images = found.images
    fields: list[Field[UnitCost]] = [
        Field("unit", "unit", lambda u: u.name, left=True),
        Field("dataflow", "dataflow", _dataflow, left=True),
        Field("tiles", "tiles", lambda u: u.choice.best.work.bands * u.choice.best.work.groups),
        Field("cores", "cores", lambda u: u.choice.best.work.cores),
        summed("energy_pj", "mJ", lambda u: Fraction(u.pj.nominal) / images, _mj),
        summed("time_ns", "us", lambda u: u.ns / images, lambda ns: f"{float(ns) / 1000:.4g}"),
        Field("firing", "input rate", lambda u: _rate(u, images), lambda r: "" if r is None else percent(r)),
        Field("others", "other ways, energy / best", _others, left=True),
    ]
    return tabulate("Units, mean per image", fields, found.units)


def _dataflow(unit: UnitCost) -> str:
    work = unit.choice.best.work
    return work.dataflow + (", repeated counts" if work.repeated else "")


def _rate(unit: UnitCost, images: int) -> Fraction | None:
    """Additions over those of dense input, mean over steps."""
    dense = sum(s.dense for s in unit.choice.layer.synapses)
    if not dense:
        return None
    done = sum(s.activity.total("ac_graded") for s in unit.choice.layer.synapses)
    steps = len(unit.choice.best.work.steps)
    return Fraction(done, dense * steps * images)


def _others(unit: UnitCost) -> str:
    best = unit.choice.best
    ways = sorted(unit.choice.by_dataflow.items(), key=lambda item: item[1].pj)
    return ", ".join(
        f"{name} {float(way.pj / best.pj):.3g}" for name, way in ways if way is not best and best.pj and name
    )


def summary(found: Hardware, verdict: Verdict | None) -> str:
    """The lines under the tables."""
    images, energy, time, edp = found.images, _energy(found), _latency(found), _edp(found)
    figures = ["no energy known", "no time known"]
    if energy is not None:
        bounds = f"{_mj(Fraction(found.pj.low) / images)} to {_mj(Fraction(found.pj.high) / images)}"
        figures[0] = f"{_mj(energy)} mJ ({bounds})"
    if time is not None:
        figures[1] = f"{si(time / 10**9, 's')}, {si(10**9 * images / found.period_ns)} images/s"
    figures += [] if edp is None else [f"energy x delay {si(edp / 10**21, 'Js')}"]
    lines = [
        f"one image: {', '.join(figures)}; {quantity(found.cores, 'core')} on "
        f"{quantity(found.chips, 'chip')}; dataflows chosen for {found.goal}"
    ]
    if found.excluded:
        lines.append(f"not in the energy: {'; '.join(found.excluded)}")
    if time:
        waits = sorted(found.waits_ns.items(), key=lambda item: -item[1])
        said = ", ".join(f"{name} {percent(ns / found.ns)}" for name, ns in waits if ns)
        lines.append(
            f"the time is of {said}; {'cores' if found.use else 'lanes'} work {percent(found.utilization)} of it"
        )
    if found.left_out:
        lines.append("not on this chip, so nothing of it is in here:")
        lines += [f"  - {name}: {limit}" for name, limit in found.left_out.items()]
    dense = [u.name for u in found.units if u.choice.best.work.dataflow == "dense"]
    if dense:
        lines.append(f"better dense than by events: {', '.join(dense)}")
    lines += _verdict(found, verdict) if verdict else []
    if found.stand_ins:
        lines.append("done with neurons whose own updates have no energy and no time here:")
        lines += [f"  - {how}" for how in found.stand_ins]
    if found.unpriced_counts:
        counts = [f"{name} ({si(Fraction(n, images))})" for name, n in found.unpriced_counts.items()]
        lines.append(f"no price, left out (how many of an image): {', '.join(counts)}")
    if found.untimed:
        lines.append(f"no time, left out (the time is a lower bound): {', '.join(found.untimed)}")
    lines.append("assumptions:")
    lines += [f"  - {a}" for a in assumptions(found)]
    return "\n".join(lines) + "\n"


def _ratio(found: Hardware, verdict: Verdict, bound: Bound) -> Fraction | None:
    here = found.alike.at(bound)
    return None if not here or verdict.twin.unpriced else Fraction(verdict.twin.alike.at(bound)) / Fraction(here)


def _verdict(found: Hardware, verdict: Verdict) -> list[str]:
    if verdict.twin.unpriced:
        return [f"no verdict about the dense twin: no price for its {', '.join(verdict.twin.unpriced)}"]
    said = ", ".join(f"{ratio(_ratio(found, verdict, b))} ({b})" for b in BOUNDS)
    scope = "cores at work only, " if found.chip.execution == "resident" else ""
    lines = [f"energy of the dense quantized twin / this, {scope}at the same prices: {said}; {_holds(verdict)}"]
    even = [(b, r) for b, r in verdict.break_even.items() if r is not None]
    if even:
        rates = ", ".join(f"{ratio(r) if r > 0 else 'none'} ({b})" for b, r in even)
        lines.append(f"break-even firing, relative to the measured one: {rates}")
    return lines


def _holds(verdict: Verdict) -> str:
    wins = set(verdict.wins.values())
    if len(wins) > 1:
        return f"the spiking network needs less only at {', '.join(b for b, won in verdict.wins.items() if won)} prices"
    return f"the {'spiking network' if wins == {True} else 'twin'} needs less at low, nominal and high prices"


_EVERYWHERE = (
    "Weights, sums and membranes move in whole words, rows of one input channel and tap together; thresholds and "
    "biases stay in the lanes. Every buffer works beside the lanes; a unit takes the longest of them at each step.",
    "Output-stationary dataflows skip input channels without an event in a tile and gate the rest.",
    "The twin computes once with ceil(log2(T + 1))-bit activations on the same chip; its multiplication is scaled by "
    "its width. Break-even is linear between silence and the measured activity.",
)
_LAYER_BY_LAYER = (
    "Values lie as bitmaps (counts at their proven width) in the smallest level that holds two; the image comes from "
    "DRAM. Loops go over groups of channels, tiles of output rows, then steps; tiles are as large as fits.",
    "A projection behind a Q-K gate is skipped where the gate stays closed from this step on (over all steps only).",
)
_ONE_BY_ONE = (
    "Time and static energy are of one layer after another; the network between cores has no time and no energy here.",
)
_PIPELINED = (
    "Time as in docs/time.md: layers work at successive steps at once, measured from the messages of every image; time "
    "per unit is of the unit alone.",
)
_RESIDENT = (
    "Weights lie at the cores before the image comes; both operands of a residual addition are delivered, so a count "
    "of 3 is three events. No layer waits for all steps, so none is executed over time.",
)


def assumptions(found: Hardware) -> tuple[str, ...]:
    """Everything that was assumed."""
    own = _LAYER_BY_LAYER
    if found.chip.execution == "resident":
        own = (*_RESIDENT, *(_PIPELINED if found.use else _ONE_BY_ONE))
    return (*found.chip.assumptions, *_EVERYWHERE, *own)


def render_hardware(found: Hardware, verdict: Verdict | None, fmt: str, time: Latency | None = None) -> str:
    """In a format of :data:`qkf_deploy.report.formats.FORMATS`; CSV is the units; ``time`` is that on the mesh."""
    components, units = component_sheet(found), unit_sheet(found)
    if fmt == "csv":
        return to_csv(units)
    if fmt == "json":
        return to_json(
            {
                "schema_version": 1,
                "kind": "hardware",
                "chip": found.chip.id,
                "images": found.images,
                "goal": found.goal,
                "cores": found.cores,
                "chips": found.chips,
                "latency_ns": _latency(found),
                "period_ns": found.period_ns / found.images or None,
                "utilization": found.utilization,
                "waits_ns": {name: ns / found.images for name, ns in found.waits_ns.items()},
                "components": components.records(),
                "units": units.records(),
                "unpriced": list(found.unpriced),
                "unpriced_counts": {name: Fraction(n, found.images) for name, n in found.unpriced_counts.items()},
                "not_in_the_energy": list(found.excluded),
                "untimed": list(found.untimed),
                "left_out": dict(found.left_out),
                "twin": verdict and _ratio(found, verdict, "nominal"),
                "break_even": None if verdict is None or verdict.twin.unpriced else dict(verdict.break_even),
                "mesh": time and mesh_record(time),
                "assumptions": list(assumptions(found)),
            }
        )
    draw = for_people(fmt)
    on_mesh = [draw(busy_sheet(time)), below(fmt, mesh_summary(time, found.use is not None))] if time else []
    return "\n".join([draw(components), draw(units), *on_mesh, below(fmt, summary(found, verdict))])


def sweep_sheet(variants: Sequence[Variant]) -> Sheet:
    """One row per variant of the chip; energies and times of one image."""

    def of(value: Callable[[Hardware], Fraction | None]) -> Callable[[Variant], Fraction | None]:
        return lambda v: None if v.found is None else value(v.found)

    def shown(text: Callable[[Fraction], str]) -> Callable[[Fraction | None], str]:
        return lambda value: "" if value is None else text(value)

    fields: list[Field[Variant]] = [
        Field("dataflow", "dataflow", lambda v: v.dataflow, left=True),
        Field("cores", "cores", lambda v: v.found and v.found.cores),
        Field("buffers", "buffers x", lambda v: float(v.buffers)),
        Field("energy_pj", "mJ", of(_energy), shown(_mj)),
        Field("latency_ns", "ms", of(_latency), shown(lambda n: f"{float(n) / 10**6:.4g}")),
        Field(
            "images_per_s", "images/s", of(lambda h: 10**9 * h.images / h.period_ns if h.period_ns else None), shown(si)
        ),
        Field("edp_pj_ns", "energy x delay", of(_edp), shown(si)),
        Field(
            "excluded", "not in the energy", lambda v: "" if v.found is None else "; ".join(v.found.excluded), left=True
        ),
        Field("problem", "does not fit", lambda v: v.problem, left=True),
    ]
    return tabulate("Variants of the chip", fields, variants)
