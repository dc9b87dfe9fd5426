"""Train a small QKFormer on scikit-learn's handwritten digits and write ``qkformer_digits.safetensors``.

    python examples/digits/train.py

Takes a few minutes on two CPU cores. The same command with the same library versions and thread count repeats the same
numbers. Progress goes to stderr, one JSON line with the result to stdout.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from qkf_deploy.datasets import digits
from qkf_deploy.models import QKFormer, build_config

DEFAULT_OUTPUT = Path(__file__).parents[2] / "qkf_deploy" / "models" / "qkformer_digits.safetensors"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights."""

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.05
    max_shift: int = 1
    seed: int = 0
    threads: int = 2


def main() -> None:
    """Parse the command line, train, evaluate, write the checkpoint."""
    recipe, output = parse_arguments()
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    data = digits.load_digits()
    model = QKFormer(build_config("qkformer-digits"))
    started = time.perf_counter()
    train(model, data, recipe)
    seconds = time.perf_counter() - started
    accuracy = evaluate(model, data.test_images, data.test_labels, batch_size=60)
    single = evaluate(model, data.test_images, data.test_labels, batch_size=1)
    write_checkpoint(output, model, recipe, single)
    result = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "held_out_accuracy": accuracy,
        "held_out_accuracy_batch_1": single,
        "training_seconds": round(seconds, 1),
        "bytes": output.stat().st_size,
    }
    print(json.dumps(result))


def parse_arguments() -> tuple[Recipe, Path]:
    """The recipe and the output file from the command line."""
    parser = argparse.ArgumentParser(description="Train a small QKFormer on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=Recipe.threads)
    parser.add_argument("-o", "--output", type=Path, default=DEFAULT_OUTPUT)
    arguments = parser.parse_args()
    return Recipe(epochs=arguments.epochs, seed=arguments.seed, threads=arguments.threads), arguments.output


def train(model: QKFormer, data: digits.Digits, recipe: Recipe) -> None:
    """AdamW with linear warm-up and cosine decay; random shifts as the only augmentation."""
    rng = np.random.default_rng(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    per_epoch = math.ceil(len(data.train_labels) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(recipe, per_epoch))
    loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        losses = []
        order = rng.permutation(len(data.train_labels))
        for batch in np.array_split(order, per_epoch):
            images = as_input(random_shift(data.train_images[batch], recipe.max_shift, rng))
            functional.reset_net(model)
            loss = loss_function(model(images), torch.from_numpy(data.train_labels[batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch:2d}/{recipe.epochs}  loss {np.mean(losses):.4f}", file=sys.stderr, flush=True)


def learning_rate_factor(recipe: Recipe, per_epoch: int) -> Callable[[int], float]:
    """Step number to factor on the learning rate."""
    warmup, total = recipe.warmup_epochs * per_epoch, recipe.epochs * per_epoch

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor


def random_shift(images: NDArray[np.uint8], limit: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Move each image by up to ``limit`` source pixels in each direction; background fills the gap."""
    size, reach = images.shape[-1], limit * digits.REPEAT
    padded = np.pad(images, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    moves = rng.integers(0, 2 * limit + 1, size=(len(images), 2)) * digits.REPEAT
    return np.stack([p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, moves, strict=True)])


def as_input(images: NDArray[np.uint8]) -> Tensor:
    """Bytes to the normalized float32 input of the model."""
    return torch.from_numpy(digits.normalize(images)).float()


def evaluate(model: QKFormer, images: NDArray[np.uint8], labels: NDArray[np.int64], batch_size: int) -> float:
    """Accuracy in percent; membranes start at zero in every batch."""
    model.eval()
    correct = 0
    with torch.no_grad():
        for start in range(0, len(labels), batch_size):
            functional.reset_net(model)
            logits = model(as_input(images[start : start + batch_size]))
            correct += int((logits.argmax(1).numpy() == labels[start : start + batch_size]).sum())
    return round(100 * correct / len(labels), 4)


def write_checkpoint(path: Path, model: QKFormer, recipe: Recipe, accuracy: float) -> None:
    """Write float32 weights and, as metadata, all that is needed to use them."""
    metadata = {
        "qkf_config": model.config.to_json(),
        "mean": json.dumps(digits.MEAN),
        "std": json.dumps(digits.STD),
        "class_names": json.dumps(digits.CLASS_NAMES),
        "training_command": (
            f"python examples/digits/train.py --epochs {recipe.epochs} --seed {recipe.seed} --threads {recipe.threads}"
        ),
        "held_out_accuracy_percent": str(accuracy),
        "libraries": f"torch {torch.__version__}, numpy {np.__version__}",
    }
    temporary = path.with_name(path.name + ".tmp")
    safetensors.torch.save_file(model.state_dict(), temporary, metadata=metadata)
    temporary.replace(path)


if __name__ == "__main__":
    main()
