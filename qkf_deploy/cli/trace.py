"""`qkf-deploy trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qkf_deploy import api
from qkf_deploy.cli.common import emit, notices, output_option, progress, trace_arguments, trace_options


@click.command()
@click.argument("source")
@output_option("The .qkf file to write.")
@trace_options
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
        graph = api.trace(source, **trace_arguments(options))
        graph = api.fold(graph) if fold else graph
        api.save(graph, output)
    notices(graph.notices)
    neurons = sum(n.op.kind == "neuron" for n in graph)
    layers = "1 neuron layer" if neurons == 1 else f"{neurons} neuron layers"
    size = f"{len(graph.nodes)} nodes, {layers}, {graph.parameter_count():,} stored numbers"
    emit(f"{output}: {size}, T={graph.time_steps}")
