"""A network on variants of a chip: other dataflows, more or fewer cores, larger or smaller buffers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.activity import Activity
from qkf_deploy.hw_models.architecture.chip import Buffer, Chip, Core, Network
from qkf_deploy.hw_models.dataflow.network import Goal
from qkf_deploy.hw_models.hardware import Hardware, hardware
from qkf_deploy.hw_models.timing.use import NetworkUse
from qkf_deploy.ir import Graph

#: Messages of a network on a chip; ``None`` where they cannot be followed.
Follow = Callable[[Chip], NetworkUse | None]
#: What can be varied.
AXES = ("dataflow", "cores", "buffers")
_FACTORS = (Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4))


@dataclass(frozen=True)
class Variant:
    """One variant.

    Attributes:
        dataflow: the only one allowed, or ``best`` for each layer.
        cores, buffers: factors on the number of cores and on the size of their buffers; prices stay as they are, and
            a mesh has as many rows as the cores need.
        found: what the network needs there; ``None`` where it does not fit.
        problem: why it does not.
    """

    dataflow: str
    cores: Fraction
    buffers: Fraction
    found: Hardware | None
    problem: str = ""


def explore(
    graph: Graph, activity: Activity, chip: Chip, axes: Collection[str], *, goal: Goal = "energy",
    follow: Follow | None = None,
) -> tuple[Variant, ...]:  # fmt: skip
    """Every combination of what is varied, the chip as it is among them.

    Args:
        graph, activity: of the network.
        chip: what is varied.
        axes: which of :data:`AXES`.
        goal: as of :func:`hardware`.
        follow: finds the messages between cores on a variant. Dataflows change none of them.

    Raises:
        UsageError: an axis that is unknown.
    """
    for axis in axes:
        if axis not in AXES:
            raise UsageError(f"nothing to explore is called {axis!r}", hint=f"one of: {', '.join(AXES)}")
    flows = dict.fromkeys(flow for core in chip.cores for flow in core.dataflows)
    dataflows = ("best", *flows) if "dataflow" in axes else ("best",)
    sizes = itertools.product(
        _FACTORS if "cores" in axes else (Fraction(1),), _FACTORS if "buffers" in axes else (Fraction(1),)
    )
    found = [_variants(graph, activity, chip, dataflows, *size, goal, follow) for size in sizes]
    return tuple(itertools.chain.from_iterable(zip(*found, strict=True)))


def _variants(
    graph: Graph, activity: Activity, chip: Chip, dataflows: Iterable[str], cores: Fraction, buffers: Fraction,
    goal: Goal, follow: Follow | None,
) -> Iterator[Variant]:  # fmt: skip
    """All dataflows on a chip of one size."""
    other = _sized(chip, cores, buffers)
    messages = functools.cache(lambda: follow(other) if follow is not None else None)
    for dataflow in dataflows:
        only = () if dataflow == "best" else (dataflow,)
        try:
            found = hardware(graph, activity, other, goal=goal, only=only, use=messages())
        except UsageError as error:
            yield Variant(dataflow, cores, buffers, None, error.message)
        else:
            yield Variant(dataflow, cores, buffers, found)


def _sized(chip: Chip, cores: Fraction, buffers: Fraction) -> Chip:
    other = replace(chip, cores=tuple(_core(core, cores, buffers) for core in chip.cores))
    mesh = chip.network
    return other if mesh is None or cores == 1 else replace(other, network=_mesh(mesh, other.cores_per_chip))


def _mesh(mesh: Network, cores: int) -> Network:
    return replace(mesh, rows=-(-cores // (mesh.columns * mesh.cores_per_tile)))


def _core(core: Core, cores: Fraction, buffers: Fraction) -> Core:
    return replace(
        core,
        count=max(1, int(core.count * cores)),
        buffers=tuple(_buffer(buffer, buffers) for buffer in core.buffers),
    )


def _buffer(buffer: Buffer, factor: Fraction) -> Buffer:
    return buffer if buffer.bytes is None else replace(buffer, bytes=max(1, int(buffer.bytes * factor)))
