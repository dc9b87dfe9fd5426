"""`qkf-deploy map`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, measured
from qkf_deploy.cli.options import options_of
from qkf_deploy.errors import UsageError
from qkf_deploy.options import MeasureOptions, TableFormat


@command("map")
@click.argument("network", type=PATH)
@click.argument("images", type=PATH, required=False)
@click.option("--chip", default="loihi2", show_default=True, help="loihi2, speck, generic-digital, or a TOML file.")
@click.option("--run", "run", type=PATH, help="Run file of this network, for the traffic, instead of IMAGES.")
@options_of(MeasureOptions)
@format_option
def map_command(
    network: Path, images: Path | None, chip: str, run: Path | None, fmt: TableFormat, **options: Any
) -> None:
    """Partition an integer network onto the cores of a chip; with IMAGES or a run also the traffic between them.

    \b
    Example:
      qkf-deploy map net.int.qkf --chip loihi2 --run run.sqlite
    """
    from qkf_deploy.report.mapping_table import render_mapping

    if run is not None and images is not None:
        raise UsageError("--run and IMAGES are two ways to the traffic; choose one")
    limits = qd.load_chip(chip)  # a wrong one is found before the long part
    graph = qd.load(network)
    ledger = None
    if run is not None or images is not None:
        found = measured(run or network, images, options)
        found.check_network(graph)
        ledger = found.ledger
    emit(render_mapping(qd.map_network(graph, limits, ledger), fmt))
