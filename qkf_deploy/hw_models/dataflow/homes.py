"""Where weights and values lie between layers: the smallest level that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qkf_deploy.hw_models.architecture.chip import Buffer, Chip, Core


@dataclass(frozen=True)
class Way:
    """From the home of an operand to the cores.

    Attributes:
        levels: buffers from the cores outwards; the last one is the home. Empty where the chip file has none.
    """

    levels: tuple[Buffer, ...]

    @property
    def near(self) -> Buffer | None:
        """What the lanes read."""
        return self.levels[0] if self.levels else None

    @property
    def fills(self) -> Iterable[tuple[Buffer, Buffer]]:
        """(from, to) of every copy on the way in, from the home on."""
        return tuple(zip(self.levels[:0:-1], self.levels[-2::-1], strict=True))


def way(chip: Chip, core: Core, operand: str, bits: int, *, outside: bool = False) -> Way:
    """Way of an operand whose whole is ``bits``.

    Args:
        chip, core: where.
        operand: ``weights`` or ``events``.
        bits: room it takes; the buffers of all cores count together.
        outside: it comes from outside the chip (the image).
    """
    levels = chip.levels(core, operand)
    if chip.execution == "resident" and core.buffer(operand) is not None:
        return Way(levels[:1])
    if outside and chip.dram is not None:
        return Way(levels)
    for number, buffer in enumerate(levels):
        room = None if buffer.bytes is None else 8 * buffer.bytes * (core.count if buffer in core.buffers else 1)
        if room is None or bits <= room:
            return Way(levels[: number + 1])
    return Way(levels)
