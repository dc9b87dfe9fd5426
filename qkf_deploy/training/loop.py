"""The training loop: epochs, steps, parts of a batch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from qkf_deploy.errors import CheckFailed, InputError
from qkf_deploy.ir.graph import Preprocessing
from qkf_deploy.models.config import QKFormerConfig
from qkf_deploy.models.qkformer import QKFormer
from qkf_deploy.training.augment import Augmentation, mix
from qkf_deploy.training.depth import stochastic_depth
from qkf_deploy.training.examples import Examples
from qkf_deploy.training.processes import Group, RunningStatistics
from qkf_deploy.training.recipe import Recipe
from qkf_deploy.training.schedule import learning_rate
from qkf_deploy.training.state import identity, read_state, write_state

#: Called after every epoch with its line of the log.
Report = Callable[[dict[str, Any]], None]


class Architecture(Protocol):
    """What a training must know of a network; :class:`QKFormerConfig` says it.

    Attributes:
        layout: ``dvs`` for event frames.
        image_size: height and width in pixels.
        num_classes: outputs.
    """

    @property
    def layout(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one batch of size 1."""
        ...

    def to_json(self) -> str:
        """All that tells it from others."""
        ...


@dataclass(frozen=True)
class Task:
    """What is trained on what.

    Attributes:
        config: architecture.
        recipe: how.
        images: to train on.
        held_out: to measure accuracy on after each epoch, or nothing.
        normalization: mean and standard deviation per channel of pixels in 0..1; ``None`` for event frames, whose
            counts the network takes as they are.
        build: makes the network as it is before training; ``None``: the QKFormer of the architecture, with random
            weights.
    """

    config: Architecture
    recipe: Recipe
    images: Examples
    held_out: Examples | None
    normalization: Preprocessing | None
    build: Callable[[], nn.Module] | None = None

    def network(self) -> nn.Module:
        """As it is before training."""
        if self.build is not None:
            return self.build()
        if not isinstance(self.config, QKFormerConfig):
            raise AssertionError(self.config)
        return QKFormer(self.config.replace(merge_batch_into_time=self.recipe.carry == "official"))


def train(task: Task, group: Group, state: Path, report: Report) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train, or go on with a training that was stopped.

    Args:
        task: architecture, recipe, images.
        group: this process among those that share the work.
        state: file that keeps the training after each epoch; read first if it is there.
        report: called by the writing process after each epoch.

    Returns:
        The model in evaluation mode, and the log: a dictionary per epoch with ``epoch``, ``loss``, ``learning_rate``
        and, with held-out images, ``accuracy`` in percent.

    Raises:
        InputError: images that do not fit the architecture, or a state of another training.
        CheckFailed: the loss is not finite any more.
        MissingComponent: kornia is not installed, and the recipe changes images.
    """
    recipe = task.recipe
    _check(task)
    # What is not installed for it is said before a network is made, which can take long.
    augment = Augmentation(recipe, task.config.image_size, task.config.layout == "dvs")
    with _deterministic(recipe, group):
        torch.manual_seed(recipe.seed)
        model = task.network().to(group.device)
        trainer = _Trainer(task, group, model, augment)
        about = identity(task.config.to_json(), recipe, task.images.digest)
        done, log = 0, []
        if state.exists():
            done, log = read_state(state, about, model, trainer.optimizer, trainer.scaler)
        for epoch in range(done, recipe.epochs):
            line: dict[str, Any] = {"epoch": epoch + 1, **trainer.epoch(epoch)}
            if task.held_out is not None:
                line["accuracy"] = accuracy(model, task.held_out, task.normalization, trainer.part_size)
            log.append(line)
            if group.writes:
                write_state(state, about, epoch + 1, model, trainer.optimizer, trainer.scaler, log)
                report(line)
    return model.eval(), log


class _Trainer:
    """Model, optimizer and everything that lives as long as they do."""

    def __init__(self, task: Task, group: Group, model: nn.Module, augment: Augmentation) -> None:
        self._task, self._group, self._model, self._augment = task, group, model, augment
        self._shared = DistributedDataParallel(model, broadcast_buffers=False) if group.size > 1 else None
        recipe = task.recipe
        self.part_size = recipe.batch_size // recipe.micro_batches
        self._parts = group.parts(recipe.micro_batches)
        self.steps = max(1, len(task.images.labels) // recipe.batch_size)
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
        )
        half = recipe.precision == "float16" and group.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(group.device.type, enabled=half)
        self._statistics = RunningStatistics(model, group, recipe.micro_batches)
        self._loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the images: mean loss and last learning rate."""
        recipe = self._task.recipe
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(self._task.images.labels))
        losses, rate = [], 0.0
        self._model.train()
        with stochastic_depth(self._model, recipe.drop_path):
            for step in range(self.steps):
                rate = learning_rate(recipe, epoch * self.steps + step, self.steps)
                batch = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
                losses.append(self._step(epoch, step, batch, rate))
        if not all(bool(torch.isfinite(p).all()) for p in self._model.parameters()):
            raise CheckFailed(
                "weights are not finite any more", where=f"epoch {epoch + 1}", hint="try a lower --learning-rate"
            )
        return {"loss": float(np.mean(losses)), "learning_rate": rate}

    def _step(self, epoch: int, step: int, batch: np.ndarray, rate: float) -> float:
        recipe = self._task.recipe
        for settings in self.optimizer.param_groups:
            settings["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self._statistics.start()
        total = torch.zeros((), device=self._group.device)
        for part in self._parts:
            chosen = np.array_split(batch, recipe.micro_batches)[part]
            torch.manual_seed(_seed(recipe.seed, epoch, step, part))
            with self._apart(last=part == self._parts[-1]):
                loss = self._part_loss(chosen, epoch) / len(self._parts)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        self._statistics.finish()
        self._update()
        mean = float(self._group.mean(total))
        if not math.isfinite(mean):
            raise CheckFailed(
                f"the loss is {mean}", where=f"epoch {epoch + 1}, step {step + 1}", hint="try a lower --learning-rate"
            )
        return mean

    def _part_loss(self, chosen: np.ndarray, epoch: int) -> Tensor:
        task, recipe, device = self._task, self._task.recipe, self._group.device
        given = torch.from_numpy(task.images.pixels(chosen)).to(device)
        labels = torch.from_numpy(task.images.labels[chosen]).to(device)
        images = prepared(given, task.normalization, self._augment)
        targets = nn.functional.one_hot(labels, task.config.num_classes).to(images.dtype)
        if recipe.mixup and (not recipe.mixup_epochs or epoch < recipe.mixup_epochs):
            images, targets = mix(images, targets, recipe.mixup)
        functional.reset_net(self._model)
        with _autocast(recipe, device):
            logits = (self._shared or self._model)(images)
        return self._loss(logits.float(), targets)

    def _apart(self, last: bool) -> Any:
        """Gradients are averaged over the processes after the last part of a step only."""
        return contextlib.nullcontext() if last or self._shared is None else self._shared.no_sync()

    def _update(self) -> None:
        if self._task.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._model.parameters(), self._task.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def accuracy(model: nn.Module, examples: Examples, normalization: Preprocessing | None, batch_size: int) -> float:
    """Share of right predictions in percent; membranes start at rest in every batch."""
    device = next(model.parameters()).device
    model.eval()
    right = 0
    with torch.no_grad():
        for indices in np.array_split(np.arange(len(examples.labels)), math.ceil(len(examples.labels) / batch_size)):
            functional.reset_net(model)
            images = prepared(torch.from_numpy(examples.pixels(indices)).to(device), normalization)
            best = model(images).argmax(1).cpu().numpy()
            right += int((best == examples.labels[indices]).sum())
    return 100 * right / len(examples.labels)


def prepared(
    given: Tensor, normalization: Preprocessing | None, change: Callable[[Tensor], Tensor] = lambda images: images
) -> Tensor:
    """What the model takes, as the deployed network makes it of the same samples.

    Args:
        given: bytes ``(B, C, H, W)``, or counts of events ``(B, T, C, H, W)``.
        normalization: of bytes as fractions of 255; ``None`` for counts.
        change: of fractions or counts, before normalization.
    """
    if normalization is None:
        return change(given.float())
    mean = torch.tensor(normalization.mean, device=given.device).reshape(-1, 1, 1)
    std = torch.tensor(normalization.std, device=given.device).reshape(-1, 1, 1)
    return (change(given.float() / 255) - mean) / std


def _check(task: Task) -> None:
    images, config = task.images, task.config
    first = images.pixels(np.arange(1))
    shape = first.shape
    if shape[-3:] != config.input_shape[-3:] or len(shape) != len(config.input_shape):
        raise InputError(f"images of {shape[1:]}, the architecture takes {config.input_shape[1:]}")
    if task.normalization is not None and first.dtype != np.uint8:
        raise InputError(f"images of {first.dtype}, training takes bytes", hint="give pixels that are not normalized")
    for examples in (images, task.held_out):
        if examples is not None and not 0 <= examples.labels.min() <= examples.labels.max() < config.num_classes:
            raise InputError(
                f"labels from {examples.labels.min()} to {examples.labels.max()}, the architecture has "
                f"{config.num_classes} classes",
                hint="choose --classes as many as the images have",
            )


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _autocast(recipe: Recipe, device: torch.device) -> Any:
    if recipe.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, getattr(torch, recipe.precision))


@contextlib.contextmanager
def _deterministic(recipe: Recipe, group: Group) -> Iterator[None]:
    """Torch's global settings for the time of a training."""
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    if group.device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(recipe.threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])
