"""`train`: from labelled images to a checkpoint that the other commands take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.training.recipe import Recipe, recipe_of

SMALL = (
    "--classes", "3", "--image-size", "8", "--time-steps", "2", "--epochs", "2", "--batch-size", "8", "--threads", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "train.npz"
    labels = np.arange(24) % 3
    pixels = np.random.default_rng(0).integers(0, 80, (24, 1, 8, 8)) + 60 * labels[:, None, None, None]
    np.savez(path, images=pixels.astype(np.uint8), labels=labels)
    return path


def arguments(images: Path, output: Path, *more: str) -> list[str]:
    given = ["train", "--arch", "qkformer-digits", "--data", str(images), "-o", str(output)]
    return [*given, *SMALL, *more]


def test_from_images_to_integers(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w.safetensors"
    assert command(arguments(images, out, "--held-out", str(images), "--shift", "1")) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}: 2 epochs, loss ")
    assert printed.err.count("epoch ") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    with safe_open(out, "np") as file:
        metadata = file.metadata()
    recipe = json.loads(metadata["recipe"])
    assert (recipe["epochs"], recipe["shift"]) == (2, 1)
    assert recipe["learning_rate"] == recipe_of("qkformer-digits").learning_rate
    data = np.load(images)
    fractions = data["images"] / 255
    assert json.loads(metadata["mean"]) == [round(float(fractions.mean()), 4)]
    assert json.loads(metadata["std"]) == [round(float(fractions.std()), 4)]
    run = qd.simulate(qd.fold(qd.trace(out)), data["images"])
    assert 100 * run.accuracy(data["labels"]) == pytest.approx(float(metadata["held_out_accuracy_percent"]), abs=1e-3)
    assert qd.quantize(qd.fold(qd.trace(out)), 4).arithmetic == "integer"


def test_stopped_it_goes_on(images: Path, tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch_size=8, threads=1)
    chosen = {"classes": 3, "image_size": 8, "time_steps": 2}
    whole = qd.train("qkformer-digits", images, tmp_path / "a.safetensors", recipe=recipe, **chosen)

    def stop(line: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qd.train("qkformer-digits", images, tmp_path / "b.safetensors", recipe=recipe, report=stop, **chosen)
    assert (tmp_path / "b.safetensors.training").exists()
    seen: list[object] = []
    again = qd.train("qkformer-digits", images, tmp_path / "b.safetensors", recipe=recipe, report=seen.append, **chosen)
    assert again == whole
    assert len(seen) == 1
    a, b = (load_file(tmp_path / f"{name}.safetensors") for name in "ab")
    assert list(a) == list(b)
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not (tmp_path / "b.safetensors.training").exists()


def test_what_cannot_be_trained(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    np.savez(tmp_path / "unlabelled.npz", images=np.zeros((4, 1, 8, 8), np.uint8))
    np.savez(tmp_path / "beyond.npz", images=np.zeros((4, 1, 8, 8), np.uint8), labels=np.arange(4))
    with pytest.raises(InputError, match="no labels"):
        qd.train("qkformer-digits", tmp_path / "unlabelled.npz", out, image_size=8, classes=3)
    for name in ("a", "b"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "folders" / name / "0.png")
    with pytest.raises(InputError, match="no labels: 2 folders are not the network's 3 classes"):
        qd.train("qkformer-digits", tmp_path / "folders", out, image_size=8, classes=3)
    with pytest.raises(InputError, match="label 3"):
        qd.train("qkformer-digits", tmp_path / "beyond.npz", out, image_size=8, classes=3)
    with pytest.raises(InputError, match="8"):
        qd.train("qkformer-digits", images, out, classes=3)
    with pytest.raises(UsageError, match="unknown model"):
        qd.train("qkformer-digit", images, out)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no device 'cuda'"):
            qd.train("qkformer-digits", images, out, image_size=8, classes=3, device="cuda")
    assert command(arguments(images, out, "--micro-batches", "3")) == 2
    assert command(arguments(images, out, "--epochs", "0")) == 2
    assert command(arguments(tmp_path / "nothing", out)) == 3
    assert not out.exists()
