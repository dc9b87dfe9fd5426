"""`qkf-deploy finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, output_option
from qkf_deploy.cli.options import options_of
from qkf_deploy.cli.train import given_recipe, show_end, show_epoch
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
    given = given_recipe(ctx, options)
    log = qd.finetune(source, data, output, recipe=given, report=show_epoch, **options)
    show_end(output, log)
