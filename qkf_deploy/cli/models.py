"""`qkf-deploy models`."""

from __future__ import annotations

import click

from qkf_deploy.cli.common import command, format_option, show
from qkf_deploy.options import TableFormat


@command()
@click.option("--commands", is_flag=True, help="Print the trace command of each model instead.")
@format_option
def models(commands: bool, fmt: TableFormat) -> None:
    """List models that are known to work, with their size, and those that are refused, with the reason.

    \b
    Example:
      qkf-deploy models --format md
    """
    from qkf_deploy.models.zoo import ENTRIES
    from qkf_deploy.report.model_table import command_sheet, model_sheet

    show(command_sheet(ENTRIES) if commands else model_sheet(ENTRIES), fmt)
