"""`qkf-deploy energy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qkf_deploy import api
from qkf_deploy.cli.common import (
    emit,
    engine_options,
    format_option,
    image_options,
    notices,
    progress,
    show,
    start_engine,
)
from qkf_deploy.errors import UsageError
from qkf_deploy.ledger import Ledger

_MOVEMENT_NOTE = (
    "Each layer's weights and membranes lie in the smallest of 8 KB, 32 KB and 1 MB of SRAM (1.25, 2.5, 12.5 pJ per "
    "byte) or else DRAM (162.5), Horowitz, ISSCC 2014; every use of a weight is a read; events are counted, not priced."
)


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path), required=False)
@click.option(
    "--profile", "profiles", multiple=True, default=("paper-eq23",), show_default=True,
    help="Price profile: a name (`qkf-deploy profiles` lists them) or a TOML file. Repeatable.",
)  # fmt: skip
@click.option("--compare", is_flag=True, help="Only the profiles side by side, with twins and verdicts.")
@click.option("--movement", is_flag=True, help="Bytes held and moved per layer instead of energy profiles.")
@click.option("--all-nodes", is_flag=True, help="Also show nodes without priced or synaptic operations.")
@engine_options
@image_options
@format_option
def energy(
    network: Path,
    images: Path | None,
    profiles: tuple[str, ...],
    compare: bool,
    movement: bool,
    all_nodes: bool,
    engine: str,
    threads: int | None,
    resize: bool,
    limit: int | None,
    fmt: str,
) -> None:
    """Energy per layer of a network on images, under one or more price profiles.

    NETWORK is a .qkf file (IMAGES as for `simulate`), or a run file written by `simulate -o` (no IMAGES needed).

    \b
    Example:
      qkf-deploy energy net.int.qkf images/ --profile exact-fp32 --profile horowitz45-int8-acc32 --compare
    """
    from qkf_deploy.hw_models.profiles import load_profile
    from qkf_deploy.report.comparison import render_comparison
    from qkf_deploy.report.tables import render_energy

    for name in profiles:  # a wrong one is found before the long part
        load_profile(name)
    ledger = _ledger(network, images, engine, threads, resize, limit)
    if movement:
        from qkf_deploy.hw_models.movement import movement as move
        from qkf_deploy.report.movement_table import movement_sheet

        show(movement_sheet(move(ledger)), fmt, _MOVEMENT_NOTE)
        return
    reports = [api.price(ledger, name) for name in profiles]
    emit(render_comparison(ledger, reports, fmt) if compare else render_energy(reports, fmt, every_node=all_nodes))


def _ledger(
    network: Path, images: Path | None, engine: str, threads: int | None, resize: bool, limit: int | None
) -> Ledger:
    from qkf_deploy.datasets import images as image_files
    from qkf_deploy.runs.file import read_run

    if network.suffix == ".json":
        if images is not None:
            raise UsageError("a run file has its counts already", hint="leave IMAGES out, or give the .qkf file")
        return read_run(network).ledger
    if images is None:
        raise UsageError("no images to count on", hint="qkf-deploy energy NETWORK.qkf IMAGES")
    graph = api.load(network)
    given = image_files.load(images, graph, resize=resize, limit=limit)
    options: dict[str, Any] = {} if threads is None else {"threads": threads}
    start_engine(engine, graph.arithmetic == "integer")
    with progress("simulating") as tick:
        run = api.simulate(graph, given.array, engine=engine, progress=tick, **options)
    notices(run.notices)
    return run.ledger
