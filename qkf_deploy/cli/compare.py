"""`qkf-deploy compare`."""

from __future__ import annotations

from pathlib import Path

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, hardware_option, show
from qkf_deploy.errors import UsageError
from qkf_deploy.options import TableFormat


@command()
@click.argument("runs", type=PATH, nargs=-1, required=True)
@click.option(
    "--profile", "profiles", multiple=True, default=("paper-eq23",), show_default=True,
    help="Price profile: a name (`qkf-deploy profiles` lists them) or a TOML file; repeatable.",
)  # fmt: skip
@hardware_option
@format_option
def compare(runs: tuple[Path, ...], profiles: tuple[str, ...], hardware: tuple[Path, ...], fmt: TableFormat) -> None:
    """Stored runs side by side: accuracy, synaptic operations, energy and memory, and differences from the first.

    RUNS are what `evaluate -o` and `simulate -o` wrote; of a sweep every point is taken. Runs of the same data set are
    compared sample by sample: which answers changed and in which direction, and McNemar's test of the two networks;
    others by their means, with intervals of independent samples. With several profiles every run stands there under
    every one, and one run is enough.

    \b
    Examples:
      qkf-deploy compare float.sqlite int8.sqlite int4.sqlite
      qkf-deploy compare int8.sqlite --profile paper-eq23 --profile horowitz45-sram
    """
    from qkf_deploy.report.evaluation_table import render_comparison
    from qkf_deploy.report.hardware_view import read_view, views_sheet

    prices = [qd.load_profile(name) for name in dict.fromkeys(profiles)]  # a wrong one is found before the long part
    if hardware and fmt in ("json", "csv"):
        raise UsageError("--hardware adds a table for people", hint="its files are JSON already")
    chips = [read_view(path) for path in hardware]
    emit(render_comparison(qd.compare_runs(qd.load_runs(runs), prices), fmt))
    if chips:
        show(views_sheet(chips), fmt)
