"""One training on several processes, started by torchrun: gradients and batch statistics as one process would have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from qkf_deploy.errors import UsageError

_MOMENTUM = 0.1


@dataclass(frozen=True)
class Group:
    """This process among those that train together.

    Attributes:
        rank: number of this process, 0 writes files.
        size: number of processes.
        device: this process computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def writes(self) -> bool:
        """True for the one process that writes files and reports."""
        return self.rank == 0

    def parts(self, count: int) -> range:
        """Which of ``count`` parts of a batch are this process's.

        Raises:
            UsageError: the processes cannot share them evenly.
        """
        if count % self.size:
            raise UsageError(
                f"{self.size} processes cannot share {count} parts of a batch",
                hint=f"choose --micro-batches as a multiple of {self.size}",
            )
        own = count // self.size
        return range(self.rank * own, (self.rank + 1) * own)

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the processes."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value / self.size


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """The group that torchrun's environment describes; a group of one without it.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``; with several processes ``cuda`` gives each one its own.

    Raises:
        UsageError: a device that torch does not have.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if device == "cuda" and size > 1:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"no device {device!r}: {str(error).splitlines()[0]}", hint="use --device cpu") from error
    if size == 1:
        yield Group(0, 1, chosen)
        return
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Group(rank, size, chosen)
    finally:
        distributed.destroy_process_group()


class RunningStatistics:
    """Running means and variances of all batch norms, as if one process had seen all parts of a batch in order.

    A part updates r to (1 - m) r + m b. After k parts of its own, process w of W holds (1 - m)^k r + S_w; what one
    process would hold is (1 - m)^(W k) r + sum over w of (1 - m)^(k (W - 1 - w)) S_w.
    """

    def __init__(self, model: nn.Module, group: Group, parts: int) -> None:
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._buffers = [b for n in norms for b in (n.running_mean, n.running_var) if b is not None]
        self._group, self._own = group, parts // group.size
        if any(n.momentum != _MOMENTUM for n in norms):
            raise UsageError(f"batch norms with another momentum than {_MOMENTUM} cannot be trained here")
        self._before: list[Tensor] = []

    def start(self) -> None:
        """Before the parts of a step."""
        if self._group.size > 1:
            self._before = [b.clone() for b in self._buffers]

    def finish(self) -> None:
        """After the parts of a step."""
        if self._group.size == 1:
            return
        keep, group = 1 - _MOMENTUM, self._group
        later = keep ** (self._own * (group.size - 1 - group.rank))
        for buffer, before in zip(self._buffers, self._before, strict=True):
            gained = (buffer - keep**self._own * before) * later
            distributed.all_reduce(gained)
            buffer.copy_(keep ** (self._own * group.size) * before + gained)
