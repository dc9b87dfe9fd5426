"""`qkf-deploy import`."""

from __future__ import annotations

from pathlib import Path

import click

from qkf_deploy import api
from qkf_deploy.cli.common import emit, notices, output_option, progress


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@output_option("The .qkf file to write.")
@click.option("--time-steps", type=click.IntRange(1, 4096), default=4, show_default=True, help="T of a stock file.")
@click.option(
    "--encoding",
    type=click.Choice(["direct", "frames"]),
    default="direct",
    show_default=True,
    help="Input of a stock file: one image shown T times, or T frames.",
)
@click.option("--dt", default=1e-4, show_default=True, help="Time step in seconds the file was written for.")
@click.option(
    "--fires",
    type=click.Choice(["above", "at"]),
    default="above",
    show_default=True,
    help="Neurons fire above their threshold (NIR's definition) or at it (what SpikingJelly does with its own files).",
)
@click.option("--readout/--no-readout", default=True, help="Mean over time of the output, or one output per step.")
@click.option("--stock", is_flag=True, help="Ignore our sidecar and read the stock nodes.")
def import_(
    file: Path, output: Path, time_steps: int, encoding: str, dt: float, fires: str, readout: bool, stock: bool
) -> None:
    """Read a NIR file: one of ours without loss, a stock file of another tool by meaning.

    \b
    Example:
      qkf-deploy import net.nir -o net.qkf
    """
    with progress("importing"):
        graph = api.import_nir(
            file, time_steps=time_steps, input_encoding=encoding, dt=dt, fires=fires, readout=readout, stock=stock
        )
        api.save(graph, output)
    notices(graph.notices)
    emit(f"{output}: {graph.arithmetic} graph, {len(graph.nodes)} nodes, {graph.time_steps} time steps")
