"""`qkf-deploy inspect`."""

from __future__ import annotations

from pathlib import Path

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, format_option, show
from qkf_deploy.options import TableFormat


@command()
@click.argument("network", type=PATH)
@format_option
def inspect(network: Path, fmt: TableFormat) -> None:
    """Show layers, shapes, parameters, dense MACs per step, widths and the spike audit of a .qkf file.

    \b
    Example:
      qkf-deploy inspect net.qkf --format md
    """
    from qkf_deploy.report.layer_table import facts, layer_sheet

    graph = qd.load(network)
    show(layer_sheet(graph, qd.layers(graph)), fmt, facts(graph, qd.or_gates(graph)))
