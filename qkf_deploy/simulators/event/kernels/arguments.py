"""What the kernels of synapses are given: sizes, events, neurons, outputs, and a block of rows with its scratch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qkf_deploy.simulators.event.kernels.inner import inner


class Shape(NamedTuple):
    """Sizes of a layer: input lines, columns and channels; K_w; T; tile width / 32; parts of a line of a window.

    If ``by_strip``, all rows of a block take one line, or part of one, before any takes the next: its weights stay
    cached. The events of a line are parted evenly.
    """

    height: int
    width: int
    channels: int
    kernel: int
    steps: int
    units: int
    parts: int
    by_strip: bool


class Events(NamedTuple):
    """The input's event list (:class:`qkf_deploy.simulators.event.kernels.lists.EventList`), and how it is summed.

    ``by_line`` is its order. Inputs that sum to s have drives up to ``magnitude * s + offset``; for s up to ``limit``,
    at least two of the largest, these fit 16 bits. Sums of longer rows are looked at on their way, each time before
    inputs that sum to at most ``stride``. ``narrow``: drives, and neurons if fused, are tried in 16 bits.
    """

    ptr: np.ndarray
    sums: np.ndarray
    idx: np.ndarray
    val: np.ndarray
    largest: int
    by_line: bool
    magnitude: int
    offset: int
    limit: int
    stride: int
    narrow: bool


class Neurons(NamedTuple):
    """Bias and neuron of a layer.

    ``bias`` s32 ``(cases, columns)``; ``case`` int64 ``(pixels,)``, or ``(1,)`` if there is one case; ``theta`` s32
    ``(columns,)``; ``form`` as in :mod:`~qkf_deploy.simulators.event.kernels.fire`; ``bias16`` and ``theta16`` the
    same in 16 bits, cut to the nearest value, for where they fit. Columns are padded channels.
    """

    bias: np.ndarray
    case: np.ndarray
    theta: np.ndarray
    form: np.ndarray
    bias16: np.ndarray
    theta16: np.ndarray


class Outputs(NamedTuple):
    """What a layer writes, from output pixel ``origin`` on; only one of the first three arrays has rows.

    ``spikes`` u32 ``(rows, columns / 32)``; ``drive16`` s16 and ``drive`` s32 ``(rows, columns)``; ``fired`` int64
    ``(T,)``, added to: spikes at each step.
    """

    origin: int
    spikes: np.ndarray
    drive16: np.ndarray
    drive: np.ndarray
    fired: np.ndarray


class Block(NamedTuple):
    """Output pixels ``first .. end``, their segments s32 ``(n, 4)`` and scratch for one tile.

    A strip is a line of the window, or a part of one; strip ``i = row * strips + strip`` of the block has the segments
    ``starts[i] .. starts[i + 1]``, if ``fits`` just segment i. ``fits``: all sums, drives and charges are known to fit
    16 bits. ``cold``: the second cache is not expected to hold the weights. ``sums`` s32 ``(rows,)``: sum of the values
    of each row; ``m16`` s16 and ``m`` s32 ``(32 * units,)``; ``x16`` s16 and ``x`` s32, the same for one row, or for
    all if by strip; ``moved`` u8 ``(rows,)``: ``x`` is in use.
    """

    first: int
    end: int
    strips: int
    fits: bool
    cold: bool
    segments: np.ndarray
    starts: np.ndarray
    sums: np.ndarray
    m16: np.ndarray
    m: np.ndarray
    x16: np.ndarray
    x: np.ndarray
    moved: np.ndarray


@inner()
def bias_at(neurons: Neurons, p: int, c0: int) -> int:
    """Where the bias of a pixel and tile begins in the flat bias."""
    return (neurons.case[p] if neurons.case.shape[0] > 1 else 0) * neurons.bias.shape[1] + c0
