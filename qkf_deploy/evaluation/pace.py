"""How many samples run together where no result depends on it: found by running them."""

from __future__ import annotations

#: A larger batch stays if a sample takes at most this share of the time that it took before.
_WORTH = 0.95


class Pace:
    """Samples per batch, doubled while that is faster and the memory holds.

    The samples measured are those that have to run anyway. The first batch is not measured: it loads and compiles.

    Args:
        size: of the first batches.

    Attributes:
        size: of the next batch, at most.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._best = float("inf")
        self._warm, self._settled = False, False

    def took(self, samples: int, seconds: float) -> None:
        """Learn from a batch; one that is shorter than asked for, as at the end of a shard, says nothing."""
        if not self._warm:
            self._warm = True
        elif not self._settled and samples == self.size:
            if seconds / samples <= _WORTH * self._best:
                self._best, self.size = seconds / samples, 2 * self.size
            else:
                self._settle(max(1, self.size // 2))

    def failed(self, samples: int) -> None:
        """Learn that so many do not fit into the memory. Raises MemoryError for a single one."""
        if samples == 1:
            raise MemoryError("not even one sample fits")
        self._settle(samples // 2)

    def _settle(self, size: int) -> None:
        self.size, self._settled = size, True
