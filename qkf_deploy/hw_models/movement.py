"""Memory and data movement: what every layer must hold and what moves, in bytes, for a stated buffer hierarchy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from qkf_deploy.hw_models.quantities import stored_state_bytes, stored_weight_bytes
from qkf_deploy.ledger import LayerRecord, Ledger


@dataclass(frozen=True)
class Level:
    """One level of a buffer hierarchy.

    Attributes:
        name: for people.
        capacity: bytes; ``None`` is unlimited.
        pj_per_byte: price of reading or writing one byte.
    """

    name: str
    capacity: int | None
    pj_per_byte: Decimal


#: Horowitz, ISSCC 2014: a 64-bit read costs 10, 20, 100 pJ from 8 KB, 32 KB, 1 MB of SRAM (1.25, 2.5, 12.5 pJ per
#: byte); DRAM as commonly quoted from there, 1300 to 2600 pJ, here the lower end (162.5 pJ per byte).
HOROWITZ_BUFFERS = (
    Level("SRAM 8 KB", 8 * 1024, Decimal("1.25")),
    Level("SRAM 32 KB", 32 * 1024, Decimal("2.5")),
    Level("SRAM 1 MB", 1024 * 1024, Decimal("12.5")),
    Level("DRAM", None, Decimal("162.5")),
)


#: What :func:`movement` assumes, to print with its numbers.
CONVENTION = (
    "Each layer's weights and membranes lie in the smallest of 8 KB, 32 KB and 1 MB of SRAM (1.25, 2.5, 12.5 pJ per "
    "byte) or else DRAM (162.5), Horowitz, ISSCC 2014; every use of a weight is a read, every membrane is read and "
    "written once per step (a stored leftover only read), nothing is reused; events are counted in packed bits, not "
    "priced."
)
#: Why profiles that price memory give another sum than this table.
OTHER_CONVENTIONS = (
    "Profiles with memory price what moves otherwise: horowitz45-sram the same bytes, layers beyond 1 MB in banks of "
    "1 MB (12.5 pJ per byte), and arithmetic; traffic-3.12pj-per-bit the same bytes at 24.96 pJ each, and arithmetic; "
    "int32-sram-per-access words of 32 bits, and a membrane at every addition."
)


@dataclass(frozen=True)
class LayerMovement:
    """One layer, per image.

    Attributes:
        layer, type: node name and operator.
        weight_size: bytes of stored weights and biases, all at the width of the weights.
        weight_level: smallest level that holds them.
        weight_traffic: bytes of weights read (one read per graded addition or MAC, no reuse).
        state_size: bytes of membranes.
        state_level: smallest level that holds them.
        state_traffic: bytes of membranes read and written.
        event_bits: bits of one outgoing event (address and value).
        event_traffic: bytes of outgoing events, bits packed.
        energy_pj: traffic of weights and state at the price of their level; events have no level of their own.
    """

    layer: str
    type: str
    weight_size: int
    weight_level: str
    weight_traffic: Fraction
    state_size: int
    state_level: str
    state_traffic: Fraction
    event_bits: int
    event_traffic: Fraction
    energy_pj: Fraction


def movement(ledger: Ledger, levels: Sequence[Level] = HOROWITZ_BUFFERS) -> tuple[LayerMovement, ...]:
    """Memory and traffic of every layer that holds or moves anything, mean per image."""
    rows = (_layer(layer, ledger, levels) for layer in ledger)
    return tuple(r for r in rows if r.weight_traffic or r.state_traffic or r.event_traffic)


def dense_twin_energy(ledger: Ledger, levels: Sequence[Level] = HOROWITZ_BUFFERS) -> Fraction:
    """Memory energy (pJ) of one dense execution of the network: one weight read per MAC, from the level that holds it.

    The same model as :func:`movement`: no reuse; activations, like events, have no price; nothing keeps a membrane.
    """
    total = Fraction(0)
    for layer in ledger:
        level = level_for(stored_weight_bytes(layer, ledger), levels)
        total += layer.dense_macs * -(-layer.weight_bits // 8) * Fraction(level.pj_per_byte)
    return total


def level_for(size: int, levels: Sequence[Level]) -> Level:
    """Smallest level that holds ``size`` bytes; the last one where none does."""
    return next((lv for lv in levels if lv.capacity is None or size <= lv.capacity), levels[-1])


def _layer(layer: LayerRecord, ledger: Ledger, levels: Sequence[Level]) -> LayerMovement:
    images = ledger.images
    weight_size, state_size = stored_weight_bytes(layer, ledger), stored_state_bytes(layer, ledger)
    weight_level, state_level = level_for(weight_size, levels), level_for(state_size, levels)
    weights, state = Fraction(layer.total("weight_bytes"), images), Fraction(layer.total("state_bytes"), images)
    bits = event_bits(layer)
    energy = weights * Fraction(weight_level.pj_per_byte) + state * Fraction(state_level.pj_per_byte)
    return LayerMovement(
        layer=layer.name,
        type=layer.op,
        weight_size=weight_size,
        weight_level=weight_level.name if weight_size else "",
        weight_traffic=weights,
        state_size=state_size,
        state_level=state_level.name if state_size else "",
        state_traffic=state,
        event_bits=bits,
        event_traffic=Fraction(layer.total("events_out_graded") * bits, 8 * images),
        energy_pj=energy,
    )


def event_bits(layer: LayerRecord) -> int:
    """Bits of one outgoing event: the index of the element, and for counts the value (proven width, else 8 bits)."""
    if not layer.total("events_out_graded"):
        return 0
    address = math.ceil(math.log2(layer.output_size)) if layer.output_size > 1 else 1
    if layer.output_kind == "signed":  # of a spike its polarity
        return address + (
            8 if not layer.accumulator_bits else layer.accumulator_bits if layer.accumulator_bits > 2 else 1
        )
    value = 0 if layer.output_kind == "spike" else max(layer.accumulator_bits - 1, 1) if layer.accumulator_bits else 8
    return address + value
