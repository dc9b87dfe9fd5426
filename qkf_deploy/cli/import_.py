"""`qkf-deploy import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, notices, output_option, progress
from qkf_deploy.cli.options import options_of
from qkf_deploy.options import ImportOptions


@command("import")
@click.argument("file", type=PATH)
@output_option("The .qkf file to write.")
@options_of(ImportOptions)
def import_(file: Path, output: Path, **options: Any) -> None:
    """Read a NIR file: one of ours without loss, a stock file of another tool by meaning.

    NIR does not say how neurons reset, how often they fire in a step, or how long a step is. --preset names the tool
    that wrote the file; without it they are read as NIR defines them, and a notice says what that means.

    \b
    Examples:
      qkf-deploy import net.nir -o net.qkf
      qkf-deploy import cnn.nir --preset sinabs --time-steps 16 --encoding frames -o cnn.qkf
    """
    from qkf_deploy.display.numbers import quantity

    with progress("importing"):
        graph = qd.import_nir(file, **options)
        qd.save(graph, output)
    notices(graph.notices)
    size = f"{quantity(len(graph.nodes), 'node')}, {quantity(graph.time_steps, 'time step')}"
    emit(f"{output}: {graph.arithmetic} graph, {size}")
