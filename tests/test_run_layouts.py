"""Checkpoints of the three published layouts, with data in their usual forms, through `qkf-deploy run`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published import write_cifar

import qkf_deploy as qd
from qkf_deploy.cli import run as command_line
from qkf_deploy.models.builds import build
from qkf_deploy.models.calibrate import calibrate_batchnorm, randomize_norms
from qkf_deploy.models.recognise import recognise


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checkpoint(path: str, name: str, inputs: np.ndarray, **config: object) -> None:
    """A network with random weights that fires, as training scripts store it: weights beside other things."""
    torch.manual_seed(0)
    model = build(name, **{"embed_dim": 32, **config})
    randomize_norms(model)
    calibrate_batchnorm(model, torch.from_numpy(inputs[:2]).float())
    key = "model" if name.startswith("qkformer-10") else "state_dict"
    torch.save({key: model.state_dict(), "epoch": 3, "max_acc1": 12.5}, path)


def pictures(count: int, size: int, channels: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (count, channels, size // 4, size // 4), dtype=np.uint8)
    return np.kron(coarse, np.ones((4, 4), dtype=np.uint8))


def made(words: str, samples: int) -> qd.RunFile:
    """Run it, and look at the page: the accuracy that is stored stands on it."""
    assert command_line(["run", *words.split(), "--bits", "8,4", "--engine", "reference", "-o", "out"]) == 0
    page = Path("out/report.html").read_text()
    for name in ("float", "8bit", "4bit"):
        run = qd.load_run(f"out/{name}.sqlite")
        assert run.complete
        assert run.samples == samples
        graph = qd.load(f"out/{name}.qkf")
        hits = sum(p == c for p, c in zip(run.predictions, run.labels, strict=True))
        assert sum(int(layer.total("resets")) for layer in run.ledger if "resets" in layer.counts) > 0
        assert graph.arithmetic == ("float" if name == "float" else "integer")
        answers = {"float": "the float network ", "8bit": "answers "}.get(name)
        assert answers is None or f"{answers}{hits} of {samples} images rightly" in page
    assert '<section id="gates">' in page
    return qd.load_run("out/8bit.sqlite")


def said(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert command_line(["run", *words.split(), "--bits", "8", "--engine", "reference", "-o", "out"]) in (2, 3)
    assert not Path("out").exists()
    return capsys.readouterr().err


def test_cifar(here: Path) -> None:
    """Nothing has to be given: 32 x 32, T = 4 and 8 heads are usual, and said to be assumed."""
    checkpoint("cifar.pth.tar", "qkformer-4-384-cifar10", pictures(2, 32) / 255, depths=(1, 1, 1))
    images, labels = write_cifar(Path("cifar"), 10, "binary")["test_batch.bin"]
    run = made("cifar.pth.tar cifar --limit 6", 6)
    assert run.labels == tuple(labels[:6])
    assert run.predictions == tuple(qd.simulate(qd.load("out/8bit.qkf"), images[:6]).predicted)
    assert any("usual for the cifar layout" in line for line in run.assumed)
    assert run.names[0].startswith("test_batch")


def test_imagenet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Class folders, resized as the published evaluation does; heads that cannot be are asked for."""
    checkpoint(
        "best.pth", "qkformer-10-384", pictures(2, 32) / 255, depths=(1, 1, 1), heads=4, image_size=32, num_classes=3
    )
    for index, image in enumerate(pictures(6, 40)):
        folder = Path("val") / f"n{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, -1)).resize((48, 40)).save(folder / f"{index}.png")
    assert "give --heads" in said("best.pth val --image-size 32 --heads 5", capsys)
    run = made("best.pth val --heads 4 --image-size 32", 6)
    assert sorted(run.labels) == [0, 0, 1, 1, 2, 2]
    assert any("(bicubic) and cropped to 32 x 32" in line for line in run.notices)


def test_dvs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames as arrays and as SpikingJelly's files; another T than the usual one is asked for by its number."""
    frames = np.random.default_rng(0).poisson(0.4, (4, 6, 2, 32, 32)).astype(np.uint8)
    checkpoint("dvs.pth", "qkformer-2-256-dvs128", frames, image_size=32, num_classes=2)
    np.savez("frames.npz", frames=frames, labels=np.arange(4) % 2)
    assert "--image-size 32 --time-steps 6" in said("dvs.pth frames.npz", capsys)
    assert "--time-steps 6" in said("dvs.pth frames.npz --image-size 32", capsys)
    run = made("dvs.pth frames.npz --image-size 32 --time-steps 6", 4)
    assert run.labels == (0, 1, 0, 1)
    for index, recording in enumerate(frames):
        folder = Path("recordings") / str(index % 2)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{index}.npz", frames=recording)
    again = made("dvs.pth recordings --image-size 32 --time-steps 6", 4)
    assert again.labels == (0, 0, 1, 1)
    assert again.predictions == tuple(run.predictions[i] for i in (0, 2, 1, 3))
    assert re.search(r"4 event frames of 2x32x32", Path("out/report.html").read_text())


def test_a_network_of_other_channels_is_not_taken_for_a_named_one(here: Path) -> None:
    """As wide as the named network for grey digits of 16 x 16, but for colours."""
    checkpoint("mine.pth", "qkformer-digits", pictures(2, 32) / 255, in_channels=3, image_size=32, embed_dim=64)
    config = recognise({name: tuple(t.shape) for name, t in torch.load("mine.pth")["state_dict"].items()})
    assert (config.image_size, config.heads) == (32, (8, 8, 8))
