"""`qkf-deploy verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qkf_deploy import api
from qkf_deploy.cli.common import (
    format_option,
    image_options,
    progress,
    show,
    trace_arguments,
    trace_options,
)  # fmt: skip
from qkf_deploy.datasets import images as image_files
from qkf_deploy.errors import CheckFailed
from qkf_deploy.evaluate.agreement import Agreement
from qkf_deploy.report.formats import Column, Sheet

_COLUMNS = (
    Column("layer", "layer", True),
    Column("neuron_outputs", "outputs"),
    Column("spikes", "spikes"),
    Column("torch_float_differ_forced", "torch≠float forced"),
    Column("torch_float_ties", "ties"),
    Column("torch_float_differ_free", "torch≠float free"),
    Column("float_integer_differ_forced", "float≠integer forced"),
    Column("float_integer_differ_free", "float≠integer free"),
)


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--against", required=True, help="The model it came from: a checkpoint or module:factory.")
@click.option("--exact", is_flag=True, help="Fail if a single spike of the integer graph differs (lossless mode).")
@trace_options
@image_options
@format_option
def verify(
    network: Path, images: Path, against: str, exact: bool, resize: bool, limit: int | None, fmt: str, **options: Any
) -> None:
    """Compare layer by layer: float torch model, float graph, integer graph.

    "forced" feeds every layer the reference's spikes, so a difference belongs to that layer; "free" lets the network
    run on its own. Fails (exit 1) if the float graph differs from the torch model beyond threshold ties.

    \b
    Example:
      qkf-deploy verify net.int.qkf images/ --against checkpoint.pth
    """
    graph = api.load(network)
    given = image_files.load(images, graph, resize=resize, limit=limit)
    with progress("comparing") as tick:
        first, second = api.verify(graph, given.array, against, progress=tick, **trace_arguments(options))
    show(agreement_sheet(first, second), fmt, _below(first, second))
    wrong = first.differ_forced - first.differ_ties
    if wrong:
        raise CheckFailed(f"{wrong} neuron outputs of the float graph differ from the torch model", where=str(network))
    if exact and second.differ_free:
        raise CheckFailed(f"{second.differ_free} neuron outputs of the graph differ", where=str(network))


def agreement_sheet(first: Agreement, second: Agreement) -> Sheet:
    """One row per neuron layer: torch against float graph, float graph against integer graph."""
    rows = [
        (a.name, a.outputs, a.spikes, a.differ_forced, a.differ_ties, a.differ_free, b.differ_forced, b.differ_free)
        for a, b in zip(first.layers, second.layers, strict=True)
    ]
    shown = [tuple(v if isinstance(v, str) else f"{v:,}" for v in row) for row in rows]
    totals = [f"{sum(v for row in rows if isinstance(v := row[i], int)):,}" for i in range(1, len(_COLUMNS))]
    return Sheet("spike agreement", _COLUMNS, tuple(rows), tuple(shown), ("total", *totals))


def _below(first: Agreement, second: Agreement) -> str:
    return "\n".join(
        [
            f"torch against float graph: logits differ by at most {first.logit_difference:.3g}, "
            f"same class on {first.same_class} of {first.images} images",
            f"float against this graph:  logits differ by at most {second.logit_difference:.3g}, "
            f"same class on {second.same_class} of {second.images} images",
        ]
    )
