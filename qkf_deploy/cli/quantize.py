"""`qkf-deploy quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, notices, output_option, progress
from qkf_deploy.cli.options import options_of
from qkf_deploy.options import QuantizeOptions


@command()
@click.argument("network", type=PATH)
@output_option("The .qkf file to write.")
@options_of(QuantizeOptions)
@click.option(
    "--carry",
    type=click.Choice(["own", "official"]),
    help="Membranes of neurons whose time axis the model merged with the batch [default: as stored].",
)
def quantize(network: Path, output: Path, carry: Literal["own", "official"] | None, **options: Any) -> None:
    """Turn a float graph into an integer graph with proven widths.

    \b
    Example:
      qkf-deploy quantize net.qkf --bits 8 -o net.int.qkf
    """
    with progress("quantizing"):
        graph = qd.load(network)
        graph = graph if carry is None else qd.carry(graph, carry)
        integer = qd.quantize(graph, **options)
        qd.save(integer, output)
    notices(integer.notices)
    widest = max(max(abs(v) for v in w.partial).bit_length() + 1 for w in integer.widths.values())
    emit(f"{output}: integer graph, {integer.provenance['quantize']}, widest accumulator {widest} bits")
