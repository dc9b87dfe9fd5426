"""Table 9: memory of one attention, by the bytes that its tensors must hold."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

#: Channels of Table 9; float32, MiB.
_CHANNELS, _BYTES, _MIB = 256, 4, 2**20
#: Printed values are those of an allocator, which rounds blocks up.
_SHARE = {"qkta_mib": 0.06, "ssa_mib": 0.08}


def held_mib(kind: str, tokens: int) -> float:
    """MiB of intermediates and result: gate and gated K of Q-K token attention; scores and result of SSA (Q K^T first).

    Args:
        kind: ``qkta_mib`` or ``ssa_mib``.
        tokens: N.
    """
    elements = tokens * _CHANNELS + (2 * tokens if kind == "qkta_mib" else tokens * tokens)
    return elements * _BYTES / _MIB


def of_cell(row: str, column: str, printed: Mapping[str, str]) -> tuple[str, bool, str]:
    """(found, same, evidence) of one cell of Table 9."""
    tokens = int(row.split(", ")[1].split()[0])
    if column == "ratio":
        found = Decimal(printed["ssa_mib"]) / Decimal(printed["qkta_mib"])
        same = abs(found - Decimal(printed["ratio"])) <= found * Decimal("0.04")
        return f"{found:.2f}", same, "quotient of the printed memories, which are rounded"
    held, value = held_mib(column, tokens), float(printed[column])
    same = abs(value - held) <= max(_SHARE[column] * held, 0.005)
    return f"{held:.2f} MiB", same, f"bytes that intermediates and result hold, within {_SHARE[column]:.0%}"
