"""`qkf-deploy verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, format_option, note, notices, progress, show
from qkf_deploy.cli.options import options_of
from qkf_deploy.keywords import part
from qkf_deploy.options import DataOptions, TableFormat, VerifyOptions


@command()
@click.argument("network", type=PATH)
@click.argument("images", type=PATH)
@click.option("--against", required=True, help="The model it came from: a checkpoint or module:factory.")
@click.option("--exact", is_flag=True, help="Fail if a single spike of the integer graph differs (lossless mode).")
@options_of(VerifyOptions)
@options_of(DataOptions)
@format_option
def verify(
    network: Path,
    images: Path,
    against: str,
    exact: bool,
    fmt: TableFormat,
    **options: Any,
) -> None:
    """Compare layer by layer: float torch model, float graph, integer graph.

    "forced" feeds every layer the reference's spikes, so a difference belongs to that layer; "free" lets the network
    run on its own. Fails (exit 1) if the float graph differs from the torch model beyond threshold ties.

    \b
    Example:
      qkf-deploy verify net.int.qkf images/ --against checkpoint.pth
    """
    from qkf_deploy.evaluation.agreement import require
    from qkf_deploy.report.agreement_table import agreement_sheet, summary

    graph = qd.load(network)
    given = qd.load_images(images, graph, **part(options, DataOptions))
    notices(given.notices)
    with progress("comparing") as tick:
        first, second = qd.verify(graph, given.array, against, progress=tick, **options)
    show(agreement_sheet(first, second), fmt, summary(first, second))
    if first.shared:
        names = ", ".join(f"{a.name} {a.value}" for a in first.shared)
        note(f"assumed of the network and of the model alike, so a wrong one shows no difference here: {names}")
    require(first, second, exact=exact, where=str(network))
