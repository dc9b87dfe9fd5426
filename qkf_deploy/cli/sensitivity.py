"""`qkf-deploy sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qkf_deploy as qd
from qkf_deploy.calibration.sensitivity_options import SensitivityOptions
from qkf_deploy.cli.common import PATH, command, emit, format_option, note, notices, output_option, progress, show
from qkf_deploy.cli.options import options_of
from qkf_deploy.errors import UsageError
from qkf_deploy.options import TableFormat


@command()
@click.argument("network", type=PATH)
@click.argument("data", type=PATH)
@output_option("The .qkf file to write: the integer network under the budget.", required=False)
@options_of(SensitivityOptions)
@format_option
def sensitivity(network: Path, data: Path, output: Path | None, fmt: TableFormat, **options: Any) -> None:
    """Show what each layer loses at few bits, and find the bits of every layer that lose least under a budget.

    The budget is one of memory, or with --profile one of energy. Networks along a range of budgets are run as a whole.

    \b
    Example:
      qkf-deploy sensitivity net.qkf val/ --budget 60kB -o mixed.qkf
    """
    if output is not None and options["budget"] is None:
        raise UsageError("-o needs a --budget", hint="say how large the network may be")
    with progress("weighing") as tick:
        found = qd.sensitivity(network, data, progress=tick, **options)
    notices(found.notices)
    if output is not None and found.graph is not None:
        qd.save(found.graph, output)
        note(f"{output}: integer graph, {found.graph.provenance['quantize']}")
    if fmt == "json":
        from qkf_deploy.report.formats import to_json

        emit(to_json({"schema_version": 1, **found.report.to_dict()}))
        return
    show(found.report.sheet(), fmt)
    show(found.report.curve_sheet(), fmt)
