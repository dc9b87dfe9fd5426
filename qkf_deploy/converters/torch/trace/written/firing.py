"""What element-by-element code is read into: tensors by their roots, and the places where something fires."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.written.polynomial import Monomial, Poly
from qkf_deploy.ops.membrane import Rounding

#: What fires: comparisons, steps, rounding.
FIRING = frozenset({"gt", "ge", "lt", "le", "heaviside", "round", "floor"})


@dataclass(frozen=True)
class Root:
    """A tensor as ``scale * root + offset``, constants both."""

    name: str
    scale: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class Clamped:
    """A tensor within limits, times a factor, plus an offset."""

    root: Root
    low: np.ndarray
    high: np.ndarray
    offset: float


@dataclass(frozen=True)
class Firing:
    """One place where a membrane becomes spikes.

    Attributes:
        call: the call whose result are the spikes (or their complement); where they have either polarity, as long as no
            call has both, the first comparison.
        root: the tensor whose crossing of ``threshold`` fires.
        threshold: in units of the root.
        strict, rounding, max_spikes: as in :class:`qkf_deploy.ops.Neuron`.
        inverted: the call gives 1 - spikes.
        lower: where it fires downwards too, the level of that, in units of the root.
        index: its number, of the atoms ``u`` and ``s``.
        charge: the root as a polynomial.
        starts: True if the root is none of a membrane of before: one of the program's own tensors.
    """

    call: Call
    root: str
    threshold: np.ndarray
    strict: bool = False
    rounding: Rounding = "floor"
    max_spikes: int | None = 1
    inverted: bool = False
    lower: np.ndarray | None = None
    index: int = -1
    charge: Poly = field(default_factory=dict[Monomial, np.ndarray])
    starts: bool = False

    @property
    def signed(self) -> bool:
        """True if spikes have either polarity."""
        return self.lower is not None

    @property
    def counts(self) -> bool:
        """True if spikes are other numbers than -1, 0 and 1."""
        return self.max_spikes != 1 or self.rounding != "floor"

    def fires_as(self, other: Firing) -> bool:
        """True if the same membrane gives the same spikes."""
        same = (self.strict, self.rounding, self.max_spikes) == (other.strict, other.rounding, other.max_spikes)
        return same and self.signed == other.signed and np.array_equal(self.threshold, other.threshold)
