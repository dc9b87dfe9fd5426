"""A network on variants of a chip: other dataflows, more or fewer cores, larger or smaller buffers."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.activity import Activity
from qkf_deploy.hw_models.architecture.chip import Buffer, Chip, Core
from qkf_deploy.hw_models.dataflow.network import Goal
from qkf_deploy.hw_models.hardware import Hardware, hardware
from qkf_deploy.ir import Graph

#: What can be varied.
AXES = ("dataflow", "cores", "buffers")
_FACTORS = (Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4))


@dataclass(frozen=True)
class Variant:
    """One variant.

    Attributes:
        dataflow: the only one allowed, or ``best`` for each layer.
        cores, buffers: factors on the number of cores and on the size of their buffers; prices stay as they are.
        found: what the network needs there; ``None`` where it does not fit.
        problem: why it does not.
    """

    dataflow: str
    cores: Fraction
    buffers: Fraction
    found: Hardware | None
    problem: str = ""


def explore(
    graph: Graph, activity: Activity, chip: Chip, axes: Collection[str], *, goal: Goal = "energy"
) -> tuple[Variant, ...]:
    """Every combination of what is varied, the chip as it is among them.

    Raises:
        UsageError: an axis that is unknown.
    """
    for axis in axes:
        if axis not in AXES:
            raise UsageError(f"nothing to explore is called {axis!r}", hint=f"one of: {', '.join(AXES)}")
    flows = dict.fromkeys(flow for core in chip.cores for flow in core.dataflows)
    choices = itertools.product(
        ("best", *flows) if "dataflow" in axes else ("best",),
        _FACTORS if "cores" in axes else (Fraction(1),),
        _FACTORS if "buffers" in axes else (Fraction(1),),
    )
    return tuple(_variants(graph, activity, chip, choices, goal))


def _variants(
    graph: Graph, activity: Activity, chip: Chip, choices: Iterator[tuple[str, Fraction, Fraction]], goal: Goal
) -> Iterator[Variant]:
    for dataflow, cores, buffers in choices:
        other = replace(chip, cores=tuple(_core(core, cores, buffers) for core in chip.cores))
        only = () if dataflow == "best" else (dataflow,)
        try:
            yield Variant(dataflow, cores, buffers, hardware(graph, activity, other, goal=goal, only=only))
        except UsageError as error:
            yield Variant(dataflow, cores, buffers, None, error.message)


def _core(core: Core, cores: Fraction, buffers: Fraction) -> Core:
    return replace(
        core,
        count=max(1, int(core.count * cores)),
        buffers=tuple(_buffer(buffer, buffers) for buffer in core.buffers),
    )


def _buffer(buffer: Buffer, factor: Fraction) -> Buffer:
    return buffer if buffer.bytes is None else replace(buffer, bytes=max(1, int(buffer.bytes * factor)))
