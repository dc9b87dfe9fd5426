"""The report: one HTML file without any outside reference, readable with scripts off, in light and dark, on paper."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qkf_deploy.display.numbers import percent, quantity, whole
from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.energy_table import energy_sheet
from qkf_deploy.hw_models.movement import CONVENTION, OTHER_CONVENTIONS, movement
from qkf_deploy.hw_models.pricing import EnergyReport, price
from qkf_deploy.hw_models.profiles import Profile
from qkf_deploy.hw_models.twins import mixed_regimes, verdict
from qkf_deploy.ledger import LayerRecord, Ledger
from qkf_deploy.report import charts, graph, head, pictures
from qkf_deploy.report.comparison import conventions_sheet, twin_sheet, unpriced_sheet
from qkf_deploy.report.evaluation_table import comparison_sheets, evaluation_sheets
from qkf_deploy.report.hardware_view import HardwareView, views_sheet
from qkf_deploy.report.html import render
from qkf_deploy.report.movement_table import movement_sheet
from qkf_deploy.report.rate_sheet import activity_sheet
from qkf_deploy.report.stages import stage_sheet
from qkf_deploy.report.widths import width_sheet
from qkf_deploy.runs.content import RunFile
from qkf_deploy.statistics.comparison import Measured, RunComparison, compare_runs
from qkf_deploy.statistics.summary import data_set, summarize
from qkf_deploy.writing import write_atomically

#: What a report shows unless told: paper, exact counts, three tools, integer hardware without and with SRAM.
DEFAULT_PROFILES = (
    "paper-eq23", "exact-fp32", "spikingformer-script", "spikingjelly-2.0", "neurobench-2.3", "horowitz45-int8-acc32",
    "horowitz45-sram",
)  # fmt: skip

_SECTIONS = (
    ("verdict", "Verdict"),
    ("compared", "Side by side"),
    ("evaluation", "Evaluation"),
    ("layers", "Layers"),
    ("energy", "Energy"),
    ("hardware", "Hardware"),
    ("rates", "Firing rates"),
    ("memory", "Memory"),
    ("widths", "Widths"),
    ("network", "Network"),
    ("gates", "Q-K gates"),
    ("provenance", "Provenance"),
)


_Profiles = Sequence[Profile | str | Path]


def write_page(
    path: str | Path,
    run: RunFile,
    profiles: _Profiles = DEFAULT_PROFILES,
    beside: Mapping[str, RunFile] = MappingProxyType({}),
    hardware: Sequence[HardwareView] = (),
) -> None:
    """Write the report, atomically.

    Args:
        path: of the HTML file.
        run: what :func:`qkf_deploy.runs.file.read_run` returned.
        profiles: price profiles; the first is the one of the layer table.
        beside: other runs by name, compared with this one.
        hardware: networks on chips, one row each.

    Raises:
        UsageError: no profile.
        InputError: the place cannot be written.
        MissingComponent: jinja2 is not installed.
    """
    write_atomically(Path(path), render_page(run, profiles, beside, hardware).encode())


def render_page(
    run: RunFile, profiles: _Profiles = DEFAULT_PROFILES, beside: Mapping[str, RunFile] = MappingProxyType({}),
    hardware: Sequence[HardwareView] = (),
) -> str:  # fmt: skip
    """The report as text; the same run and profiles give the same text. Arguments and errors: :func:`write_page`."""
    if not profiles:
        raise UsageError("a report needs at least one profile", hint="--profile exact-fp32")
    reports = [price(run.ledger, p) for p in profiles]
    return render("report.html.j2", _content(run, reports, _compared(run, reports[0], beside), hardware))


def _compared(run: RunFile, report: EnergyReport, beside: Mapping[str, RunFile]) -> RunComparison | None:
    """This run against the others, under its first profile."""
    if not beside:
        return None
    first = Measured("this run", run, report)
    return compare_runs([first, *(Measured(n, r, price(r.ledger, report.profile)) for n, r in beside.items())])


def _content(
    run: RunFile, reports: Sequence[EnergyReport], compared: RunComparison | None, hardware: Sequence[HardwareView]
) -> dict[str, Any]:
    ledger, found = run.ledger, verdict(run.ledger)
    warning = mixed_regimes(reports)
    common = [line for line in reports[0].assumptions if all(line in r.assumptions for r in reports)]
    evaluation = summarize(run, reports)
    gates = [pictures.gate(g, run) for g in run.gates]
    plot = charts.accuracy_over_energy(compared.sides, compared.profile) if compared else None
    confusion, rates, firing = charts.confusion(run), charts.rates(ledger), charts.firing(run)
    energies = [
        charts.by_profile(reports),
        charts.by_work(_widest(reports)),
        charts.by_stage(reports[0]),
        charts.by_layer(reports[0]),
    ]
    absent = {"compared": compared is None, "gates": not gates, "widths": not run.widths, "hardware": not hardware}
    return {
        "title": _title(run),
        "subtitle": _subtitle(run),
        "sections": [s for s in _SECTIONS if not absent.get(s[0])],
        "conclusion": head.conclusion(run, evaluation, reports, compared),
        "cards": [
            *head.cards(evaluation, reports, compared, found.spikes_per_synapse, found.twins[1]),
            *head.chip_cards(hardware),
        ],
        "compared": compared,
        "compared_sheets": comparison_sheets(compared) if compared else [],
        "plot": plot,
        "confusion": confusion,
        "warnings": [warning] if warning else [],
        "verdict": found.sentences,
        "common": common,
        "assumptions": [
            {"id": r.profile.id, "citation": r.profile.citation, "lines": [a for a in r.assumptions if a not in common]}
            for r in reports
        ],
        "evaluation": evaluation.sentences,
        "evaluation_sheets": evaluation_sheets(evaluation),
        "stages": stage_sheet(reports[0]),
        "layers": energy_sheet(reports[0]),
        "energy_charts": energies,
        "rates": rates,
        "firing": firing,
        "firing_sheet": activity_sheet(run.activity) if run.activity else None,
        "chart_data": [chart.to_dict() for chart in (plot, confusion, *energies, rates, *firing) if chart is not None],
        "conventions": conventions_sheet(ledger, reports),
        "twins": twin_sheet(found),
        "unpriced": unpriced_sheet(reports),
        "hardware": views_sheet(hardware),
        "steps": ledger.time_steps,
        "heat": [_heat_row(layer, ledger) for layer in ledger if layer.spikes_per_step is not None and _fires(layer)],
        "movement_note": f"{CONVENTION} {OTHER_CONVENTIONS}",
        "movement": movement_sheet(movement(ledger)),
        "widths": width_sheet([dict(row) for row in run.widths]),
        "graph": graph.network(run, reports[0]),
        "legend": graph.LEGEND.items(),
        "node_details": _node_details(run),
        "gates": gates,
        "input": pictures.input_picture(run),
        "provenance": [(key, _breakable(text)) for key, text in run.provenance.items()],
        "assumed": [*run.assumed, *([f"Data set: {data_set(run)}"] if run.data else [])],
        "notices": run.notices,
    }


def _widest(reports: Sequence[EnergyReport]) -> EnergyReport:
    """The report that prices the most kinds of work."""
    return max(reports, key=lambda r: len(r.profile.accounted) if r.profile.scope == "per-term" else 0)


def _title(run: RunFile) -> str:
    return f"Energy and operations of {run.provenance.get('source', 'a spiking network')}"


def _subtitle(run: RunFile) -> str:
    ledger, shape = run.ledger, "x".join(map(str, run.graph["nodes"][0]["shape"]))
    kind = "event frame" if ledger.input_encoding == "frames" else "image"
    return (
        f"{ledger.arithmetic} network, {run.graph['parameters']:,} stored numbers, T = {ledger.time_steps}, "
        f"{quantity(ledger.images, kind)} of {shape}"
    )


def _breakable(text: str) -> str:
    """A text; JSON with spaces between its parts, where lines break."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False) if text.startswith(("{", "[")) else text
    except (ValueError, RecursionError):
        return text


def _fires(layer: LayerRecord) -> bool:
    return "resets" in layer.counts


def _heat_row(layer: LayerRecord, ledger: Ledger) -> dict[str, Any]:
    steps = layer.spikes_per_step
    counts = [] if steps is None else [sum(int(v) for v in row) for row in steps]
    rates = [n / (layer.output_size * ledger.images) for n in counts]
    mean = sum(counts) / (layer.output_size * ledger.images * max(len(counts), 1))
    cells = [{"text": f"{r:.4f}", "shade": f"{min(100 * math.sqrt(r), 90):.0f}"} for r in rates]
    return {"layer": layer.name, "cells": cells, "mean": f"{mean:.4f}", "silent": percent(1 - mean)}


def _node_details(run: RunFile) -> list[dict[str, Any]]:
    records = {layer.name: layer for layer in run.ledger}
    widths = {row["layer"]: row for row in run.widths}
    return [
        {
            "id": f"node-{index}",
            "name": node["name"],
            "facts": _node_items(node, records.get(node["name"]), widths.get(node["name"]), run.ledger.images),
        }
        for index, node in enumerate(run.graph["nodes"])
    ]


def _node_items(
    node: Mapping[str, Any], layer: LayerRecord | None, widths: Mapping[str, Any] | None, images: int
) -> list[tuple[str, str]]:
    items = [("operator", node["op"]), ("output", f"{'x'.join(map(str, node['shape']))} {node['kind']}")]
    if node["inputs"]:
        items.append(("reads", ", ".join(node["inputs"])))
    items += [(key.replace("_", " "), str(value)) for key, value in node["attributes"].items()]
    if node["parameters"]:
        items.append(("parameters", f"{node['parameters']:,}"))
    if widths is not None:
        known = node["attributes"]
        items += [(k.replace("_", " "), f"{v:,}") for k, v in widths.items() if isinstance(v, int) and k not in known]
    if layer is not None:
        items += [(f"{k.replace('_', ' ')} / image", whole(Fraction(layer.total(k), images))) for k in layer.counts]
    if node["source"]:
        items.append(("source", node["source"]))
    return items
