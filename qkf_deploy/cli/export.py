"""`qkf-deploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, note, notices, output_option, progress, show
from qkf_deploy.cli.options import options_of
from qkf_deploy.errors import UsageError
from qkf_deploy.options import NirMode, OnnxOptions, RunFormat, TableFormat

NirParts = Literal["portable", "partitioned", "chains"]
Target = Literal["nir", "onnx", "lava", "sana-fe", "mem", "csv", "json", "parquet"]


@command()
@click.argument("network", type=PATH)
@click.option("--to", "target", type=click.Choice(get_args(Target)), required=True, help="Format to write.")
@output_option("The file to write; a new directory with --partitioned, for Lava, SANA-FE and runs.")
@click.option("--annotated", is_flag=True, help="NIR: the whole network, with marked stand-ins that no client runs.")
@click.option("--partitioned", is_flag=True, help="NIR: stock parts, cut where NIR lacks a node, and a manifest.")
@click.option("--chains", is_flag=True, help="NIR: as --partitioned, cut also where values meet (for norse, sinabs).")
@options_of(OnnxOptions)
@click.option("--point", help="Run to export, by number or name, of a file that holds several.")
@click.option("--check", is_flag=True, help="Run the export in every installed client and compare spike by spike.")
@click.option("--images", type=PATH, help="Images for --check, of SANA-FE the first [default: random pixels].")
@click.option("--chip", help="SANA-FE: the chip, a name or a TOML file [default: loihi1].")
@click.option("--limit", type=click.IntRange(1), default=8, show_default=True, help="Images used by --check.")
@format_option
def export(
    network: Path,
    target: Target,
    output: Path,
    annotated: bool,
    partitioned: bool,
    chains: bool,
    check: bool,
    images: Path | None,
    limit: int,
    chip: str | None,
    point: str | None,
    fmt: TableFormat,
    **onnx: Any,
) -> None:
    """Write a network as NIR, ONNX, a Lava script, SANA-FE's or memory files (integer networks), a run as tables.

    NIR is written with stock nodes only; what they cannot say is listed (exit 3) unless --annotated, --partitioned or
    --chains says how to go on. SANA-FE gets the network on a chip, and the traffic of one image. --check exits with 1
    if a client computes something else or all refuse the file, with 4 if none is installed.

    \b
    Examples:
      qkf-deploy export net.int.qkf --to onnx -o net.onnx
      qkf-deploy export net.qkf --to nir --partitioned -o parts/ --check
      qkf-deploy export net.int.qkf --to lava -o lava_net/
      qkf-deploy export net.int.qkf --to sana-fe --chip loihi1 -o folder/
      qkf-deploy export net.int.qkf --to mem -o memories/
      qkf-deploy export run.sqlite --to csv -o tables/
    """
    _refuse_contradictions(target, annotated, partitioned or chains, check)
    if chip is not None and target != "sana-fe":
        raise UsageError("--chip is about SANA-FE", hint="--to sana-fe")
    stock: NirParts = "chains" if chains else "partitioned" if partitioned else "portable"
    if target == "csv" or target == "json" or target == "parquet":
        with progress("exporting"):
            qd.export_run(network, output, target, point)
        emit(f"{output}: samples.{target}, counts.{target}, run.json")
        return
    if target == "sana-fe":
        _write_sana_fe(network, output, chip or "loihi1", images)
        return
    with progress("exporting"):
        graph = qd.load(network)
        said = _write(graph, target, output, "annotated" if annotated else stock, onnx)
    notices(graph.notices)
    if not check:
        emit(f"{output}: {said}")
        return
    from qkf_deploy.converters.export_check import require_same
    from qkf_deploy.report.export_table import check_sheet

    note(f"wrote {output}")
    given = qd.load_images(images, graph, limit=limit).array if images else None
    with progress("running clients"):
        results = qd.check_export(graph, "onnx" if target == "onnx" else stock, given)
    show(check_sheet(results), fmt)
    require_same(results)


def _refuse_contradictions(target: Target, annotated: bool, partitioned: bool, check: bool) -> None:
    if annotated and partitioned:
        raise UsageError("--annotated and --partitioned are two ways to go on; choose one")
    if target != "nir" and (annotated or partitioned):
        raise UsageError("--annotated, --partitioned and --chains are about NIR", hint="--to nir")
    if check and target in get_args(RunFormat):
        raise UsageError("--check is about networks")
    if check and target == "sana-fe":
        raise UsageError(
            "--check compares spikes, SANA-FE replays them", hint="run.py in the folder compares the costs"
        )
    if check and target == "mem":
        raise UsageError("no client reads memory files", hint="examples/testbench reads them")
    if check and target == "lava":
        raise UsageError(
            "no client reads the Lava script", hint="`qkf-deploy simulate --backend lava` runs the network"
        )
    if check and annotated:
        raise UsageError("no client runs an annotated file", hint="check the --partitioned form")


def _write_sana_fe(network: Path, output: Path, chip: str, images: Path | None) -> None:
    where = qd.load_chip(chip)  # a wrong one is found before the long part
    with progress("exporting"):
        graph = qd.load(network)
        given = qd.load_images(images, graph, limit=1).array if images else None
        said = qd.export_sana_fe(graph, output, where, given)
    notices(said)
    emit(f"{output}: run.py runs it where sanafe is installed")


def _write(graph: qd.Graph, target: Target, output: Path, mode: NirMode, onnx: dict[str, Any]) -> str:
    if target == "nir":
        return f"NIR, {qd.export_nir(graph, output, mode)}"
    if target == "lava":
        return f"run {qd.export_lava(graph, output).name} with Python 3.10 and lava-nc"
    if target == "mem":
        return f"one .mem file per parameter, described in {qd.export_memory(graph, output).name}"
    qd.export_onnx(graph, output, **onnx)
    return f"ONNX, {onnx['form']} form"
