"""`qkf-deploy demo`."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from qkf_deploy import api
from qkf_deploy.cli.common import emit, format_option, progress, show
from qkf_deploy.cli.verify import agreement_sheet
from qkf_deploy.datasets import digits
from qkf_deploy.errors import InputError
from qkf_deploy.evaluate.agreement import Agreement
from qkf_deploy.report.formats import joules
from qkf_deploy.report.tables import render_energy
from qkf_deploy.runs.file import write_run
from qkf_deploy.runs.gates import gate_nodes
from qkf_deploy.simulators.run import Run

_CHECKPOINT = Path(__file__).parents[2] / "examples" / "digits" / "qkformer_digits.safetensors"


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("out/demo"), show_default=True)
@click.option("--checkpoint", type=click.Path(path_type=Path), default=_CHECKPOINT, help="Digits checkpoint.")
@click.option("--bits", default=8, show_default=True, help="Bits per weight.")
@format_option
def demo(output: Path, checkpoint: Path, bits: int, fmt: str) -> None:
    """Run the whole pipeline on the bundled digits network and the held-out handwritten digits."""
    if not checkpoint.is_file():
        raise InputError(
            "no such checkpoint", where=str(checkpoint), hint="run the demo from a clone of the repository"
        )
    output.mkdir(parents=True, exist_ok=True)
    data = digits.load_digits()
    images, labels = data.test_images, data.test_labels
    np.savez_compressed(output / "held_out.npz", images=images, labels=labels)
    with progress("tracing"):
        graph = api.fold(api.trace(checkpoint))
        integer = api.quantize(graph, bits)
        api.save(graph, output / "digits.qkf")
        api.save(integer, output / "digits.int.qkf")
    with progress("comparing float torch, float graph and integer graph") as tick:
        first, second = api.verify(integer, images, checkpoint, progress=tick, batch=40)
    with progress("simulating") as tick:
        run = api.simulate(integer, images, record=gate_nodes(integer), progress=tick)
    write_run(output / "run.json", integer, run)
    show(agreement_sheet(first, second), fmt)
    emit(render_energy(api.price(run.ledger, "paper-eq23"), fmt))
    if fmt == "table":
        emit(_summary(first, second, labels, bits))
        emit(_energy_lines(run))
        emit("files: " + ", ".join(str(p) for p in sorted(output.iterdir())))


def _summary(first: Agreement, second: Agreement, labels: np.ndarray, bits: int) -> str:
    rows = (
        ("float64 torch model", first.reference_predicted),
        ("float64 graph", first.predicted),
        (f"{bits}-bit integer network", second.predicted),
    )
    lines = [
        f"{name:<24} {(p == labels).sum()} of {len(labels)} right = {(p == labels).mean():.2%}" for name, p in rows
    ]
    lines.append(
        f"spikes that differ: torch / float graph {first.differ_free:,}; float / integer graph "
        f"{second.differ_forced:,} when every layer is fed the float spikes, {second.differ_free:,} when it runs free; "
        f"of {second.outputs:,} neuron outputs"
    )
    return "\n".join(lines)


def _energy_lines(run: Run) -> str:
    lines = []
    for name in ("paper-eq23", "exact-fp32"):
        report = api.price(run.ledger, name)
        lines.append(f"energy per image, {name:<11} {joules(report.mean_energy_pj)}")
    return "\n".join(lines)
