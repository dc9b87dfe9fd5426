"""What every operator must say about itself. The operators are in :mod:`qkf_deploy.ops`, one module each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qkf_deploy.ir.values import ValueType

Params = Mapping[str, np.ndarray]
Arrays = Sequence[np.ndarray]
Types = Sequence[ValueType]


@dataclass(frozen=True)
class Interval:
    """Smallest and largest integer of a value: int64 arrays that broadcast to its per-step shape."""

    low: np.ndarray
    high: np.ndarray


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

    @abstractmethod
    def infer(self, inputs: Types, params: Params) -> ValueType:
        """Output type. Raises GraphError where inputs or parameters do not fit."""

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
