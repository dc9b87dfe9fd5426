"""`qkf-deploy train`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import qkf_deploy as qd
from qkf_deploy.cli.common import PATH, command, emit, note, output_option
from qkf_deploy.cli.options import options_of
from qkf_deploy.training.recipe import Recipe, TrainOptions, recipe_of


@command()
@click.option("--arch", required=True, help="Named build to train (see docs/models.md).")
@click.option("--data", required=True, type=PATH, help="Training images with labels, as `simulate` takes images.")
@output_option("The .safetensors checkpoint to write.")
@options_of(TrainOptions)
@options_of(Recipe)
@click.pass_context
def train(ctx: click.Context, arch: str, data: Path, output: Path, **options: Any) -> None:
    """Train a QKFormer from the beginning with surrogate gradients; the checkpoint goes to `trace` as it is.

    What is not given comes from the recipe of the build (docs/training.md). Stopped, the same command goes on after the
    last whole epoch. `torchrun --nproc-per-node N -m qkf_deploy.cli train ...` shares every batch among N processes.

    \b
    Example:
      qkf-deploy train --arch qkformer-4-384-cifar10 --data cifar10/ --device cuda -o w.safetensors
    """
    given = given_recipe(ctx, options)
    recipe = replace(recipe_of(arch), **given)
    log = qd.train(arch, data, output, recipe=recipe, report=show_epoch, **options)
    show_end(output, log)


def show_epoch(line: dict[str, Any]) -> None:
    """One epoch of a training, on stderr."""
    accuracy = f"  held out {line['accuracy']:.2f} %" if "accuracy" in line else ""
    note(f"epoch {line['epoch']}  loss {line['loss']:.4f}  rate {line['learning_rate']:.2e}{accuracy}")


def given_recipe(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The fields of a recipe that were given on the command line; all of its fields are taken out of ``options``."""
    values = {field.name: options.pop(field.name) for field in fields(Recipe)}
    return {k: v for k, v in values.items() if ctx.get_parameter_source(k) is not ParameterSource.DEFAULT}


def show_end(output: Path, log: Sequence[Mapping[str, Any]]) -> None:
    """How a training ended; of several processes the first one says it."""
    from qkf_deploy.display.numbers import quantity

    if os.environ.get("RANK", "0") == "0":
        accuracy = f", {log[-1]['accuracy']:.2f} % of the held-out images" if "accuracy" in log[-1] else ""
        emit(f"{output}: {quantity(len(log), 'epoch')}, loss {log[-1]['loss']:.4f}{accuracy}")
