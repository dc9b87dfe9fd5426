"""What every unit of a network does on a chip, step by step: counts that energy and time are made of.

All numbers are exact sums over the images of a run; divide by ``images`` for a mean.
"""

from __future__ import annotations

from collections import Counter
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
class Place:
    """What lies where.

    Attributes:
        buffer: its name; ``DRAM`` for DRAM.
        operand: one of :data:`qkf_deploy.hw_models.architecture.chip.HOLDS`.
    """

    buffer: str
    operand: str


@dataclass(frozen=True)
class StepWork:
    """One unit at one time step, all its cores together.

    Attributes:
        operations: items by name as the core has it (:data:`~qkf_deploy.hw_models.architecture.chip.OPERATIONS`).
        accesses: words by what lies where.
        busiest: share of all this on the core that has most of it, at least 1 / cores.
    """

    operations: Mapping[str, int]
    accesses: Mapping[Place, Accesses]
    busiest: Fraction


@dataclass(frozen=True)
class UnitWork:
    """One unit over all steps.

    Attributes:
        unit: its name (:class:`~qkf_deploy.hw_models.units.Unit`).
        core: kind of the cores it runs on.
        cores: how many of them.
        dataflow: how its synapse is executed; empty without one.
        bands, groups: tiles of output rows, and groups of output channels, one after another or side by side.
        repeated: a count of k is k events; else one event whose weight is multiplied.
        steps: T entries; what happens once for all steps (weights of a dataflow that keeps them) is in the first.
    """

    unit: str
    core: str
    cores: int
    dataflow: str
    bands: int
    groups: int
    repeated: bool
    steps: tuple[StepWork, ...]

    def operations(self) -> Mapping[str, int]:
        """Items of all steps."""
        total: Counter[str] = Counter()
        for step in self.steps:
            total.update(step.operations)
        return total

    def accesses(self) -> Mapping[Place, Accesses]:
        """Words of all steps."""
        total: dict[Place, Accesses] = {}
        for step in self.steps:
            for place, words in step.accesses.items():
                total[place] = total.get(place, Accesses()) + words
        return total
