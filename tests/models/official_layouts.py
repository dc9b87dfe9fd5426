"""The seven official state dicts as data: keys, shapes, neurons and parameter counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

_FOLDER = Path(__file__).parent.parent / "data" / "state_dicts"

BUILD_OF_FILE = {
    "imagenet_10_384": "qkformer-10-384",
    "imagenet_10_512": "qkformer-10-512",
    "imagenet_10_768": "qkformer-10-768",
    "cifar10": "qkformer-4-384-cifar10",
    "cifar100": "qkformer-4-384-cifar100",
    "cifar10dvs": "qkformer-2-256-cifar10dvs",
    "dvs128": "qkformer-2-256-dvs128",
}


@dataclass(frozen=True)
class OfficialLayout:
    """One official file: tensor names in order with shape and type, thresholds by neuron, number of parameters."""

    build: str
    tensors: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
    thresholds: dict[str, float]
    parameters: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape, _ in self.tensors}

    def random_state_dict(self, seed: int = 0) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {
            name: torch.rand(shape, generator=generator) if dtype.is_floating_point else torch.ones(shape, dtype=dtype)
            for name, shape, dtype in self.tensors
        }


def _read(name: str) -> OfficialLayout:
    data = json.loads((_FOLDER / f"{name}.json").read_text())
    tensors = tuple((key, tuple(shape), getattr(torch, dtype)) for key, shape, dtype in data["keys"])
    return OfficialLayout(BUILD_OF_FILE[name], tensors, data["lif_modules"], data["params"])


LAYOUTS = {name: _read(name) for name in BUILD_OF_FILE}
