"""`qkf-deploy calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qkf_deploy as qd
from qkf_deploy.calibration.options import CalibrateOptions
from qkf_deploy.cli.common import PATH, command, format_option, note, notices, output_option, progress, show
from qkf_deploy.cli.options import options_of
from qkf_deploy.options import TableFormat


@command()
@click.argument("network", type=PATH)
@click.argument("data", type=PATH)
@output_option("The .qkf file to write.")
@options_of(CalibrateOptions)
@format_option
def calibrate(network: Path, data: Path, output: Path, fmt: TableFormat, **options: Any) -> None:
    """Fit a network to images without training: integers of few bits, or leftovers for membranes that the model carries
    over a batch.

    With --bits, shows what the neurons of every layer do wrong before and after. With --carry, shows what every carry
    mode answers on the images that the leftovers do not come from, or on --held-out.

    \b
    Example:
      qkf-deploy calibrate net.qkf train-sample/ --bits 4 -o net.int.qkf
      qkf-deploy calibrate net.qkf train-sample/ --carry stored -o stored.qkf
    """
    with progress("calibrating") as tick:
        found = qd.calibrate(network, data, progress=tick, **options)
    notices(found.notices)
    qd.save(found.graph, output)
    if found.carry is not None:
        show(found.carry.sheet(), fmt)
        note(f"{output}: carry {options['carry']}")
    if found.fit is not None:
        show(found.fit.sheet(), fmt)
        note(f"{output}: integer graph, {found.graph.provenance['quantize']}")
