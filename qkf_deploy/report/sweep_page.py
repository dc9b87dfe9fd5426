"""A sweep: what it prints, and its page with the curve of accuracy over energy."""

from __future__ import annotations

from pathlib import Path

from qkf_deploy.display.numbers import quantity
from qkf_deploy.options import TableFormat
from qkf_deploy.report.charts import accuracy_over_energy
from qkf_deploy.report.evaluation_table import drawn
from qkf_deploy.report.formats import check_format, to_csv, to_json
from qkf_deploy.report.html import render
from qkf_deploy.report.tables import SCHEMA_VERSION
from qkf_deploy.statistics.sweep import Sweep
from qkf_deploy.writing import write_atomically


def render_sweep(sweep: Sweep, fmt: TableFormat = "table") -> str:
    """The points of a sweep as text ending with a newline: ``table``, ``md``, ``json`` or ``csv``.

    Raises:
        UsageError: an unknown format.
    """
    check_format(fmt)
    if fmt == "json":
        return to_json({"schema_version": SCHEMA_VERSION, "kind": "sweep", **sweep.to_dict()})
    return to_csv(sweep.sheet()) if fmt == "csv" else drawn([sweep.sheet()], sweep.sentences, fmt)


def render_sweep_page(sweep: Sweep) -> str:
    """The page of a sweep as text; the same sweep gives the same text.

    Raises:
        MissingComponent: jinja2 is not installed.
    """
    samples = sweep.points[0].samples
    plot = accuracy_over_energy(sweep.points, sweep.profile)
    source = sweep.provenance.get("source", "a spiking network")
    content = {
        "title": f"Accuracy and energy of {source} over time steps and bits",
        "subtitle": f"{quantity(len(sweep.points), 'point')}, {quantity(samples, 'sample')} each",
        "sections": [("curve", "Accuracy over energy"), ("points", "Points"), ("provenance", "Provenance")],
        "sentences": sweep.sentences,
        "plot": plot,
        "chart_data": [plot.to_dict()] if plot else [],
        "points": sweep.sheet(),
        "provenance": [*([("data set", sweep.data_set)] if sweep.data_set else []), *sweep.provenance.items()],
    }
    return render("sweep.html.j2", content)


def write_sweep_page(path: str | Path, sweep: Sweep) -> None:
    """Write the page of a sweep, atomically.

    Args:
        path: of the HTML file.
        sweep: its points.

    Raises:
        InputError: the place cannot be written.
        MissingComponent: jinja2 is not installed.
    """
    write_atomically(Path(path), render_sweep_page(sweep).encode())
