"""What every unit of a network does on a chip, step by step: counts that energy and time are made of.

All numbers are exact sums over the images of a run; divide by ``images`` for a mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Accesses:
    """Words read from and written to one buffer."""

    reads: int = 0
    writes: int = 0

    def __add__(self, other: Accesses) -> Accesses:
        return Accesses(self.reads + other.reads, self.writes + other.writes)


@dataclass(frozen=True)
class StepWork:
    """One unit at one time step, all its cores together.

    Attributes:
        operations: items by name as the core has it (:data:`~qkf_deploy.hw_models.architecture.chip.OPERATIONS`).
        accesses: by name of the buffer (``DRAM`` for DRAM).
        events_in, events_out: events that the unit takes and emits, as its dataflow sends them (repeated or graded).
        busiest: share of the operations on the core that has most of them, at least 1 / cores.
    """

    operations: Mapping[str, int]
    accesses: Mapping[str, Accesses]
    events_in: int
    events_out: int
    busiest: Fraction


@dataclass(frozen=True)
class UnitWork:
    """One unit over all steps.

    Attributes:
        unit: its name (:class:`~qkf_deploy.hw_models.units.Unit`).
        core: kind of the cores it runs on.
        cores: how many of them.
        dataflow: how it is executed.
        steps: T entries; what happens once for all steps (weights of a dataflow that keeps them) is in the first.
    """

    unit: str
    core: str
    cores: int
    dataflow: str
    steps: tuple[StepWork, ...]


@dataclass(frozen=True)
class NetworkWork:
    """All units in order of computation.

    Attributes:
        images: summed over.
        units: of the network.
    """

    images: int
    units: tuple[UnitWork, ...]
