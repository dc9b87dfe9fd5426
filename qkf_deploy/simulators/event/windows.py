"""Sliding windows as index arrays, and the classes of pixels that the ledger needs."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import cache, cached_property

import numpy as np

from qkf_deploy.ops.geometry import Axis


@dataclass(frozen=True)
class Window:
    """A 2-d sliding window; a 1-d one has a first axis of size 1.

    Attributes:
        y, x: the axes.
    """

    y: Axis
    x: Axis

    @staticmethod
    def of(axes: tuple[Axis, ...]) -> Window:
        """The window along one or two axes."""
        return Window(*axes) if len(axes) == 2 else Window(Axis(1, 1), axes[0])

    @property
    def taps(self) -> int:
        """Taps of the window."""
        return self.y.kernel * self.x.kernel

    @cached_property
    def pixels_out(self) -> int:
        """Output positions."""
        return self.y.out * self.x.out

    @cached_property
    def ypos(self) -> np.ndarray:
        """Line read by each tap, int64 ``(H_out, K_h)``."""
        return self.y.positions()

    @cached_property
    def xpos(self) -> np.ndarray:
        """Column read by each tap, int64 ``(W_out, K_w)``."""
        return self.x.positions()

    @cached_property
    def first_columns(self) -> np.ndarray:
        """Column under the first tap, int64 ``(W_out,)``; negative where padded."""
        return np.ascontiguousarray(self.xpos[:, 0])

    @property
    def is_pointwise(self) -> bool:
        """True if output pixel p reads input pixel p and nothing else."""
        return all(a.kernel == 1 and a.stride == 1 and a.padding == 0 for a in (self.y, self.x))

    @cached_property
    def padded(self) -> tuple[int, int]:
        """Height and width of the zero-padded input grid."""
        return self.y.size + 2 * self.y.padding, self.x.size + 2 * self.x.padding

    @cached_property
    def first_pixels(self) -> np.ndarray:
        """Padded pixel under the first tap of each output pixel, int64 ``(pixels_out,)``."""
        lines = np.arange(self.y.out) * self.y.stride
        columns = np.arange(self.x.out) * self.x.stride
        return (lines[:, None] * self.padded[1] + columns).reshape(-1)

    @cached_property
    def tap_pixels(self) -> np.ndarray:
        """Padded pixel of each tap relative to the first one, int64 ``(taps,)``."""
        lines = np.arange(self.y.kernel) * self.y.dilation
        columns = np.arange(self.x.kernel) * self.x.dilation
        return (lines[:, None] * self.padded[1] + columns).reshape(-1)

    @cached_property
    def bias_case(self) -> np.ndarray:
        """Border case of each output pixel (:meth:`Axis.cases`), row-major over (y case, x case), int64."""
        (_, case_y), (masks_x, case_x) = self.y.cases(), self.x.cases()
        return (case_y[:, None] * len(masks_x) + case_x).reshape(-1)

    @cached_property
    def reader_key(self) -> tuple[tuple[int, ...], ...]:
        """Equal for windows with equal :attr:`reader_classes`; plain numbers, which are hashed quickly."""
        return astuple(self.y), astuple(self.x)

    @cached_property
    def reader_classes(self) -> ReaderClasses:
        """Input pixels grouped by the taps that read them."""
        ry, class_y = np.unique(self.y.readers(), axis=0, return_inverse=True)
        rx, class_x = np.unique(self.x.readers(), axis=0, return_inverse=True)
        class_of = (class_y.reshape(-1)[:, None] * len(rx) + class_x.reshape(-1)).reshape(-1)
        return ReaderClasses(class_of, ry, rx)


@dataclass(frozen=True)
class ReaderClasses:
    """Classes of input pixels.

    Attributes:
        class_of: int64 ``(pixels_in,)``, row-major over (y class, x class).
        readers_y, readers_x: int64 ``(classes, kernel)``: how often each tap reads a pixel of the class.
    """

    class_of: np.ndarray
    readers_y: np.ndarray
    readers_x: np.ndarray

    @cached_property
    def count(self) -> int:
        """Number of classes."""
        return len(self.readers_y) * len(self.readers_x)

    def fanout(self, taps: np.ndarray) -> np.ndarray:
        """Outputs reached by an input element of each class, int64 ``(classes, C)``.

        Args:
            taps: int64 ``(C, K_h, K_w)``: output channels connected through each tap.
        """
        per_class = np.einsum("chw,yh,xw->yxc", taps, self.readers_y, self.readers_x)
        return per_class.reshape(self.count, -1).astype(np.int64)


@cache
def bands(window: Window, lines: int) -> tuple[tuple[int, int], ...]:
    """Input lines ``(first, end)`` under every ``lines`` output lines."""
    out = []
    for y in range(0, window.y.out, lines):
        read = window.ypos[y : y + lines]
        read = read[(read >= 0) & (read < window.y.size)]
        out.append((int(read.min()), int(read.max()) + 1) if read.size else (0, 0))
    return tuple(out)


@cache
def pointwise(height: int, width: int) -> Window:
    """The window that reads one pixel."""
    return Window(Axis(height, 1), Axis(width, 1))
