"""What every operator must say about itself. The operators are in :mod:`qkf_deploy.ops`, one module each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qkf_deploy.errors import ProofError
from qkf_deploy.ir.schema import check_attributes
from qkf_deploy.ir.values import ValueType

Params = Mapping[str, np.ndarray]
Arrays = Sequence[np.ndarray]
Types = Sequence[ValueType]


#: Every proven range lies strictly between -2^62 and 2^62, so that the sum of any two ends is still an int64.
PROOF_LIMIT = 2**62


@dataclass(frozen=True)
class Interval:
    """Smallest and largest integer of a value: int64 arrays that broadcast to its per-step shape.

    It cannot be made with ends that wrapped around: whoever computes ends that may pass 62 bits does so in Python
    integers (arrays of dtype object), and they are checked here.

    Raises:
        ProofError: an end reaches 2^62, or a low end lies above its high end.
    """

    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        low, high = np.asarray(self.low), np.asarray(self.high)
        worst = max((abs(int(end)) for v in (low, high) if v.size for end in (v.min(), v.max())), default=0)
        if worst >= PROOF_LIMIT:
            raise ProofError(f"a value can reach {worst}, more than 62 bits", hint="use fewer bits")
        if (low > high).any():
            raise ProofError("a range whose low end lies above its high end")
        object.__setattr__(self, "low", low.astype(np.int64, copy=False))
        object.__setattr__(self, "high", high.astype(np.int64, copy=False))

    def times(self, factor: int) -> Interval:
        """The range of ``factor`` (not negative) times the value."""
        return Interval(self.low.astype(object) * factor, self.high.astype(object) * factor)


@dataclass(frozen=True)
class StaticCost:
    """Multiply-accumulates of one dense execution for one image and one time step.

    Attributes:
        dense_macs: padding taps counted, as a dense library executes them.
        border_exact_macs: only taps that exist.
    """

    dense_macs: int = 0
    border_exact_macs: int = 0


class Operator(ABC):
    """Meaning of one kind of node; subclasses are frozen dataclasses whose fields are the node's attributes.

    Arrays carry two leading axes: ``(T, B, *shape)``, with T = 1 for values whose timing is not ``step``.
    Float graphs use float64; integer graphs int64 (exactly, without wrap-around).
    """

    kind: ClassVar[str]
    ports: ClassVar[tuple[str, ...]] = ("x",)

    def __post_init__(self) -> None:
        """Attributes of other types than declared are refused with a GraphError."""
        check_attributes(self)

    @property
    def steps_awaited(self) -> int:
        """Time steps that must be there before the result of any of them is; 1 for causal operators."""
        return 1

    @abstractmethod
    def infer(self, inputs: Types, params: Params) -> ValueType:
        """Output type. Raises GraphError where inputs or parameters do not fit."""

    def check_steps(self, params: Params, time_steps: int) -> None:  # noqa: B027 - most have nothing to check
        """Raises GraphError where parameters are made for another number of time steps."""

    @abstractmethod
    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        """Exact numpy semantics."""

    @abstractmethod
    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        """Range of the output of an integer graph that no input within the given ranges can leave."""

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        """Operations executed, by ledger class (:mod:`qkf_deploy.ledger`): int64 arrays of shape ``(B,)``.

        Args:
            inputs: operand arrays, views applied.
            output: what :meth:`run` returned.
            params: the node's parameters.
            types: operand types.
            time_steps: T.
        """
        return {}

    def static_cost(self, inputs: Types, params: Params) -> StaticCost:
        """Dense multiply-accumulates per image and time step; zero for operators without a matrix."""
        return StaticCost()


Counts = dict[str, np.ndarray]
