"""`qkf-deploy widths`."""

from __future__ import annotations

from pathlib import Path

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, format_option, show
from qkf_deploy.options import TableFormat


@command()
@click.argument("network", type=PATH)
@format_option
def widths(network: Path, fmt: TableFormat) -> None:
    """Show proven accumulator, membrane, threshold, weight and bias bits per layer of an integer network.

    \b
    Example:
      qkf-deploy widths net.int.qkf --format csv
    """
    from qkf_deploy.report.widths import width_sheet

    show(width_sheet(qd.widths(qd.load(network))), fmt)
