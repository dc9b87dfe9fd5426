"""Published accelerators on spiking networks: time, DRAM traffic and energy, recomputed by the formula of their source.

Wei et al., Prosperity, HPCA 2025 (repository dubcyfor3/Prosperity, ``simulator/energy.py``):
E = chip power x time + 12.45 pJ x DRAM bits, the bits of an accelerator being a ratio of Prosperity's.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources

DRAM_PJ_PER_BIT = Decimal("12.45")
#: Accelerator -> (chip power in mW, DRAM traffic over Prosperity's).
CHIPS: Mapping[str, tuple[Decimal, Decimal]] = {
    "Prosperity": (Decimal("446.5"), Decimal(1)),
    "Eyeriss": (Decimal("1410.5"), Decimal("5.47")),
    "PTB": (Decimal("982.0"), Decimal("2.53")),
    "SATO": (Decimal("319.5"), Decimal("4.85")),
    "MINT": (Decimal("396.3"), Decimal("3.12")),
    "Stellar": (Decimal("834.0"), Decimal("1.23")),
}
#: Ten digits of the tables are kept.
_DIGITS = Decimal("1e-8")


@dataclass(frozen=True)
class AcceleratorRow:
    """One network on one accelerator.

    Attributes:
        accelerator, network: as published.
        seconds: of one inference.
        energy_mj: as published.
        dram_bits: of Prosperity on this network.
    """

    accelerator: str
    network: str
    seconds: Decimal
    energy_mj: Decimal
    dram_bits: int

    @property
    def chip_mj(self) -> Decimal:
        """Chip power x time."""
        return CHIPS[self.accelerator][0] * self.seconds

    @property
    def dram_mj(self) -> Decimal:
        """DRAM traffic of this accelerator."""
        return DRAM_PJ_PER_BIT * self.dram_bits * CHIPS[self.accelerator][1] / 10**9

    @property
    def recomputed_mj(self) -> Decimal:
        """Both."""
        return self.chip_mj + self.dram_mj

    @property
    def same(self) -> bool:
        """True if that is the published energy, to the digits kept."""
        return abs(self.recomputed_mj - self.energy_mj) <= _DIGITS * self.energy_mj


def accelerator_rows() -> tuple[AcceleratorRow, ...]:
    """Every published row that has a time and an energy."""
    text = (resources.files("qkf_deploy.hw_models") / "accelerators.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        AcceleratorRow(
            r["accelerator"], r["network"], Decimal(r["seconds"]), Decimal(r["energy_mj"]), int(r["dram_bits"])
        )
        for r in rows
    )
