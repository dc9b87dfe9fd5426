"""A synapse about to run, how its work is divided, and what is counted on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from qkf_deploy.simulators.event.kernels.alignment import aligned_empty
from qkf_deploy.simulators.event.kernels.arguments import Neurons, Outputs

_NO_OUTPUTS = Outputs(
    0, np.zeros((0, 0), np.uint32), np.zeros((0, 0), np.int16), np.zeros((0, 0), np.int32), np.zeros(0, np.int64)
)  # fmt: skip


class Ranges(Protocol):
    """Runs ``task(p0, p1)`` over ranges of ``0 .. n`` of at least ``least``, possibly on several threads."""

    def __call__(self, n: int, task: Callable[[int, int], Any], least: int = 16) -> Sequence[Any]:
        """Results of the task, in any order."""
        ...


#: Computes output pixels ``p0 .. p1`` into ``out``: (non-zero drives at the neurons, events gathered).
Producer = Callable[[Outputs, int, int], tuple[int, int]]


class Produced(NamedTuple):
    """Non-zero drives at the neurons, events gathered, spikes at each step as int64 ``(T,)``."""

    driven: int
    gathered: int
    fired: np.ndarray

    @staticmethod
    def together(parts: Sequence[Produced]) -> Produced:
        """The sums over several parts of a layer."""
        if len(parts) == 1:
            return parts[0]
        driven, gathered, fired = zip(*parts, strict=True)
        return Produced(sum(driven), sum(gathered), np.sum(fired, axis=0))


class Work(NamedTuple):
    """A synapse about to run.

    Attributes:
        produce: see :data:`Producer`.
        neurons: bias and neuron, padded to the kernel's channels.
        drive16, neuron16: drives are handed to pooling in 16 bits; the neuron behind it is tried in 16 bits too.
        wide: the same in 32 bits, for where 16 were not enough.
    """

    produce: Producer
    neurons: Neurons
    drive16: bool = False
    neuron16: bool = False
    wide: Callable[[], Work] | None = None

    def outputs(self, rows: int, *, fires: bool) -> Outputs:
        """Arrays for so many rows of spikes or drives."""
        columns = self.neurons.bias.shape[1]
        if fires:
            return _NO_OUTPUTS._replace(spikes=np.empty((rows, columns // 32), np.uint32))
        if self.drive16:
            return _NO_OUTPUTS._replace(drive16=aligned_empty((rows, columns), np.int16))
        return _NO_OUTPUTS._replace(drive=aligned_empty((rows, columns), np.int32))
