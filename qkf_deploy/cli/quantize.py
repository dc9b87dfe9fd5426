"""`qkf-deploy quantize`."""

from __future__ import annotations

from pathlib import Path

import click

from qkf_deploy import api
from qkf_deploy.cli.common import emit, notices, output_option, progress
from qkf_deploy.errors import UsageError
from qkf_deploy.passes.quantize import BITS


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@output_option("The .qkf file to write.")
@click.option("--bits", default=8, show_default=True, help=f"Bits per weight: {', '.join(map(str, BITS))}.")
@click.option("--first-bits", type=int, help="Bits of the first synapse [default: the larger of --bits and 8].")
@click.option("--layer-bits", multiple=True, metavar="NODE=BITS", help="Bits of one layer; may be repeated.")
@click.option(
    "--input",
    "input_format",
    type=click.Choice(["bytes", "fixed"]),
    default="bytes",
    show_default=True,
    help="bytes: raw pixels, normalization folded exactly; fixed: normalized floats in --input-bits.",
)
@click.option("--input-bits", default=8, show_default=True, help="Bits of a fixed input.")
@click.option("--input-max", type=float, help="Largest magnitude of a fixed input [default: from mean and std].")
@click.option("--fraction-bits", type=int, help="Extra membrane bits [default: 0 where the decay is lossless, else 8].")
@click.option(
    "--carry",
    type=click.Choice(["own", "official"]),
    help="Membranes of neurons whose time axis the model merged with the batch [default: as stored].",
)
def quantize(
    network: Path,
    output: Path,
    bits: int,
    first_bits: int | None,
    layer_bits: tuple[str, ...],
    input_format: str,
    input_bits: int,
    input_max: float | None,
    fraction_bits: int | None,
    carry: str | None,
) -> None:
    """Turn a float graph into an integer graph with proven widths.

    \b
    Example:
      qkf-deploy quantize net.qkf --bits 8 -o net.int.qkf
    """
    with progress("quantizing"):
        graph = api.load(network)
        if carry is not None:
            graph = api.carry(graph, carry)  # type: ignore[arg-type]  # click checked the choice
        integer = api.quantize(
            graph,
            bits,
            first_bits=first_bits,
            layer_bits=_layer_bits(layer_bits),
            input=input_format,
            input_bits=input_bits,
            input_max=input_max,
            fraction_bits=fraction_bits,
        )
        api.save(integer, output)
    notices(integer.notices)
    widest = max(max(abs(v) for v in w.partial).bit_length() + 1 for w in integer.widths.values())
    emit(f"{output}: integer graph, {integer.provenance['quantize']}, widest accumulator {widest} bits")


def _layer_bits(pairs: tuple[str, ...]) -> dict[str, int]:
    out = {}
    for pair in pairs:
        name, equals, value = pair.rpartition("=")
        if not equals or not value.isdigit():
            raise UsageError(f"--layer-bits {pair!r}", hint="write NODE=BITS, e.g. head=16")
        out[name] = int(value)
    return out
