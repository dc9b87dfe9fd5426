"""Learning rate over the steps: linear warm-up, then half a cosine."""

from __future__ import annotations

import math

from qkf_deploy.training.recipe import Recipe


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step.

    Args:
        recipe: its rates and lengths.
        step: counted from 0 over the whole training.
        steps_per_epoch: steps of the optimizer in one epoch.
    """
    warmup = recipe.warmup_epochs * steps_per_epoch
    if step < warmup:
        share = (step + 1) / (warmup + 1)
        return recipe.warmup_learning_rate + share * (recipe.learning_rate - recipe.warmup_learning_rate)
    left = max(1.0, recipe.epochs * steps_per_epoch - warmup)
    share = 0.5 * (1 + math.cos(math.pi * (step - warmup) / left))
    return recipe.min_learning_rate + share * (recipe.learning_rate - recipe.min_learning_rate)
