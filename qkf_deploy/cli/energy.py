"""`qkf-deploy energy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, measured, show
from qkf_deploy.cli.options import options_of
from qkf_deploy.options import MeasureOptions, TableFormat


@command()
@click.argument("network", type=PATH)
@click.argument("images", type=PATH, required=False)
@click.option(
    "--profile", "profiles", multiple=True, default=("paper-eq23",), show_default=True,
    help="Price profile: a name (`qkf-deploy profiles` lists them) or a TOML file. Repeatable.",
)  # fmt: skip
@click.option("--compare", is_flag=True, help="Only the profiles side by side, with twins and verdicts.")
@click.option("--movement", is_flag=True, help="Bytes held and moved per layer instead of energy profiles.")
@click.option("--all-nodes", is_flag=True, help="Also show nodes without priced or synaptic operations.")
@options_of(MeasureOptions)
@format_option
def energy(
    network: Path,
    images: Path | None,
    profiles: tuple[str, ...],
    compare: bool,
    movement: bool,
    all_nodes: bool,
    fmt: TableFormat,
    **options: Any,
) -> None:
    """Energy per layer of a network on images, under one or more price profiles.

    NETWORK is a .qkf file (IMAGES as for `simulate`), or a run file written by `simulate -o` (no IMAGES needed).

    \b
    Example:
      qkf-deploy energy net.int.qkf images/ --profile exact-fp32 --profile horowitz45-int8-acc32 --compare
    """
    from qkf_deploy.report import comparison, movement_table, tables

    prices = [qd.load_profile(name) for name in profiles]  # a wrong one is found before the long part
    ledger = measured(network, images, options).ledger
    if movement:
        show(movement_table.movement_sheet(qd.movement(ledger)), fmt, movement_table.NOTE)
        return
    reports = [qd.price(ledger, profile) for profile in prices]
    if compare:
        emit(comparison.render_comparison(ledger, reports, fmt))
    else:
        emit(tables.render_energy(reports, fmt, every_node=all_nodes))
