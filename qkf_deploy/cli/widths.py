"""`qkf-deploy widths`."""

from __future__ import annotations

from pathlib import Path

import click

from qkf_deploy import api
from qkf_deploy.cli.common import format_option, show
from qkf_deploy.errors import UsageError


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@format_option
def widths(network: Path, fmt: str) -> None:
    """Show proven accumulator, membrane, threshold, weight and bias bits per layer of an integer network.

    \b
    Example:
      qkf-deploy widths net.int.qkf --format csv
    """
    from qkf_deploy.report.widths import width_sheet
    from qkf_deploy.runs.widths import width_rows

    graph = api.load(network)
    if graph.arithmetic != "integer":
        raise UsageError(
            "a float network has no proven widths", where=str(network), hint="`qkf-deploy quantize` it first"
        )
    show(width_sheet(width_rows(graph)), fmt)
