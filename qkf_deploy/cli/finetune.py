"""`qkf-deploy finetune`."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, output_option
from qkf_deploy.cli.options import options_of
from qkf_deploy.cli.train import show_epoch
from qkf_deploy.training.recipe import FinetuneOptions, Recipe


@command()
@click.argument("source")
@click.option("--data", required=True, type=PATH, help="Training images with labels, as `simulate` takes images.")
@output_option("The .safetensors checkpoint to write.")
@options_of(FinetuneOptions)
@options_of(Recipe)
@click.pass_context
def finetune(ctx: click.Context, source: str, data: Path, output: Path, **options: Any) -> None:
    """Train a checkpoint further with integer weights; what `trace` and `quantize` make of it is what was trained.

    SOURCE is what `trace` takes. Images are changed as the recipe of the build says (docs/training.md); the rest is
    as below. Stopped, the same command goes on after the last whole epoch.

    \b
    Example:
      qkf-deploy finetune w.safetensors --data train/ --bits 4 -o w4.safetensors
    """
    values = {field.name: options.pop(field.name) for field in fields(Recipe)}
    given = {k: v for k, v in values.items() if ctx.get_parameter_source(k) is not ParameterSource.DEFAULT}
    log = qd.finetune(source, data, output, recipe=given, report=show_epoch, **options)
    if os.environ.get("RANK", "0") == "0":
        accuracy = f", {log[-1]['accuracy']:.2f} % of the held-out images" if "accuracy" in log[-1] else ""
        emit(f"{output}: {len(log)} epochs, loss {log[-1]['loss']:.4f}{accuracy}")
