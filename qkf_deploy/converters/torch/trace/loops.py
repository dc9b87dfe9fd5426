"""Loops over time: a model that calls single-step modules T times is captured as T copies of its loop body.

A neuron called for the k-th time is at step k. What is computed from it is at step k too, and equal operations of
different steps are one node: the copies collapse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import replace

from qkf_deploy.converters.torch.trace.capture import NEURON_CALL, Program
from qkf_deploy.converters.torch.trace.symbols import Symbol
from qkf_deploy.errors import UnsupportedError


class Loops:
    """What is known of the loops of a program.

    Attributes:
        calls: how often each neuron is called, by module path.
        steps: T of the loops: calls of most single-step neurons; 1 if nothing loops.
    """

    def __init__(self, program: Program) -> None:
        self.calls = Counter(str(c.args[1]) for c in program.calls if c.target == NEURON_CALL)
        single = Counter(n for path, n in self.calls.items() if not program.neurons[path].untimed)
        self.steps = max(single, key=lambda n: (single[n], n > 1, -n), default=1)
        self._neurons: dict[str, tuple[Symbol, int]] = {}
        self._nodes: dict[Hashable, list[str]] = {}
        self._used: Counter[Hashable] = Counter()

    def step_of(self, path: str, x: Symbol) -> int | None:
        """The time step of a single-step neuron's next call, ``None`` if the model does not loop.

        Raises:
            UnsupportedError: the calls are not one per time step, in order, on the same value.
        """
        calls, rest = divmod(self.calls[path], self.steps)
        if rest:
            raise UnsupportedError(
                f"this single-step neuron is called {self.calls[path]} times, others {self.steps} times",
                hint="every neuron must be called once per time step",
            )
        if calls > 1:
            raise UnsupportedError(
                f"this single-step neuron is called {calls} times in every time step: its membrane goes on from one "
                "tensor to the next",
                hint="give every place its own neuron",
            )
        if self.steps == 1 and not x.at:
            return None
        first, count = self._neurons.get(path, (replace(x, at=()), 0))
        self._neurons[path] = (first, count + 1)
        if x.at not in ((), (count,)) or replace(x, at=()) != first:
            raise UnsupportedError(
                "this single-step neuron is called on different tensors or out of order",
                hint="give every place its own neuron, and call it once per time step",
            )
        return count

    def known(self, key: Hashable, at: tuple[int, ...]) -> str | None:
        """The node an equal operation of another step made, if any."""
        if self.steps == 1 and not at:
            return None
        # Two equal operations within one step are two nodes: the n-th one of a step is the n-th one of the others.
        occurrence = self._used[key, at]
        made = self._nodes.get(key, [])
        if not at and made:
            return made[0]
        self._used[key, at] += 1
        return made[occurrence] if occurrence < len(made) else None

    def remember(self, key: Hashable, node: str) -> None:
        """Note the node of an operation."""
        self._nodes.setdefault(key, []).append(node)

    def whole(self, at: tuple[int, ...]) -> bool:
        """True if a running sum has every step."""
        return at == tuple(range(self.steps))
