"""`qkf-deploy hardware`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, note, notices, output_option, progress, show
from qkf_deploy.cli.options import options_of
from qkf_deploy.errors import UsageError
from qkf_deploy.keywords import part
from qkf_deploy.options import TableFormat
from qkf_deploy.pipeline.hardware_options import HardwareOptions, InputOptions

if TYPE_CHECKING:
    from qkf_deploy.hw_models.architecture.chip import Chip
    from qkf_deploy.hw_models.timing.use import NetworkUse


@command()
@click.argument("network", type=PATH)
@click.argument("images", type=PATH)
@click.option("--chip", required=True, help="A chip by name (fpga-array, generic-digital, ...), or a TOML file.")
@click.option("--no-twin", is_flag=True, help="Leave the dense twin out.")
@click.option("--explore", metavar="AXES", help="Variants of the chip instead: dataflow, cores, buffers, or several.")
@output_option("With --explore: the CSV file to write.", required=False)
@options_of(HardwareOptions)
@format_option
def hardware(
    network: Path, images: Path, chip: str, no_twin: bool, explore: str | None, output: Path | None, fmt: TableFormat,
    **options: Any,
) -> None:  # fmt: skip
    """Energy by component and time of an integer network on a chip, every layer executed the best way.

    IMAGES is a data set, or a run file of this network (`simulate -o`, `evaluate -o`): then the images that it is of,
    read again from where they were and checked against its counts.

    \b
    Examples:
      qkf-deploy hardware net.int.qkf run.sqlite --chip generic-digital
      qkf-deploy hardware net.int.qkf images/ --chip fpga-array
      qkf-deploy hardware net.int.qkf images/ --chip my.toml --explore dataflow,cores,buffers -o sweep.csv
    """
    from qkf_deploy.display.numbers import quantity
    from qkf_deploy.pipeline.on_chip import followed, put_together
    from qkf_deploy.report.formats import to_csv
    from qkf_deploy.report.hardware_table import sweep_sheet
    from qkf_deploy.writing import write_atomically

    if output is not None and explore is None:
        raise UsageError("-o is the table of --explore", hint="say what to explore, or leave -o out")
    axes = [axis.strip() for axis in explore.split(",")] if explore is not None else []
    where = qd.load_chip(chip)  # a wrong one is found before the long part
    goal = options.pop("goal")
    graph = qd.load(network)
    given = qd.load_inputs(images, graph, **part(options, InputOptions))
    notices(given.notices)
    with progress("simulating") as tick:
        activity = qd.measure_activity(graph, given, progress=tick, **options)

    def follow(variant: Chip) -> NetworkUse | None:
        with progress("following messages") as tick:
            return followed(graph, given, variant, progress=tick, **options)

    if explore is not None:
        sheet = sweep_sheet(qd.explore_hardware(graph, activity, where, axes, goal, follow))
        if output is None:
            show(sheet, fmt)
        else:
            write_atomically(output, to_csv(sheet).encode())
            note(f"{output}: {quantity(len(sheet.rows), 'variant')}")
        return
    emit(put_together(graph, given, activity, where, follow(where), goal, not no_twin).text(fmt))
