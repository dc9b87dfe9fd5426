"""`qkf-deploy map`."""

from __future__ import annotations

from pathlib import Path

import click

from qkf_deploy import api
from qkf_deploy.cli.common import emit, format_option


@click.command("map")
@click.argument("network", type=click.Path(path_type=Path))
@click.option("--chip", default="loihi2", show_default=True, help="loihi2, generic-digital, or a TOML file.")
@click.option("--run", "run", type=click.Path(path_type=Path), help="Run file of this network, for the traffic.")
@format_option
def map_command(network: Path, chip: str, run: Path | None, fmt: str) -> None:
    """Partition an integer network onto the cores of a chip.

    \b
    Example:
      qkf-deploy map net.int.qkf --chip loihi2 --run run.json
    """
    from qkf_deploy.hw_models.chips import load_chip
    from qkf_deploy.hw_models.mapping import map_network
    from qkf_deploy.report.mapping_table import render_mapping
    from qkf_deploy.runs.file import read_run

    limits = load_chip(chip)
    ledger = None if run is None else read_run(run).ledger
    emit(render_mapping(map_network(api.load(network), limits, ledger), fmt))
