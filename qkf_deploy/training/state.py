"""Where a training stands, after each epoch: enough to go on as if it had never stopped.

The file is the SHA-256 of what follows: tensors as safetensors, and what is no tensor as JSON in their metadata.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn, optim

from qkf_deploy.errors import InputError
from qkf_deploy.training.recipe import Recipe
from qkf_deploy.writing import write_atomically

_DIGEST = hashlib.sha256().digest_size
_KEY = "training"
_MODEL, _OPTIMIZER = "model/", "optimizer/"
_REST = 2**24
_NUMBERS = {"loss", "learning_rate", "accuracy"}


def identity(config: str, recipe: Recipe, data: str) -> dict[str, Any]:
    """What must be the same for a training to go on: architecture, recipe, digest of the images, torch's version."""
    return {"config": config, "recipe": asdict(recipe), "data": data, "torch": str(torch.__version__)}


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
    moments = optimizer.state_dict()["state"]
    tensors = {_MODEL + name: value for name, value in model.state_dict().items()}
    tensors |= {f"{_OPTIMIZER}{i}/{name}": value for i, each in moments.items() for name, value in each.items()}
    rest = {"about": dict(about), "epoch": epoch, "log": log, "scaler": scaler.state_dict()}
    content = safetensors.torch.save(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, {_KEY: json.dumps(rest)}
    )
    write_atomically(path, hashlib.sha256(content).digest() + content)


def read_state(
    path: Path,
    about: Mapping[str, Any],
    model: nn.Module,
    optimizer: optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[int, list[dict[str, Any]]]:
    """Fill model, optimizer and scaler from a file of :func:`write_state`; returns epochs done and the log.

    Raises:
        InputError: damaged, or of another training; names what differs.
    """
    try:
        _check_size(path, model)
        tensors, rest = _parts(path.read_bytes())
        differing = [key for key in about if rest["about"].get(key) != about[key]]
        if not differing:
            epoch, log = _checked_log(rest, about["recipe"]["epochs"])
            _fill(tensors, model, optimizer)
            scaler.load_state_dict(rest["scaler"])
            return epoch, log
    except Exception as error:  # whoever alters a file on purpose can write anything under a hash that fits
        raise InputError("a damaged training state", where=str(path), hint="delete it to start again") from error
    raise InputError(
        f"a training with another {', '.join(differing)} stands here",
        where=str(path),
        hint="go on with the same settings, delete it to start again, or choose another output",
    )


def _check_size(path: Path, model: nn.Module) -> None:
    """Weights and two moments, and room for what is said about them: more is never read."""
    weights = sum(value.nbytes for value in model.state_dict().values())
    if path.stat().st_size > 3 * weights + _REST:
        raise ValueError("larger than the state of this architecture")


def _parts(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    content = data[_DIGEST:]
    if hashlib.sha256(content).digest() != data[:_DIGEST]:
        raise ValueError("the content does not fit its digest")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return safetensors.torch.load(content), json.loads(header["__metadata__"][_KEY])


def _checked_log(rest: Mapping[str, Any], epochs: int) -> tuple[int, list[dict[str, Any]]]:
    """Epochs done and one line for each, with the numbers that a report shows."""
    epoch, log = rest["epoch"], rest["log"]
    if type(epoch) is not int or not 1 <= epoch <= epochs or [line["epoch"] for line in log] != [*range(1, epoch + 1)]:
        raise ValueError("the log does not fit the epochs")
    if not all(math.isfinite(line[name]) for line in log for name in _NUMBERS & line.keys() | {"loss"}):
        raise ValueError("the log has something else than numbers")
    return epoch, log


def _fill(tensors: dict[str, Tensor], model: nn.Module, optimizer: optim.Optimizer) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{key} is not finite")
        if key.startswith(_MODEL):
            weights[key.removeprefix(_MODEL)] = value
            continue
        index, name = key.removeprefix(_OPTIMIZER).split("/")
        if value.shape != (() if name == "step" else parameters[int(index)].shape):
            raise ValueError(f"{key} does not fit its parameter")
        moments.setdefault(int(index), {})[name] = value
    if any(each.keys() != {"step", "exp_avg", "exp_avg_sq"} for each in moments.values()):
        raise ValueError("something else than the state of AdamW")
    model.load_state_dict(weights)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
