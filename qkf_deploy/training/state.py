"""Where a training stands, after each epoch: enough to go on as if it had never stopped."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim

from qkf_deploy.errors import InputError
from qkf_deploy.models.config import QKFormerConfig
from qkf_deploy.training.recipe import Recipe
from qkf_deploy.writing import write_atomically


def identity(config: QKFormerConfig, recipe: Recipe, data: str) -> dict[str, Any]:
    """What must be the same for a training to go on: architecture, recipe, digest of the images, torch's version."""
    return {"config": config.to_json(), "recipe": asdict(recipe), "data": data, "torch": str(torch.__version__)}


def write_state(
    path: Path,
    about: Mapping[str, Any],
    epoch: int,
    model: nn.Module,
    optimizer: optim.Optimizer,
    scaler: torch.amp.GradScaler,
    log: list[dict[str, Any]],
) -> None:
    """Write atomically that ``epoch`` epochs are done."""
    buffer = io.BytesIO()
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
    torch.save({"about": dict(about), "epoch": epoch, "log": log, **parts}, buffer)
    write_atomically(path, buffer.getvalue())


def read_state(
    path: Path,
    about: Mapping[str, Any],
    model: nn.Module,
    optimizer: optim.Optimizer,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> tuple[int, list[dict[str, Any]]]:
    """Fill model, optimizer and scaler from a file of :func:`write_state`; returns epochs done and the log.

    Raises:
        InputError: damaged, or of another training; names what differs.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        differing = [key for key in about if state["about"].get(key) != about[key]]
        if not differing:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            scaler.load_state_dict(state["scaler"])
            return int(state["epoch"]), list(state["log"])
    except Exception as error:  # damaged bytes make torch's readers raise almost any type
        raise InputError("a damaged training state", where=str(path), hint="delete it to start again") from error
    raise InputError(
        f"a training with another {', '.join(differing)} stands here",
        where=str(path),
        hint="go on with the same settings, delete it to start again, or choose another output",
    )
