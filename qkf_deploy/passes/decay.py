"""Membrane decay as m / 2^k."""

from __future__ import annotations

from dataclasses import dataclass

_EXACT = 1e-12


@dataclass(frozen=True)
class Decay:
    """1 - 1/τ as an integer multiplier and a shift.

    Attributes:
        multiplier, shift: m and k.
        target: what the step keeps, 1 - 1/τ.
    """

    multiplier: int
    shift: int
    target: float

    @property
    def error(self) -> float:
        """|m / 2^k - (1 - 1/τ)|."""
        return abs(self.multiplier / 2**self.shift - self.target)

    @property
    def exact(self) -> bool:
        """True if the decay is dyadic."""
        return self.error < _EXACT

    @property
    def floors(self) -> bool:
        """True if what the step keeps is rounded down: neither everything (IF) nor nothing."""
        return 0 < self.multiplier < 1 << self.shift

    @property
    def lossless_without_fraction(self) -> bool:
        """True if flooring the state never changes a spike: with m = 1 floors nest, with IF (and without memory)
        nothing is floored."""
        return self.exact and (self.multiplier == 1 or not self.floors)

    def notice(self, time_steps: int) -> str:
        """One sentence on the error of an approximate decay."""
        return (
            f"the decay 1 - 1/τ = {self.target:.6f} became {self.multiplier}/2^{self.shift}, "
            f"off by {self.error:.2e} of the membrane per step (at most {self.error * (time_steps - 1):.2e} of the "
            f"largest membrane over {time_steps} steps, plus one unit of the last membrane bit per step for flooring)"
        )


def approximate(tau: float | None, max_bits: int) -> Decay:
    """Smallest dyadic fraction that equals 1 - 1/τ, else the nearest with ``max_bits`` bits. ``None`` is IF."""
    return nearest(1.0 if tau is None else 1.0 - 1.0 / tau, max_bits)


def nearest(target: float, max_bits: int) -> Decay:
    """As :func:`approximate`, of the part itself that a step keeps."""
    for shift in range(max_bits + 1):
        decay = Decay(round(target * 2**shift), shift, target)
        if decay.exact:
            return decay
    return Decay(round(target * 2**max_bits), max_bits, target)
