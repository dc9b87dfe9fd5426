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
        spread: distance of neighbouring elements: ``spread - 1`` places between them hold nothing (transposed
            convolutions, Dumoulin & Visin 2016, arXiv 1603.07285, section 4.3).
        tail: places that hold nothing behind the last element, below ``spread``.
    """

    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    spread: int = 1
    tail: int = 0

    def __post_init__(self) -> None:
        if min(self.kernel, self.stride, self.dilation, self.spread) < 1 or self.padding < 0:
            raise GraphError(
                f"a window needs kernel, stride and dilation of at least 1 and padding of at least 0, got {self}"
            )
        if not 0 <= self.tail < self.spread:
            raise GraphError(f"an axis spread by {self.spread} cannot have {self.tail} places behind its last element")
        if self.spread > 1 and self.places > _MAX_LENGTH:
            raise GraphError(f"an axis spread over {self.places} places")

    @property
    def places(self) -> int:
        """Length of the axis with the places that hold nothing."""
        return (self.size - 1) * self.spread + 1 + self.tail

    @cached_property
    def out(self) -> int:
        """Output length. Raises GraphError if no window fits, or for a length no device holds."""
        length = (self.places + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1
        if length < 1:
            raise GraphError(f"a window of {self.kernel} does not fit an axis of {self.size}")
        if length > _MAX_LENGTH:
            raise GraphError(f"a window that gives {length} elements along one axis")
        return length

    def positions(self) -> np.ndarray:
        """Place read by each tap, int64 ``(out, kernel)``; outside ``0..places-1`` where the tap is padding."""
        starts = np.arange(self.out) * self.stride - self.padding
        return starts[:, None] + np.arange(self.kernel) * self.dilation

    def exists(self) -> np.ndarray:
        """True where a tap reads a real element, bool ``(out, kernel)``."""
        positions = self.positions()
        return (positions >= 0) & (positions < self.size * self.spread) & (positions % self.spread == 0)

    def readers(self) -> np.ndarray:
        """How often each input index is read by each tap (0 or 1), int64 ``(size, kernel)``."""
        out = np.zeros((self.size, self.kernel), np.int64)
        positions, exists = self.positions(), self.exists()
        for tap in range(self.kernel):
            out[positions[exists[:, tap], tap] // self.spread, tap] += 1
        return out

    def reads(self) -> np.ndarray:
        """How often each output reads each input, int64 ``(out, size)``."""
        out = np.zeros((self.out, self.size), np.int64)
        exists = self.exists()
        np.add.at(out, (np.nonzero(exists)[0], self.positions()[exists] // self.spread), 1)
        return out

    def cases(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct sets of existing taps.

        Returns:
            ``(masks, case_of)``: bool ``(cases, kernel)`` and, for each output index, its case.
        """
        masks, case_of = np.unique(self.exists(), axis=0, return_inverse=True)
        return masks, case_of.reshape(-1)
