"""The trained weights as a checkpoint that says everything about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from qkf_deploy.ir.graph import Preprocessing
from qkf_deploy.models.qkformer import QKFormer
from qkf_deploy.training.recipe import Recipe
from qkf_deploy.writing import write_atomically


def write_checkpoint(
    path: Path,
    model: QKFormer,
    recipe: Recipe,
    preprocessing: Preprocessing | None,
    class_names: Sequence[str],
    accuracy_percent: float | None,
) -> None:
    """Write float32 weights and, as metadata, all that `trace` needs and how they were made, atomically.

    Args:
        path: a ``.safetensors`` file.
        model: trained.
        recipe: how.
        preprocessing: pixels to input; ``None`` for event frames.
        class_names: of the logits.
        accuracy_percent: on held-out images, if measured.

    Raises:
        InputError: the place cannot be written.
    """
    metadata = metadata_of(recipe, preprocessing, class_names, accuracy_percent)
    write_tensors(path, model.state_dict(), {"qkf_config": model.config.to_json(), **metadata})


def metadata_of(
    recipe: Recipe, preprocessing: Preprocessing | None, class_names: Sequence[str], accuracy_percent: float | None
) -> dict[str, str]:
    """What a file of trained weights says about itself, architecture apart; see :func:`write_checkpoint`."""
    metadata = {
        "recipe": json.dumps(asdict(recipe), sort_keys=True),
        "libraries": f"torch {torch.__version__}, numpy {np.__version__}",
    }
    if preprocessing is not None:
        metadata |= {"mean": json.dumps(preprocessing.mean), "std": json.dumps(preprocessing.std)}
    if class_names:
        metadata["class_names"] = json.dumps(list(class_names))
    if accuracy_percent is not None:
        metadata["held_out_accuracy_percent"] = f"{accuracy_percent:.4f}"
    return metadata


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a ``.safetensors`` file, atomically.

    Raises:
        InputError: the place cannot be written.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, _in_order(safetensors.torch.save(weights, metadata=dict(metadata))))


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its metadata sorted: the library's order differs from one call to the next."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[8 + size :]
