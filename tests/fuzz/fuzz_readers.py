"""Every reader of files, an honest file for each, and the ways it is damaged."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_mutations import Damage, damaged_bytes, damaged_json, damaged_member
from netbuild import Net
from PIL import Image
from published import aedat2, aedat3, atis, cifar_images, cifar_pickle, random_events
from safetensors.numpy import load, save
from stored_runs import put_together, taken_apart
from torch import nn

import qkf_deploy as qd
from qkf_deploy import bundle
from qkf_deploy.converters.nir import read as nir_read
from qkf_deploy.converters.nir.export import nir_bytes
from qkf_deploy.converters.nir.safety import read_content
from qkf_deploy.converters.torch.checkpoint import load_model, read_state_dict
from qkf_deploy.datasets.cifar import PickledBatch
from qkf_deploy.datasets.events import formats
from qkf_deploy.datasets.events.recording import Events, frames
from qkf_deploy.datasets.tables import read_table
from qkf_deploy.ir import Graph
from qkf_deploy.models.builds import build
from qkf_deploy.models.qkformer import QKFormer
from qkf_deploy.runs.file import write_run
from qkf_deploy.training.recipe import Recipe
from qkf_deploy.training.state import identity, read_state, write_state


@dataclass(frozen=True)
class Reader:
    """One way into the program.

    Attributes:
        honest: a good file.
        read: reads a file; raises what its user would see.
        damage: ways to damage it.
        suffix: of the file's name.
    """

    honest: Callable[[], bytes]
    read: Callable[[Path], object]
    damage: tuple[Damage, ...]
    suffix: str


@cache
def network() -> Graph:
    net = Net(0, (2, 4, 4), frames=True)
    net.lif("lif", net.conv("conv", "input", 3))
    net.head("lif", 2)
    return qd.quantize(net.build(), 8)


@cache
def pictures_network() -> Graph:
    net = Net(0, (3, 8, 8))
    net.lif("lif", net.conv("conv", "input", 3))
    net.head("lif", 2)
    return qd.quantize(net.build(), 8)


@cache
def qkf() -> bytes:
    return bundle.to_bytes(network())


def altered_network(data: bytes, rng: random.Random) -> bytes:
    """Metadata or a tensor altered, under a hash that fits."""
    tensors = dict(load(data))
    text = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["qkf"])
    text = damaged_json(text, rng)
    if rng.random() < 0.3:
        name = rng.choice(sorted(tensors))
        old = tensors[name]
        kind = rng.choice((old.dtype, np.int64, np.uint64, np.float64, np.float16, np.bool_))
        tensors[name] = rng.choice(
            (old.astype(kind), np.full(old.shape, 2**62), old.reshape(-1), old[:0], np.zeros(()))
        )
        tensors[name] = np.ascontiguousarray(tensors[name])
    return save(tensors, metadata={"qkf": json.dumps({**text, "sha256": bundle.content_hash(text, tensors)})})


def read_nir(path: Path) -> object:
    """Without its child process: a good many files are read in one child here."""
    nir_read.read_isolated = read_content
    return nir_read.import_nir(path)


@cache
def model() -> QKFormer:
    torch.manual_seed(0)
    return build("qkformer-digits", embed_dim=32, heads=8, time_steps=1)


@cache
def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": model().state_dict(), "epoch": 3}, buffer)
    return buffer.getvalue()


@cache
def legacy_checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(6.0).reshape(2, 3)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@cache
def safetensors_checkpoint() -> bytes:
    tensors = {k: v.numpy() for k, v in model().state_dict().items()}
    return save(tensors, metadata={"qkf_config": model().config.to_json()})


RECIPE = Recipe(epochs=3)
LOG = [{"epoch": 1, "loss": 2.25, "learning_rate": 1e-3, "accuracy": 12.5}]


def trainer() -> tuple[dict[str, Any], nn.Module, torch.optim.Optimizer, torch.amp.GradScaler]:
    """What a training of a small layer reads its state into."""
    layer = nn.Linear(3, 2)
    about = identity(model().config.to_json(), RECIPE, "digest")
    return about, layer, torch.optim.AdamW(layer.parameters()), torch.amp.GradScaler("cpu", enabled=False)


@cache
def training_state(folder: str) -> bytes:
    path = Path(folder) / "honest.training"
    about, layer, optimizer, scaler = trainer()
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    write_state(path, about, 1, layer, optimizer, scaler, LOG)
    data = path.read_bytes()
    path.unlink()
    return data


def altered_state(data: bytes, rng: random.Random) -> bytes:
    """Damage of any kind, or an altered description, under a hash that fits."""
    content = data[32:]
    if rng.random() < 0.5:
        content = damaged_bytes(content, rng)
    else:
        rest = json.loads(
            json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["training"]
        )
        content = save(load(content), metadata={"training": json.dumps(damaged_json(rest, rng))})
    return hashlib.sha256(content).digest() + content


def read_training(path: Path) -> object:
    about, *rest = trainer()
    return read_state(path, about, *rest)


@cache
def run_file(folder: str) -> bytes:
    path = Path(folder) / "honest.sqlite"
    graph = network()
    images = np.ones((2, graph.time_steps, 2, 4, 4), np.int64)
    write_run(path, graph, qd.simulate(graph, images, engine="reference"))
    data = path.read_bytes()
    path.unlink()
    return data


def altered_run(data: bytes, rng: random.Random) -> bytes:
    """A row, or something in its JSON, altered."""
    with tempfile.TemporaryDirectory() as folder:
        honest, altered = Path(folder) / "honest", Path(folder) / "altered"
        honest.write_bytes(data)
        put_together(altered, honest, damaged_json(taken_apart(honest), rng))
        return altered.read_bytes()


def toml(folder: str) -> bytes:
    files = sorted((resources.files("qkf_deploy.hw_models") / folder).iterdir(), key=lambda f: f.name)
    return next(f for f in files if f.name.endswith(".toml")).read_bytes()


def array(write: Callable[..., None], *arguments: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer, *arguments, **named)
    return buffer.getvalue()


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def read_pictures(path: Path) -> object:
    return qd.load_images(path, pictures_network())


def recording(read: Callable[[Path], Events], size: int) -> Callable[[Path], object]:
    return lambda path: frames(read(path), 4, "time", size, size)


def label_table() -> bytes:
    return b"file,label\n" + b"".join(b"n%d/%d.png,%d\n" % (i % 2, i, i % 2) for i in range(50))


_BYTES = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)


def readers(folder: Path) -> dict[str, Reader]:
    """All readers; ``folder`` is for files that are written on the way."""
    plain = (damaged_bytes,)
    return {
        "qkf": Reader(qkf, qd.load, (damaged_bytes, altered_network, altered_network), ".qkf"),
        "nir": Reader(lambda: nir_bytes(network()), read_nir, plain, ".nir"),
        "checkpoint": Reader(checkpoint, load_model, (damaged_bytes, damaged_member), ".pth"),
        "legacy checkpoint": Reader(legacy_checkpoint, read_state_dict, plain, ".pt"),
        "safetensors": Reader(safetensors_checkpoint, load_model, plain, ".safetensors"),
        "training state": Reader(
            lambda: training_state(str(folder)), read_training, (damaged_bytes, altered_state, altered_state),
            ".training",
        ),
        "run": Reader(lambda: run_file(str(folder)), qd.load_run, (damaged_bytes, altered_run, altered_run), ".sqlite"),
        "profile": Reader(lambda: toml("profiles"), qd.load_profile, plain, ".toml"),
        "chip": Reader(lambda: toml("chips"), qd.load_chip, plain, ".toml"),
        "npy": Reader(lambda: array(np.save, _BYTES), read_pictures, plain, ".npy"),
        "npz": Reader(
            lambda: array(np.savez, images=_BYTES, labels=np.arange(4) % 2), read_pictures,
            (damaged_bytes, damaged_member), ".npz",
        ),
        "cifar pickle": Reader(
            lambda: cifar_pickle({"labels": [1, 2, 300], "data": cifar_images(3).reshape(3, -1)}),
            lambda path: PickledBatch(path, "labels").content, plain, "",
        ),
        "labels": Reader(label_table, lambda path: read_table(path, folder, pictures_network()), plain, ".csv"),
        "aedat 2": Reader(
            lambda: aedat2(random_events(500)), recording(formats.read_aedat, 128), plain, ".aedat"
        ),
        "aedat 3": Reader(
            lambda: aedat3(random_events(500)), recording(formats.read_aedat, 128), plain, ".aedat"
        ),
        "atis": Reader(lambda: atis(random_events(500, 34, 34)), recording(formats.read_atis, 34), plain, ".bin"),
        "events npz": Reader(
            lambda: array(np.savez, **random_events(500)), recording(formats.read_arrays, 128),
            (damaged_bytes, damaged_member), ".npz",
        ),
        "png": Reader(lambda: picture("PNG"), read_pictures, plain, ".png"),
        "jpeg": Reader(lambda: picture("JPEG"), read_pictures, plain, ".jpg"),
    }  # fmt: skip
