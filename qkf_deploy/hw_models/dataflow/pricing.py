"""Energy of work: operations and accesses times the prices of a chip, exact, low to high."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from qkf_deploy.hw_models.architecture.chip import Buffer, Chip, Core
from qkf_deploy.hw_models.architecture.ranges import Range
from qkf_deploy.hw_models.energies import exact_product, exact_sum
from qkf_deploy.hw_models.timing.use import NetworkUse
from qkf_deploy.hw_models.work import UnitWork


@dataclass(frozen=True)
class Part:
    """Energy of one kind of work of one unit, all images.

    Attributes:
        component: ``compute`` or the name of a buffer.
        what: operation, or operand with ``read`` or ``write``.
        count: items or words.
        pj: of all of them; ``None`` where the chip file has no price.
    """

    component: str
    what: str
    count: int
    pj: Range | None


def unit_parts(work: UnitWork, chip: Chip) -> tuple[Part, ...]:
    """What a unit costs, row by row; static power and network aside."""
    core = next(c for c in chip.cores if c.kind == work.core)
    return (*_operations(work, core), *_accesses(work, chip, core))


def _operations(work: UnitWork, core: Core) -> Iterator[Part]:
    for name, count in work.operations().items():
        found = core.operations.get(name)
        yield Part("compute", name, count, None if found is None or found.pj is None else times(found.pj, count))


def _accesses(work: UnitWork, chip: Chip, core: Core) -> Iterator[Part]:
    own = {b.name for b in core.buffers}
    for place, words in work.accesses().items():
        buffer = buffer_named(chip, core, place.buffer)
        if place.buffer in own and core.operations_include_buffers:
            continue
        for verb, count, price in (("read", words.reads, buffer.read_pj), ("write", words.writes, buffer.write_pj)):
            if count:
                yield Part(buffer.name, f"{place.operand} {verb}", count, price and times(price, count))


def network_parts(use: NetworkUse, chip: Chip) -> tuple[Part, ...]:
    """What messages between cores cost, row by row."""
    parts: list[Part] = []
    for (name, kind), count in use.messages.items():
        core = next(c for c in chip.cores if c.kind == kind)
        operation = core.operations.get(name)
        price = None if operation is None else operation.pj
        parts.append(Part("network", name, count, price and times(price, count)))
    for name, count in use.hops.items():
        link = chip.network.links.get(name) if chip.network else None
        items = count * ((chip.network.message_bits or 1) if chip.network and link and link.per == "bit" else 1)
        price = None if link is None else link.pj
        parts.append(Part("network", f"hops {name}", count, price and times(price, items)))
    return tuple(p for p in parts if p.count)


def buffer_named(chip: Chip, core: Core, name: str) -> Buffer:
    """A buffer of a core, of the chip, or DRAM."""
    every = (*core.buffers, *chip.buffers, *([chip.dram] if chip.dram else []))
    return next(b for b in every if b.name == name)


def times(price: Range, count: int) -> Range:
    """A price for ``count`` items, exactly."""
    return Range(*(exact_product(count, pj) for pj in price))


def total(parts: tuple[Range, ...]) -> Range:
    """Sum of ranges, exactly."""
    zero = (Decimal(0),)
    return Range(*(exact_sum(column) for column in (zip(*parts, strict=True) if parts else (zero, zero, zero))))


def unit_ns(work: UnitWork, chip: Chip) -> tuple[Fraction, tuple[str, ...]]:
    """Time of all images, the sum of :func:`unit_waits`, and what has no time."""
    waits, missing = unit_waits(work, chip)
    return sum(waits.values(), Fraction(0)), missing


def unit_waits(work: UnitWork, chip: Chip) -> tuple[dict[str, Fraction], tuple[str, ...]]:
    """Time of a unit whose buffers work beside its lanes: at each step the slowest of compute and every buffer.

    Returns:
        Nanoseconds of all images by what they wait for (``compute``, or a buffer), and what has no time in the chip
        file (taken as none, so the sum is a lower bound).
    """
    core = next(c for c in chip.cores if c.kind == work.core)
    missing: set[str] = set()
    waits: dict[str, Fraction] = {}
    for step in work.steps:
        compute = Fraction(0)
        for name, items in step.operations.items():
            operation = core.operations.get(name)
            batch = None if operation is None else chip.batch_ns(operation)
            if operation is None or batch is None:
                missing.add(name)
            else:
                compute += step.busiest * items * batch / (operation.lanes or 1)
        found = {"compute": compute}
        for place, words in step.accesses.items():
            buffer = buffer_named(chip, core, place.buffer)
            if buffer.bits_per_ns is None:
                if not (core.operations_include_buffers and buffer in core.buffers):
                    missing.add(buffer.name)
                continue
            share = step.busiest if buffer in core.buffers else 1
            took = share * (words.reads + words.writes) * buffer.word_bits / Fraction(buffer.bits_per_ns)
            found[buffer.name] = found.get(buffer.name, Fraction(0)) + took
        slowest = max(found, key=found.__getitem__)
        waits[slowest] = waits.get(slowest, Fraction(0)) + found[slowest]
    return waits, tuple(sorted(missing))
