"""What every engine is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger, concatenate

#: Called with (nodes done, nodes in all) while an engine works.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Record:
    """What to keep besides logits and counts.

    Attributes:
        values: nodes whose output is kept.
        membranes: neurons whose charged membrane potential is kept.
    """

    values: frozenset[str] = frozenset()
    membranes: frozenset[str] = frozenset()

    @staticmethod
    def of(graph: Graph, values: Sequence[str] | str = (), membranes: Sequence[str] | str = ()) -> Record:
        """Checked names; ``"all"`` means every node (every neuron).

        Raises:
            GraphError: a name that is not in the graph.
            InputError: membranes of a node that is not a neuron.
        """
        every = [n.name for n in graph if n.op.kind != "input"]
        neurons = {n.name for n in graph if is_neuron(n.op.kind)}
        wanted = every if values == "all" else [graph[n].name for n in values]
        potentials = neurons if membranes == "all" else {graph[n].name for n in membranes}
        for name in potentials - neurons:
            raise InputError("is not a neuron, it has no membrane", where=name)
        return Record(frozenset(wanted), frozenset(potentials))


def is_neuron(kind: str) -> bool:
    """True for both neuron operators."""
    return kind in ("neuron", "integer_neuron")


@dataclass(frozen=True)
class Run:
    """Result of a simulation.

    Attributes:
        logits: ``(B, classes)`` float64 (integer × scale for integer graphs).
        raw_output: the output node's value before scaling, int64 in integer graphs.
        spikes: recorded neuron outputs by name, ``(T, B, *shape)`` of the module's own output shape.
        values: every recorded value by name, ``(T, B, *shape)``, or T = 1 for values constant over time.
        membranes: recorded charged membrane potentials U (before firing and reset), ``(T, B, *shape)``.
        ledger: exact counts per image and layer.
        notices: sentences about the input or the network the user should read.
    """

    logits: np.ndarray
    raw_output: np.ndarray
    ledger: Ledger
    spikes: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    membranes: Mapping[str, np.ndarray] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def join(runs: Sequence[Run]) -> Run:
    """One result of several batches, in order."""
    first = runs[0]
    if len(runs) == 1:
        return first

    def stack(maps: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([m[name] for m in maps], axis=1) for name in maps[0]}

    return Run(
        logits=np.concatenate([r.logits for r in runs], axis=0 if first.logits.ndim == 2 else 1),
        raw_output=np.concatenate([r.raw_output for r in runs], axis=1),
        ledger=concatenate([r.ledger for r in runs]),
        spikes=stack([r.spikes for r in runs]),
        values=stack([r.values for r in runs]),
        membranes=stack([r.membranes for r in runs]),
        notices=tuple(dict.fromkeys(n for r in runs for n in r.notices)),
    )
