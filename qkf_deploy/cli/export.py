"""`qkf-deploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qkf_deploy import api
from qkf_deploy.cli.common import emit, format_option, note, notices, output_option, progress, show
from qkf_deploy.datasets import images as image_files
from qkf_deploy.errors import CheckFailed, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.report.formats import Column, Sheet


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Choice(["nir", "onnx", "lava"]), required=True, help="Format to write.")
@output_option("The file to write; a new directory with --partitioned and for Lava.")
@click.option("--annotated", is_flag=True, help="NIR: the whole network, with marked stand-ins that no client runs.")
@click.option("--partitioned", is_flag=True, help="NIR: stock parts, cut where NIR lacks a node, and a manifest.")
@click.option(
    "--form",
    type=click.Choice(["step", "sequence"]),
    default="step",
    show_default=True,
    help="ONNX: one time step with the membranes as state, or all T steps in one call.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="ONNX of float graphs; integer graphs choose from the width proof.",
)
@click.option("--check", is_flag=True, help="Run the export in every installed client and compare spike by spike.")
@click.option("--images", type=click.Path(path_type=Path), help="Images for --check [default: random pixels].")
@click.option("--limit", type=click.IntRange(1), default=8, show_default=True, help="Images used by --check.")
@format_option
def export(
    network: Path,
    target: str,
    output: Path,
    annotated: bool,
    partitioned: bool,
    form: str,
    precision: str,
    check: bool,
    images: Path | None,
    limit: int,
    fmt: str,
) -> None:
    """Write a float or integer network as NIR or ONNX, an integer network as a Lava script with its weights.

    NIR is written with stock nodes only; what they cannot say is listed (exit 3) unless --annotated or --partitioned
    says how to go on. --check exits with 1 if a client computes something else or all refuse the file, with 4 if none
    is installed.

    \b
    Examples:
      qkf-deploy export net.int.qkf --to onnx -o net.onnx
      qkf-deploy export net.qkf --to nir --partitioned -o parts/ --check
      qkf-deploy export net.int.qkf --to lava -o lava_net/
    """
    _refuse_contradictions(target, annotated, partitioned, check)
    mode = "annotated" if annotated else "partitioned" if partitioned else "portable"
    with progress("exporting"):
        graph = api.load(network)
        said = _write(graph, target, output, mode, form, precision)
    notices(graph.notices)
    if check:
        note(f"wrote {output}")
        given = image_files.load(images, graph, limit=limit).array if images else None
        with progress("running clients"):
            results = api.check_export(graph, target if target == "onnx" else mode, given)
        show(_sheet(results), fmt)
        if any(not r.same and not r.refused for r in results):
            raise CheckFailed("a client computes something else than the network", hint="see the table above")
    else:
        emit(f"{output}: {said}")


def _refuse_contradictions(target: str, annotated: bool, partitioned: bool, check: bool) -> None:
    if annotated and partitioned:
        raise UsageError("--annotated and --partitioned are two ways to go on; choose one")
    if target != "nir" and (annotated or partitioned):
        raise UsageError("--annotated and --partitioned are about NIR", hint="--to nir")
    if check and target == "lava":
        raise UsageError(
            "no client reads the Lava script", hint="`qkf-deploy simulate --backend lava` runs the network"
        )
    if check and annotated:
        raise UsageError("no client runs an annotated file", hint="check the --partitioned form")


def _write(graph: Graph, target: str, output: Path, mode: str, form: str, precision: str) -> str:
    if target == "nir":
        return f"NIR, {api.export_nir(graph, output, mode)}"
    if target == "lava":
        return f"run {api.export_lava(graph, output).name} with Python 3.10 and lava-nc"
    api.export_onnx(graph, output, form=form, precision=precision)
    return f"ONNX, {form} form"


def _sheet(results: list[Any]) -> Sheet:
    columns = (
        Column("client", "client", True),
        Column("compared", "values compared"),
        Column("different", "different"),
        Column("logits_error", "largest logit error"),
        Column("refused", "refused", True),
    )
    rows = tuple((r.client, r.compared, r.different, r.logits_error, r.refused) for r in results)
    shown = tuple(
        (r.client, f"{r.compared:,}", f"{r.different:,}", f"{r.logits_error:.1e}", r.refused[:80]) for r in results
    )
    return Sheet("export check", columns, rows, shown)
