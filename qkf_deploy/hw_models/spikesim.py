"""SpikeSim with events: crossbars that rest where no spike arrives, as SpikingJelly 2.0 defines it.

Counts alone do not say which patches are silent, so this reads recorded values. The dense model, which needs none, is
the price profiles ``spikesim-rram`` and ``spikesim-sram``, whose prices these are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import Conv
from qkf_deploy.ops.geometry import Axis

#: Rows and columns of a crossbar; a price per eight rows.
_CROSSBAR, _ROWS = 64, 8
_NEURON_PJ = Fraction("5.096")
#: H-tree, fetch, tile buffer, subtraction, temporary buffer, converters with multiplexers, per patch and tile.
_PATCH_PJ = Fraction("696.3655872")
_CELL_PJ = {"rram": Fraction("1.76423"), "sram": Fraction("671.089")}


@dataclass(frozen=True)
class CrossbarEvents:
    """What one convolution does, all images and steps.

    Attributes:
        layer: node name.
        patches: windows x input tiles with a spike.
        rows: spikes in windows (rows of a crossbar that are driven), per input tile.
        sites: output positions x output tiles that see a spike.
        input_tiles: channels of each input tile.
        output_tiles: number of output tiles.
    """

    layer: str
    patches: int
    rows: tuple[int, ...]
    sites: int
    input_tiles: tuple[int, ...]
    output_tiles: int

    def energy_pj(self, device: str = "rram") -> Fraction:
        """Energy of all images.

        Args:
            device: ``rram`` or ``sram`` cells.

        Raises:
            UsageError: another device.
        """
        if device not in _CELL_PJ:
            raise UsageError(f"device: {device!r}", hint=f"one of: {', '.join(_CELL_PJ)}")
        row = _CELL_PJ[device] / _ROWS
        driven = sum(
            count * row * Fraction(_CROSSBAR, channels)
            for count, channels in zip(self.rows, self.input_tiles, strict=True)
        )
        patches = self.output_tiles * self.patches * _PATCH_PJ
        return patches + self.output_tiles * driven + len(self.input_tiles) * self.sites * _NEURON_PJ


def crossbar_events(graph: Graph, values: Mapping[str, np.ndarray]) -> tuple[CrossbarEvents, ...]:
    """Every two-dimensional convolution without groups.

    Args:
        graph: the network.
        values: output of every node, ``(T or 1, B, *shape)``: a run with ``record="all"``, and the encoded input under
            the name of the input node.

    Raises:
        UsageError: the value that a convolution reads was not recorded.
    """
    convs = [(n, n.op) for n in graph if isinstance(n.op, Conv) and len(n.op.stride) == 2 and n.op.groups == 1]
    return tuple(_events(graph, node, op, values) for node, op in convs)


def _events(graph: Graph, node: Node, op: Conv, values: Mapping[str, np.ndarray]) -> CrossbarEvents:
    operand, weight = node.inputs[0], node.params["weight"]
    if operand.node not in values:
        raise UsageError("this value was not recorded", where=operand.node, hint='simulate(..., record="all")')
    x = values[operand.node] if operand.view is None else operand.view.apply(values[operand.node])
    if len(x) == 1:  # a static image is convolved at every step
        x = np.repeat(x, graph.time_steps, axis=0)
    axes = op.axes(x.shape[2:], weight)
    tiles = tuple(min(_CROSSBAR, x.shape[2] - start) for start in range(0, x.shape[2], _CROSSBAR))
    outputs = math.ceil(weight.shape[0] / _CROSSBAR)
    sites = len(x) * x.shape[1] * math.prod(axis.out for axis in axes)
    if not np.isin(x, (0, 1)).all():
        taps = math.prod(axis.kernel for axis in axes)
        rows = tuple(sites * channels * taps for channels in tiles)
        return CrossbarEvents(node.name, sites * len(tiles), rows, outputs * sites, tiles, outputs)
    held = np.stack([_in_windows(part, axes) for part in np.split(x, np.cumsum(tiles)[:-1], axis=2)])
    rows = tuple(int(n) for n in held.sum(axis=tuple(range(1, held.ndim))))
    active = int(np.count_nonzero(held)), outputs * int(np.count_nonzero(held.any(axis=0)))
    return CrossbarEvents(node.name, active[0], rows, active[1], tiles, outputs)


def _in_windows(part: np.ndarray, axes: tuple[Axis, ...]) -> np.ndarray:
    """Spikes of some channels in the window of every output position, int64 ``(T, B, H, W)``."""
    held = part.astype(np.int64).sum(axis=2)
    for number, axis in enumerate(axes, 2):
        held = np.moveaxis(np.tensordot(held, axis.reads(), axes=([number], [1])), -1, number)
    return held
