"""Training: the same weights however it is stopped, and the same losses however it is shared."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import qkf_deploy as qd
from qkf_deploy.errors import CheckFailed, InputError, MissingComponent, UsageError
from qkf_deploy.ir.graph import Preprocessing
from qkf_deploy.models import build_config
from qkf_deploy.models.qkformer import QKFormer
from qkf_deploy.training import loop, state
from qkf_deploy.training.checkpoint import write_checkpoint
from qkf_deploy.training.examples import ArrayExamples
from qkf_deploy.training.loop import Task, train
from qkf_deploy.training.processes import Group
from qkf_deploy.training.recipe import Recipe
from qkf_deploy.training.schedule import learning_rate

ALONE = Group(0, 1, torch.device("cpu"))
CONFIG = build_config("qkformer-digits", image_size=8, embed_dim=16, heads=2, num_classes=3, time_steps=2)
RECIPE = Recipe(
    epochs=2, batch_size=12, micro_batches=2, learning_rate=1e-2, shift=1, flip=0.5, rand_augment=1, erase=0.5,
    mixup=0.5, mixup_epochs=1, drop_path=0.2, threads=1, clip_norm=5.0, seed=3,
)  # fmt: skip


def examples(count: int = 36, classes: int = 3) -> ArrayExamples:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    pixels = rng.integers(0, 80, (count, 1, 8, 8)) + 60 * labels[:, None, None, None]
    return ArrayExamples(pixels.astype(np.uint8), labels, tuple("abc"))


def task(recipe: Recipe = RECIPE) -> Task:
    return Task(CONFIG, recipe, examples(), examples(9), Preprocessing((0.4,), (0.3,)))


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@dataclass(frozen=True)
class State:
    """What a training's file holds."""

    tensors: dict[str, torch.Tensor]
    rest: dict[str, Any]


class Stop(Exception):
    pass


def stop(line: dict[str, object]) -> None:
    raise Stop


def test_stopping_changes_nothing(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = []
    whole, log = train(task(), ALONE, tmp_path / "whole", lines.append)
    assert lines == log
    assert [line["epoch"] for line in log] == [1, 2]
    assert all(np.isfinite(line["loss"]) and 0 <= line["accuracy"] <= 100 for line in log)
    with pytest.raises(Stop):
        train(task(), ALONE, tmp_path / "state", stop)
    torch.manual_seed(99)  # whatever happens in between
    resumed, again = train(task(), ALONE, tmp_path / "state", lambda line: None)
    assert again == log
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())


def test_what_is_not_installed_is_said_before_a_network_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    for name in [name for name in sys.modules if name.startswith("kornia.")]:
        monkeypatch.delitem(sys.modules, name)
    made: list[int] = []
    wanted = replace(task(replace(RECIPE, shift=1)), build=lambda: made.append(1))  # type: ignore[arg-type,return-value]
    with pytest.raises(MissingComponent, match="kornia"):
        train(wanted, ALONE, tmp_path / "state", lambda line: None)
    assert made == []


def test_a_checkpoint_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    model = QKFormer(CONFIG)
    for name in ("first", "second", "third"):
        write_checkpoint(tmp_path / name, model, RECIPE, Preprocessing((0.4,), (0.3,)), ("a", "b", "c"), 50.0)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    with safe_open(tmp_path / "first", "pt") as file:
        assert file.metadata()["class_names"] == '["a", "b", "c"]'
        assert torch.equal(file.get_tensor("head.bias"), model.state_dict()["head.bias"])


def test_it_learns(tmp_path: Path) -> None:
    recipe = Recipe(epochs=15, batch_size=6, learning_rate=1e-2, threads=1)
    _, log = train(task(recipe), ALONE, tmp_path / "state", lambda line: None)
    assert log[-1]["loss"] < 0.75 * log[0]["loss"]
    assert log[-1]["accuracy"] > 60


@pytest.mark.parametrize("change", [{"seed": 4}, {"learning_rate": 2e-2}, {"carry": "official"}, {"shift": 0}])
def test_every_setting_changes_the_weights(tmp_path: Path, change: dict[str, object]) -> None:
    short = replace(RECIPE, epochs=1)
    first, _ = train(task(short), ALONE, tmp_path / "a", lambda line: None)
    second, _ = train(task(replace(short, **change)), ALONE, tmp_path / "b", lambda line: None)
    expected = weights(first)
    assert any(not torch.equal(value, expected[name]) for name, value in weights(second).items())


def test_another_training_is_not_continued(tmp_path: Path) -> None:
    train(task(replace(RECIPE, epochs=1)), ALONE, tmp_path / "state", lambda line: None)
    with pytest.raises(InputError, match="another recipe stands here"):
        train(task(), ALONE, tmp_path / "state", lambda line: None)
    damaged = (tmp_path / "state").read_bytes()
    flipped = damaged[:-100] + bytes([damaged[-100] ^ 1]) + damaged[-99:]
    for content in (b"", damaged[: len(damaged) // 2], flipped, b"PK\x03\x04" + b"x" * 100):
        (tmp_path / "state").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            train(task(), ALONE, tmp_path / "state", lambda line: None)


def _renamed(state: State) -> None:
    state.tensors["optimizer/0/other"] = state.tensors.pop("optimizer/0/exp_avg")


#: What a stranger's file can hold under a hash that fits.
ALTERED: dict[str, Callable[[State], object]] = {
    "no epoch": lambda s: s.rest.update(epoch=0, log=[]),
    "more epochs than the recipe": lambda s: s.rest.update(epoch=7),
    "a lacking line": lambda s: s.rest["log"].pop(),
    "a line without numbers": lambda s: s.rest["log"][0].update(loss=None),
    "a line that is none": lambda s: s.rest.update(log=["x"]),
    "a huge moment": lambda s: s.tensors.update({"optimizer/0/exp_avg": torch.zeros(5000)}),
    "a moment of nothing": lambda s: s.tensors.update({"optimizer/999/step": torch.tensor(1.0)}),
    "another moment": _renamed,
    "a weight that is no number": lambda s: s.tensors["model/head.bias"].fill_(np.nan),
    "a lacking weight": lambda s: s.tensors.pop("model/head.bias"),
    "a weight of another shape": lambda s: s.tensors.update({"model/head.bias": torch.zeros(9)}),
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_an_altered_state(change: Callable[[State], object], stopped: bytes, tmp_path: Path) -> None:
    found = State(*state._parts(stopped))
    change(found)
    content = safetensors.torch.save(found.tensors, {"training": json.dumps(found.rest)})
    (tmp_path / "state").write_bytes(hashlib.sha256(content).digest() + content)
    with pytest.raises(InputError, match="damaged"):
        train(task(), ALONE, tmp_path / "state", lambda line: None)


def test_a_state_that_claims_memory(tmp_path: Path) -> None:
    with (tmp_path / "state").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="damaged"):
        train(task(), ALONE, tmp_path / "state", lambda line: None)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("stopped") / "state"
    with pytest.raises(Stop):
        train(task(), ALONE, path, stop)
    return path.read_bytes()


def test_images_that_do_not_fit(tmp_path: Path) -> None:
    given = task()
    for images in (examples(12, 4), ArrayExamples(np.zeros((3, 1, 9, 9), np.uint8), np.zeros(3, np.int64), ("a",))):
        with pytest.raises(InputError, match="the architecture"):
            train(replace(given, images=images), ALONE, tmp_path / "state", lambda line: None)


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    wild = replace(RECIPE, learning_rate=1e30, warmup_epochs=0, clip_norm=0.0)
    with pytest.raises(CheckFailed, match="the loss is"):
        train(task(wild), ALONE, tmp_path / "state", lambda line: None)


def test_weights_that_are_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(trainer: loop._Trainer) -> None:
        next(trainer._model.parameters()).data.fill_(np.nan)

    monkeypatch.setattr(loop._Trainer, "_update", break_down)
    with pytest.raises(CheckFailed, match="weights are not finite"):
        train(task(replace(RECIPE, epochs=1, batch_size=36)), ALONE, tmp_path / "state", lambda line: None)
    assert not (tmp_path / "state").exists()


def test_torch_settings_come_back(tmp_path: Path) -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    train(task(replace(RECIPE, epochs=1)), ALONE, tmp_path / "state", lambda line: None)
    assert before == (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads())


def test_parts_that_processes_cannot_share() -> None:
    with pytest.raises(UsageError, match="equal parts"):
        Recipe(batch_size=10, micro_batches=3)
    with pytest.raises(UsageError, match="cannot share"):
        Group(0, 2, torch.device("cpu")).parts(3)
    assert [list(Group(r, 2, torch.device("cpu")).parts(4)) for r in range(2)] == [[0, 1], [2, 3]]


def test_learning_rates() -> None:
    recipe = Recipe(epochs=3, warmup_epochs=1, learning_rate=1.0, min_learning_rate=0.2, warmup_learning_rate=0.5)
    rates = [learning_rate(recipe, step, 4) for step in range(12)]
    assert rates[:4] == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.6)  # half way down the cosine
    assert rates[8:] == sorted(rates[8:], reverse=True)
    assert rates[-1] > 0.2


_WORKER = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_loop import task, RECIPE
from qkf_deploy.training.loop import train
from qkf_deploy.training.processes import joined
with joined("cpu") as group:
    model, log = train(task(), group, Path(sys.argv[2]) / "state", lambda line: None)
    assert group.size == 2
    if group.writes:
        norms = {k: v.tolist() for k, v in model.state_dict().items() if "running" in k}
        (Path(sys.argv[2]) / "log.json").write_text(json.dumps([log, norms]))
"""


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    model, alone = train(task(), ALONE, tmp_path / "alone", lambda line: None)
    (tmp_path / "worker.py").write_text(_WORKER)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "worker.py")]
    subprocess.run([sys.executable, *command, str(Path(__file__).parent), str(tmp_path)], check=True, timeout=300)
    log, norms = json.loads((tmp_path / "log.json").read_text())
    assert [line["loss"] for line in log] == pytest.approx([line["loss"] for line in alone], rel=1e-5)
    found = {k: v for k, v in model.state_dict().items() if "running" in k}
    assert list(found) == list(norms)
    for name, value in found.items():
        assert value.tolist() == pytest.approx(norms[name], rel=1e-3, abs=1e-4), name


def test_event_frames_are_trained_on_as_they_are_deployed(tmp_path: Path) -> None:
    """Counts go into the model unchanged, bytes too; the deployed network tells the classes that training told."""
    config = build_config(
        "qkformer-2-256-cifar10dvs", image_size=16, embed_dim=32, heads=2, num_classes=3, time_steps=2
    )
    labels = np.arange(18) % 3
    counts = np.random.default_rng(0).integers(0, 3 + 4 * labels[:, None, None, None, None], (18, 2, 2, 16, 16))
    given = ArrayExamples(counts.astype(np.uint8), labels, ())
    recipe = Recipe(epochs=2, batch_size=6, shift=1, flip=0.5, learning_rate=1e-2, threads=1)
    model, log = train(Task(config, recipe, given, given, None), ALONE, tmp_path / "state", lambda line: None)
    write_checkpoint(tmp_path / "w.safetensors", model, recipe, None, (), None)
    run = qd.simulate(qd.trace(tmp_path / "w.safetensors"), given.array)
    assert 100 * run.accuracy(labels) == pytest.approx(log[-1]["accuracy"])
    with pytest.raises(InputError, match="training takes bytes"):
        train(replace(task(), images=replace(examples(), array=np.zeros((6, 1, 8, 8)))), ALONE, tmp_path / "b", stop)
