"""`qkf-deploy energy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, measured, show
from qkf_deploy.cli.options import options_of
from qkf_deploy.errors import UsageError
from qkf_deploy.keywords import changed
from qkf_deploy.options import FirstLayer, MeasureOptions, TableFormat


@command()
@click.argument("network", type=PATH, required=False)
@click.argument("images", type=PATH, required=False)
@click.option(
    "--profile", "--convention", "profiles", multiple=True, default=("paper-eq23",), show_default=True,
    help="Price profile: a name (`qkf-deploy profiles` lists them) or a TOML file. Repeatable.",
)  # fmt: skip
@click.option(
    "--rates", type=PATH,
    help="Firing rates instead of images: a CSV file of layer and rate, or a model whose rates are published, by name.",
)  # fmt: skip
@click.option("--model", help="With --rates: a model of `qkf-deploy models` by name, instead of NETWORK.")
@click.option("--time-steps", type=click.IntRange(1, 4096), help="With --rates: T, if it is not the network's.")
@click.option(
    "--first-layer", type=click.Choice(get_args(FirstLayer)),
    help="A first layer that reads a static image is counted once, or at every step [default: as the profile has it].",
)  # fmt: skip
@click.option("--compare", is_flag=True, help="Only the profiles side by side, with twins and verdicts.")
@click.option("--movement", is_flag=True, help="Bytes held and moved per layer instead of energy profiles.")
@click.option("--all-nodes", is_flag=True, help="Also show nodes without priced or synaptic operations.")
@options_of(MeasureOptions)
@format_option
def energy(
    network: Path | None,
    images: Path | None,
    profiles: tuple[str, ...],
    rates: Path | None,
    model: str | None,
    time_steps: int | None,
    first_layer: FirstLayer | None,
    compare: bool,
    movement: bool,
    all_nodes: bool,
    fmt: TableFormat,
    **options: Any,
) -> None:
    """Energy per layer of a network on images, under one or more price profiles.

    NETWORK is a .qkf file (IMAGES as for `simulate`), or a run file written by `simulate -o` (no IMAGES needed).
    With --rates no image is run: the firing rates of a model, published or your own, are priced.

    \b
    Examples:
      qkf-deploy energy net.int.qkf images/ --profile exact-fp32 --profile horowitz45-int8-acc32 --compare
      qkf-deploy energy --model spikingformer-8-512 --rates spikingformer-8-512 --convention spikformer-hand
    """
    from qkf_deploy.report import comparison, movement_table, rate_tables, tables

    prices = [qd.load_profile(name, first_layer) for name in profiles]  # a wrong one is found before the long part
    if rates is not None or model is not None:
        if movement or all_nodes or changed(MeasureOptions(**options)):
            raise UsageError("rates are priced without running anything", hint="leave options about runs and nodes out")
        source = _rated(network, images, rates, model)
        found = [qd.price_rates(source, str(rates), profile, time_steps) for profile in prices]
        emit(rate_tables.render_rates(found, fmt, totals_only=compare))
        return
    if network is None or time_steps is not None:
        raise UsageError("no network to count" if network is None else "--time-steps is for --rates",
                         hint="qkf-deploy energy net.int.qkf images/")  # fmt: skip
    ledger = measured(network, images, options).ledger
    if movement:
        show(movement_table.movement_sheet(qd.movement(ledger)), fmt, movement_table.NOTE)
        return
    reports = [qd.price(ledger, profile) for profile in prices]
    if compare:
        emit(comparison.render_comparison(ledger, reports, fmt))
    else:
        emit(tables.render_energy(reports, fmt, every_node=all_nodes))


def _rated(network: Path | None, images: Path | None, rates: Path | None, model: str | None) -> str | Path:
    """The network that rates are of.

    Raises:
        UsageError: --rates without a network, with two of them, or with images.
    """
    if rates is None or images is not None or (network is None) == (model is None):
        raise UsageError(
            "--rates goes with one network and no images",
            hint="qkf-deploy energy --model spikingformer-8-512 --rates rates.csv, or net.qkf --rates rates.csv",
        )
    return model if network is None and model is not None else Path(str(network))
