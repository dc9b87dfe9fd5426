"""How values lie in memory: channels last, as convolutions want them, and worked on in parts that a cache holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

#: Elements of a value that are worked on at a time: arrays of so many stay in the caches (measured: 2^16 to 2^18).
_BLOCK = {"cpu": 2**18, "cuda": 2**28}
#: Columns of which torch reduces many at a time.
_SIDE_BY_SIDE = 64


def order(x: Tensor, lead: int = 2) -> tuple[int, ...]:
    """Axes behind the first ``lead`` as they lie in memory, the outermost first, counted from there."""
    strides = x.stride()[lead:]
    return tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def rows(x: Tensor, lead: int = 2) -> Tensor:
    """``(*lead axes, elements)``, in the order of memory: nothing is copied, whatever the layout."""
    if x.ndim == lead:  # a single number per step
        return x.unsqueeze(lead)
    return x.permute(*range(lead), *(axis + lead for axis in order(x, lead))).flatten(lead)


def empty(head: Sequence[int], shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialized ``(*head, *shape)`` whose first axis behind ``head`` is the last in memory."""
    memory = (*shape[1:], *shape[:1])
    made = torch.empty((*head, *memory), dtype=dtype or like.dtype, device=like.device)
    return made.movedim(-1, len(head)) if len(shape) > 1 else made


def parameter(x: np.ndarray, shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """A parameter that goes with a value of that per-step shape, laid out as the value: one that differs from place to
    place in full, so that loops over it are as long; a number with an axis, so that a GPU divides by it and does not
    multiply by its rounded reciprocal."""
    if x.size == 1:
        return torch.from_numpy(np.array(x).reshape(1)).to(device).to(dtype)
    full = torch.from_numpy(np.array(np.broadcast_to(x, shape))).to(device).to(dtype)
    return empty((), shape, full).copy_(full)


def blocks(images: int, shape: Sequence[int], device: torch.device) -> Iterator[slice]:
    """Parts of a batch of values of that per-step shape."""
    step = max(1, _BLOCK[device.type] // max(1, math.prod(shape)))
    for start in range(0, images, step):
        yield slice(start, min(start + step, images))


def per_channel(x: Tensor) -> Tensor:
    """Smallest element of every image and channel, ``(B, C)`` of ``(T, B, C, *spatial)``."""
    channels = x.shape[2]
    each = rows(x)
    together = channels * max(1, _SIDE_BY_SIDE // channels)
    if order(x)[-1:] != (0,) or each.shape[2] % together:
        return x.flatten(3).amin(3).amin(0)
    return each.unflatten(2, (-1, together)).amin(2).amin(0).unflatten(1, (-1, channels)).amin(1)
