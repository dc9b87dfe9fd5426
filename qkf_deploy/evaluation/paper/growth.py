"""How attention grows with tokens and channels: memory (Table 9), operations (Table 1), measured on float tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
_MIB = 2**20


def token_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Q-K token attention of one head: the sum over channels, a threshold, the gate on K (V is not used)."""
    gate = (q.sum(dim=-2, keepdim=True) >= 1).to(q.dtype)
    return gate * k


def channel_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Q-K channel attention: the same with the sum over tokens."""
    gate = (q.sum(dim=-1, keepdim=True) >= 1).to(q.dtype)
    return gate * k


def self_attention_scores_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """SSA with the N x N scores (Q^T K), as Table 9 and the complexity discussion take it."""
    return v @ (k.transpose(-1, -2) @ q)


def self_attention_context_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """SSA with the d x d context (K V^T) first, as the published code executes it."""
    return (v @ k.transpose(-1, -2)) @ q


ATTENTIONS: dict[str, Attention] = {
    "Q-K token attention": token_attention,
    "Q-K channel attention": channel_attention,
    "SSA, scores first": self_attention_scores_first,
    "SSA, context first": self_attention_context_first,
}


class PeakMemory(TorchDispatchMode):
    """Largest number of bytes that tensors created inside were holding at once, on any device.

    Args:
        given: tensors that exist already; views of them hold nothing new.
    """

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._given = [tensor.untyped_storage() for tensor in given]
        self._known = {storage._cdata for storage in self._given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self._add(out.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@dataclass(frozen=True)
class Growth:
    """One attention at one size.

    Attributes:
        name: key of :data:`ATTENTIONS`.
        tokens, channels: N and D.
        peak_mib: most that intermediates and result hold at once, MiB of float32; Q, K and V not counted.
        macs: multiply-accumulates of matrix products.
        additions: additions of the Q sums.
        ands: elements that meet the gate.
    """

    name: str
    tokens: int
    channels: int
    peak_mib: float
    macs: int
    additions: int
    ands: int


def measure(name: str, tokens: int, channels: int) -> Growth:
    """Run one attention on shapes only (one head, T = B = 1) and record its memory and operations."""
    q, k, v = (torch.empty((channels, tokens), device="meta") for _ in range(3))
    with torch.no_grad(), PeakMemory(q, k, v) as memory:
        result = ATTENTIONS[name](q, k, v)
        del result
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ATTENTIONS[name](q, k, v)
    gated = name.startswith("Q-K")
    elements = tokens * channels
    return Growth(
        name, tokens, channels, memory.peak / _MIB, counter.get_total_flops() // 2, elements * gated, elements * gated
    )


def exponent(small: float, large: float, factor: float) -> float:
    """Power with which a quantity grew when its variable grew by ``factor``."""
    return float(torch.log(torch.tensor(large / small)) / torch.log(torch.tensor(factor)))
