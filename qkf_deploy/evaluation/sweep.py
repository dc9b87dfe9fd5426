"""One network at several time steps and weight widths: the points of a sweep, their networks, and how far it is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qkf_deploy import bundle
from qkf_deploy.evaluation.run import Outcome
from qkf_deploy.evaluation.tally import Tally
from qkf_deploy.ir import Graph
from qkf_deploy.options import QuantizeOptions
from qkf_deploy.passes.quantize import quantize
from qkf_deploy.passes.steps import with_time_steps
from qkf_deploy.runs.store import Store


@dataclass(frozen=True)
class Point:
    """One network of a sweep.

    Attributes:
        steps: T; ``None`` leaves the network's own.
        bits: per weight; ``None`` leaves the network as it is.
    """

    steps: int | None = None
    bits: int | None = None

    @staticmethod
    def of(config: Mapping[str, Any]) -> Point:
        """The point that a run is of."""
        return Point(config.get("steps"), config.get("bits"))

    def config(self, made_with: int) -> dict[str, Any]:
        """What a run says of its point; nothing where it is no sweep."""
        if self == Point():
            return {}
        name = f"T={self.steps or made_with} {'float' if self.bits is None else f'bits={self.bits}'}"
        return {"name": name, "steps": self.steps, "bits": self.bits, "made_with_steps": made_with}

    def network(self, source: Graph) -> Graph:
        """The network at this point.

        Raises:
            UsageError: an integer network, or bits that do not exist.
            UnsupportedError: a network that T or integers are not possible for.
            ProofError: a sum could pass 62 bits.
        """
        graph = source if self.steps is None else with_time_steps(source, self.steps)
        return graph if self.bits is None else quantize(graph, QuantizeOptions(self.bits))


def points(steps: int | Sequence[int] | None, bits: int | Sequence[int] | None) -> tuple[Point, ...]:
    """Every T with every width, each once; one point that changes nothing where neither is given."""
    found = [Point(t, b) for t in _several(steps) for b in _several(bits)]
    return tuple(dict.fromkeys(found))


def _several(given: int | Sequence[int] | None) -> Sequence[int | None]:
    return [given] if given is None or isinstance(given, int) else given


class Networks:
    """The networks of all points, each made once: kept in files, because they need not fit into memory together."""

    def __init__(self, source: Graph) -> None:
        self.source = source
        self._folder = tempfile.TemporaryDirectory()
        self._files: dict[Point, Path] = {}

    def __enter__(self) -> Networks:
        return self

    def __exit__(self, *caught: object) -> None:
        self._folder.cleanup()

    def __getitem__(self, point: Point) -> Graph:
        if point == Point():
            return self.source
        if point in self._files:
            return bundle.load_graph(self._files[point])
        graph = point.network(self.source)
        path = Path(self._folder.name) / f"{len(self._files)}.qkf"
        bundle.save_graph(graph, path)
        self._files[point] = path
        return graph


class Progress:
    """Tells how far a whole store is while one of its runs is filled."""

    def __init__(self, store: Store, tick: Callable[[Tally], None] | None) -> None:
        self._tick = tick
        self._samples = sum(head.samples for head in store.runs)
        self._stored = [head.samples - len(store.missing(n)) for n, head in enumerate(store.runs)]
        self._before, self._seconds = sum(self._stored), 0.0

    def of(self, run: int) -> Callable[[Tally], None]:
        """What to call with the tally of a run: accuracy is that run's, the rest is of all."""
        start = self._seconds

        def tell(tally: Tally) -> None:
            self._stored[run], self._seconds = tally.stored, start + tally.seconds
            if self._tick is not None:
                stored = sum(self._stored)
                self._tick(
                    replace(
                        tally, samples=self._samples, stored=stored, before=self._before, seconds=self._seconds
                    )
                )  # fmt: skip

        return tell


def joined(store: Store, outcomes: Sequence[Outcome]) -> Outcome:
    """How a whole store ended; where it holds several runs, a loss names its run."""
    if len(outcomes) == 1:
        return outcomes[0]
    tallies = [outcome.tally for outcome in outcomes]
    whole = Tally(
        samples=sum(t.samples for t in tallies),
        stored=sum(t.stored for t in tallies),
        before=sum(t.before for t in tallies),
        failed=sum(t.failed for t in tallies),
        seconds=sum(t.seconds for t in tallies),
    )
    lost = [
        (indices, f"{head.name}: {reason}")
        for head, outcome in zip(store.runs, outcomes, strict=True)
        for indices, reason in outcome.lost
    ]
    return Outcome(whole, tuple(lost), tuple(dict.fromkeys(text for o in outcomes for text in o.notices)))
