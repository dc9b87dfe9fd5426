"""Which taps of a sliding window exist: borders, strides, dilation. Shared by convolution and pooling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qkf_deploy.errors import GraphError

#: Longer axes are refused: a damaged file must not make us allocate an array per position.
_MAX_LENGTH = 2**20


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a sliding window.

    Attributes:
        size: input length.
        kernel, stride, padding, dilation: as in torch; padding on both sides.
    """

    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def __post_init__(self) -> None:
        if min(self.kernel, self.stride, self.dilation) < 1 or self.padding < 0:
            raise GraphError(
                f"a window needs kernel, stride and dilation of at least 1 and padding of at least 0, got {self}"
            )

    @cached_property
    def out(self) -> int:
        """Output length. Raises GraphError if no window fits, or for a length no device holds."""
        length = (self.size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1
        if length < 1:
            raise GraphError(f"a window of {self.kernel} does not fit an axis of {self.size}")
        if length > _MAX_LENGTH:
            raise GraphError(f"a window that gives {length} elements along one axis")
        return length

    def positions(self) -> np.ndarray:
        """Input index read by each tap, int64 ``(out, kernel)``; outside ``0..size-1`` where the tap is padding."""
        starts = np.arange(self.out) * self.stride - self.padding
        return starts[:, None] + np.arange(self.kernel) * self.dilation

    def exists(self) -> np.ndarray:
        """True where a tap reads a real element, bool ``(out, kernel)``."""
        positions = self.positions()
        return (positions >= 0) & (positions < self.size)

    def readers(self) -> np.ndarray:
        """How often each input index is read by each tap (0 or 1), int64 ``(size, kernel)``."""
        out = np.zeros((self.size, self.kernel), np.int64)
        positions, exists = self.positions(), self.exists()
        for tap in range(self.kernel):
            out[positions[exists[:, tap], tap], tap] += 1
        return out

    def reads(self) -> np.ndarray:
        """How often each output reads each input, int64 ``(out, size)``."""
        out = np.zeros((self.out, self.size), np.int64)
        exists = self.exists()
        np.add.at(out, (np.nonzero(exists)[0], self.positions()[exists]), 1)
        return out

    def cases(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct sets of existing taps.

        Returns:
            ``(masks, case_of)``: bool ``(cases, kernel)`` and, for each output index, its case.
        """
        masks, case_of = np.unique(self.exists(), axis=0, return_inverse=True)
        return masks, case_of.reshape(-1)
