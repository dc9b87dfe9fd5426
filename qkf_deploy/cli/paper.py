"""`qkf-deploy paper`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, note, progress
from qkf_deploy.cli.options import options_of
from qkf_deploy.cli.outputs import Output
from qkf_deploy.errors import UsageError
from qkf_deploy.keywords import part
from qkf_deploy.options import DataOptions, EngineOptions, TableFormat


@command()
@click.argument("network", type=PATH, required=False)
@click.argument("images", type=PATH, required=False)
@click.option("--every", is_flag=True, help="Also list every printed number with its verdict and evidence.")
@click.option("--figure", type=Output(), help="Write Figure 3 of this network as PNG.")
@options_of(EngineOptions)
@options_of(DataOptions)
@format_option
def paper(
    network: Path | None,
    images: Path | None,
    every: bool,
    figure: Path | None,
    engine: str,
    fmt: TableFormat,
    **options: Any,
) -> None:
    """Recompute what can be recomputed of the QKFormer paper, and say what cannot: a verdict on every printed number.

    With NETWORK (.qkf) and IMAGES also Table 4, Figure 3 and the moments of Eq. 15-20 for that network.

    \b
    Example:
      qkf-deploy paper net.int.qkf images/ --figure figure3.png
    """
    from qkf_deploy.evaluation.paper.check import network_checks, render, shape_checks
    from qkf_deploy.writing import write_atomically

    if (network is None) != (images is None) or (figure is not None and network is None):
        raise UsageError("NETWORK and IMAGES go together", hint="qkf-deploy paper net.int.qkf images/")
    own, picture = [], None
    if network is not None and images is not None:  # first: a wrong one is found before the long part
        graph = qd.load(network)
        given = qd.load_images(images, graph, **part(options, DataOptions))
        own, picture = network_checks(graph, given.array, engine, options)
    with progress("recomputing") as tick:
        checks = [*shape_checks(tick, every=every), *own]
    if network is not None:
        if figure is not None and picture is None:
            note("this network has no Q-K attention: no Figure 3")
        elif figure is not None and picture is not None:
            write_atomically(figure, picture)
            note(f"wrote {figure}")
    emit(render(checks, fmt))
