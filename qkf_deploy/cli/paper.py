"""`qkf-deploy paper`."""

from __future__ import annotations

from pathlib import Path

import click

from qkf_deploy import api
from qkf_deploy.cli.common import emit, engine_options, format_option, image_options, note, progress
from qkf_deploy.errors import UsageError


@click.command()
@click.argument("network", type=click.Path(path_type=Path), required=False)
@click.argument("images", type=click.Path(path_type=Path), required=False)
@click.option("--figure", type=click.Path(path_type=Path), help="Write Figure 3 of this network as PNG.")
@engine_options
@image_options
@format_option
def paper(
    network: Path | None,
    images: Path | None,
    figure: Path | None,
    engine: str,
    threads: int | None,
    resize: bool,
    limit: int | None,
    fmt: str,
) -> None:
    """Recompute what can be recomputed of the QKFormer paper, and say what cannot.

    With NETWORK (.qkf) and IMAGES also Table 4, Figure 3 and the moments of Eq. 15-20 for that network.

    \b
    Example:
      qkf-deploy paper net.int.qkf images/ --figure figure3.png
    """
    from qkf_deploy.evaluate.paper.check import network_checks, render, shape_checks

    if (network is None) != (images is None) or (figure is not None and network is None):
        raise UsageError("NETWORK and IMAGES go together", hint="qkf-deploy paper net.int.qkf images/")
    with progress("recomputing") as tick:
        checks = shape_checks(tick)
    if network is not None and images is not None:
        from qkf_deploy.datasets import images as image_files
        from qkf_deploy.writing import write_atomically

        graph = api.load(network)
        given = image_files.load(images, graph, resize=resize, limit=limit)
        more, picture = network_checks(graph, given.array, engine, {} if threads is None else {"threads": threads})
        checks += more
        if figure is not None and picture is None:
            note("this network has no Q-K attention: no Figure 3")
        elif figure is not None and picture is not None:
            write_atomically(figure, picture)
            note(f"wrote {figure}")
    emit(render(checks, fmt))
