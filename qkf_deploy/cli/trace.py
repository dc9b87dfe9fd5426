"""`qkf-deploy trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import command, emit, notices, output_option, progress
from qkf_deploy.cli.options import options_of
from qkf_deploy.options import TraceOptions


@command()
@click.argument("source")
@output_option("The .qkf file to write.")
@options_of(TraceOptions)
@click.option("--fold/--no-fold", default=False, help="Fold batch norms into the synapses before writing.")
def trace(source: str, output: Path, fold: bool, **options: Any) -> None:
    """Trace a trained model to a float graph.

    SOURCE is a checkpoint (.pth, .pt, .safetensors) whose architecture is recognised from its keys and shapes, or a
    factory as module:function or file.py:function that returns an nn.Module.

    \b
    Examples:
      qkf-deploy trace imagenet_checkpoint.pth -o net.qkf
      qkf-deploy trace mypackage.models:build --checkpoint w.pth --image-size 32 --time-steps 4 -o net.qkf
    """
    with progress("tracing"):
        graph = qd.trace(source, **options)
        graph = qd.fold(graph) if fold else graph
        qd.save(graph, output)
    for line in graph.assumed:
        click.echo(line, err=True)
    notices(graph.notices)
    from qkf_deploy.display.numbers import quantity

    neurons = sum(n.op.kind == "neuron" for n in graph)
    size = f"{quantity(len(graph.nodes), 'node')}, {quantity(neurons, 'neuron layer')}"
    emit(f"{output}: {size}, {graph.parameter_count():,} stored numbers, T={graph.time_steps}")
