"""`qkf-deploy report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, hardware_option, measured, output_option
from qkf_deploy.cli.options import options_of
from qkf_deploy.options import MeasureOptions


@command()
@click.argument("run", type=PATH)
@click.argument("images", type=PATH, required=False)
@output_option("The HTML file to write.")
@click.option(
    "--profile", "profiles", multiple=True, help="Price profile; repeatable. The first one is the layer table's."
)
@click.option(
    "--beside", multiple=True, type=PATH, metavar="RUN", help="Another run, to be compared with this one; repeatable."
)
@hardware_option
@options_of(MeasureOptions)
def report(
    run: Path, images: Path | None, output: Path, profiles: tuple[str, ...], beside: tuple[Path, ...],
    hardware: tuple[Path, ...], **options: Any,
) -> None:  # fmt: skip
    """Write one self-contained HTML page about a run, or about the points of a sweep.

    RUN is what `simulate -o` or `evaluate -o` wrote, or a .qkf file with IMAGES as for `simulate`. Of a sweep, the page
    has the curve of accuracy over energy (the first profile's); --point chooses one of its points.

    \b
    Example:
      qkf-deploy report run.sqlite -o report.html
    """
    prices = [qd.load_profile(name) for name in profiles]  # a wrong one is found before the long part
    others = qd.load_runs(beside) if beside else {}
    if (
        not beside
        and not hardware
        and images is None
        and options["point"] is None
        and len(points := qd.load_runs(run)) + len(points.left_out) > 1
    ):
        qd.write_sweep_report(points, output, *prices[:1])
    else:
        qd.write_report(measured(run, images, options), output, prices, others, hardware)
    emit(f"wrote {output}")
