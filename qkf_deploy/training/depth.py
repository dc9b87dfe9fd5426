"""Stochastic depth (arXiv 1603.09382): branches of residual blocks left out at random while training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qkf_deploy.models.layers import Block


@contextmanager
def stochastic_depth(model: nn.Module, rate: float) -> Iterator[None]:
    """Within the block, attention and MLP of block i of n are left out with probability ``rate * i / (n - 1)``.

    What is kept is divided by the probability of keeping it, so that the mean stays. Nothing happens in evaluation mode
    or at a rate of 0.
    """
    blocks = [m for m in model.modules() if isinstance(m, Block)]
    handles = []
    for index, block in enumerate(blocks):
        chance = rate * index / max(1, len(blocks) - 1)
        if chance:
            for branch in (block.get_submodule(block.attention_name), block.mlp):
                handles.append(branch.register_forward_hook(_dropper(chance)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _dropper(chance: float) -> Any:
    def drop(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        kept = torch.rand(1, output.shape[1], *(1,) * (output.ndim - 2), device=output.device) >= chance
        return output * kept / (1 - chance)

    return drop
