"""`qkf-deploy demo`."""

from __future__ import annotations

from pathlib import Path

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, format_option, progress, show
from qkf_deploy.errors import InputError
from qkf_deploy.options import TableFormat

_CHECKPOINT = Path(__file__).parents[1] / "models" / "qkformer_digits.safetensors"


@command()
@click.option("-o", "--output", type=PATH, default=Path("out/demo"), show_default=True, help="Folder for the files.")
@click.option("--checkpoint", type=PATH, default=_CHECKPOINT, help="Digits checkpoint.")
@click.option("--bits", default=8, show_default=True, help="Bits per weight.")
@format_option
def demo(output: Path, checkpoint: Path, bits: int, fmt: TableFormat) -> None:
    """Run the whole pipeline on the bundled digits network and the held-out handwritten digits."""
    from qkf_deploy.datasets import digits
    from qkf_deploy.report.agreement_table import accuracy_lines, agreement_sheet
    from qkf_deploy.report.tables import energy_lines, render_energy
    from qkf_deploy.writing import write_atomically

    if not checkpoint.is_file():
        raise InputError("no such checkpoint", where=str(checkpoint), hint="leave --checkpoint out: one is bundled")
    if output.exists() and not output.is_dir():
        raise InputError("is no folder", where=str(output), hint="give another --output")
    data = digits.load_digits()
    with progress("tracing"):
        graph = qd.fold(qd.trace(checkpoint))
        integer = qd.quantize(graph, bits)
    with progress("comparing float torch, float graph and integer graph") as tick:
        first, second = qd.verify(integer, data.test_images, checkpoint, progress=tick, batch=40)
    with progress("simulating") as tick:
        run = qd.simulate(integer, data.test_images, record="gates", progress=tick)
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / checkpoint.name, checkpoint.read_bytes())
    digits.save_held_out(data, output / "held_out.npz")
    qd.save(graph, output / "digits.qkf")
    qd.save(integer, output / "digits.int.qkf")
    qd.save_run(integer, run, output / "run.sqlite")
    reports = [qd.price(run.ledger, name) for name in ("paper-eq23", "exact-fp32")]
    show(agreement_sheet(first, second), fmt)
    emit(render_energy(reports[0], fmt))
    if fmt == "table":
        emit(accuracy_lines(first, second, data.test_labels, f"{bits}-bit integer network"))
        emit(energy_lines(reports))
        emit("files: " + ", ".join(str(p) for p in sorted(output.iterdir())))
