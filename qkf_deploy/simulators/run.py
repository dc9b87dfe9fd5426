"""What every engine is given and what it returns."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.overview import ROWS, Overview, SelfDescribing
from qkf_deploy.display.tables import Field, tabulate
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.ir.part import Part, class_part
from qkf_deploy.ledger import Ledger, concatenate
from qkf_deploy.ops import Mask

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame

#: Called with (nodes done, nodes in all) while an engine works.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Record:
    """What to keep besides logits and counts.

    Attributes:
        values: nodes whose output is kept.
        membranes: neurons whose charged membrane potential is kept.
        fired: nodes of which is kept in how many steps each element was not zero.
    """

    values: frozenset[str] = frozenset()
    membranes: frozenset[str] = frozenset()
    fired: frozenset[str] = frozenset()

    @property
    def seen(self) -> Record:
        """What an engine must keep for it."""
        return Record(self.values | self.fired, self.membranes)

    @staticmethod
    def of(graph: Graph, values: Sequence[str] | str = (), membranes: Sequence[str] | str = ()) -> Record:
        """Checked names of nodes; of values also the names of :data:`GROUPS`, of membranes ``"all"``.

        Raises:
            GraphError: a name that is not in the graph.
            InputError: membranes of a node that is not a neuron.
        """
        neurons = [n.name for n in graph if is_neuron(n.op.kind)]
        potentials = _chosen(graph, membranes, {"all": lambda graph: neurons})
        for name in potentials - set(neurons):
            raise InputError("is not a neuron, it has no membrane", where=name)
        return Record(_chosen(graph, values, GROUPS), potentials)


def gate_nodes(graph: Graph) -> tuple[str, ...]:
    """Neurons whose spikes open or close the tokens or channels of another value: the Q-K gates."""
    return tuple(dict.fromkeys(node.inputs[0].node for node in graph if isinstance(node.op, Mask)))


#: Values that are recorded together under one name: every node, every node whose output is events, the Q-K gates.
GROUPS: Mapping[str, Callable[[Graph], Sequence[str]]] = {
    "all": lambda graph: [n.name for n in graph if n.op.kind != "input"],
    "events": lambda graph: [n.name for n in graph if n.type.is_events and n.op.kind not in ("input", "output")],
    "gates": gate_nodes,
}


def _chosen(
    graph: Graph, names: Sequence[str] | str, groups: Mapping[str, Callable[[Graph], Sequence[str]]]
) -> frozenset[str]:
    """Checked node names; a group stands for its nodes, and for a node of its name besides (``all`` has that one)."""
    out: set[str] = set()
    for name in (names,) if isinstance(names, str) else names:
        out.update(groups[name](graph) if name in groups else ())
        if name not in groups or (name in graph.nodes and name != "all"):
            out.add(graph[name].name)
    return frozenset(out)


def is_neuron(kind: str) -> bool:
    """True for both neuron operators."""
    return kind in ("neuron", "integer_neuron")


def last_uses(graph: Graph, also: Mapping[str, Collection[str]] | None = None) -> dict[int, list[str]]:
    """Values that are not read after the node at each position.

    Args:
        graph: what runs.
        also: values that a node reads besides its operands.
    """
    last = {name: index for index, name in enumerate(graph.nodes)}
    for index, node in enumerate(graph):
        for name in (*(o.node for o in node.inputs), *(also or {}).get(node.name, ())):
            last[name] = index
    out: dict[int, list[str]] = {}
    for name, index in last.items():
        out.setdefault(index, []).append(name)
    return out


@dataclass(frozen=True, repr=False)
class Run(SelfDescribing):
    """Result of a simulation.

    Attributes:
        logits: the output, float64 (integer × scale for integer graphs): ``(B, classes)``, ``(B, *shape)`` for a map or
            a single number, with a leading T for a network without readout.
        raw_output: the output node's value before scaling, ``(1, B, *shape)`` or ``(T, B, *shape)``, int64 in integer
            graphs.
        spikes: recorded neuron outputs by name, ``(T, B, *shape)`` of the module's own output shape.
        values: every recorded value by name, ``(T, B, *shape)``, or T = 1 for values constant over time.
        membranes: recorded charged membrane potentials U (before firing and reset), ``(T, B, *shape)``.
        fired: recorded numbers of steps in which an element was not zero, ``(B, *shape)``.
        ledger: exact counts per image and layer.
        notices: sentences about the input or the network the user should read.
        parts: the outputs, where there are several: they lie side by side in the logits.
    """

    logits: np.ndarray
    raw_output: np.ndarray
    ledger: Ledger
    spikes: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    membranes: Mapping[str, np.ndarray] = field(default_factory=dict)
    fired: Mapping[str, np.ndarray] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()

    def keeping(self, record: Record) -> Run:
        """What a record asks for, of a run in which all of that was kept."""
        fired = {name: np.count_nonzero(self.values[name], axis=0) for name in record.fired}
        values, spikes = ({n: v for n, v in m.items() if n in record.values} for m in (self.values, self.spikes))
        return replace(self, values=values, spikes=spikes, fired=fired)

    @property
    def named_outputs(self) -> Mapping[str, np.ndarray]:
        """Every output by name, ``(B, *shape)``; ``output`` where there is one."""
        return {part.name: part.of(self.outputs) for part in self.parts} or {"output": self.outputs}

    @property
    def _classes(self) -> Part | None:
        """The output that is one number per class: the first such one."""
        return class_part(self.parts, self.output_shape)

    @property
    def classifies(self) -> bool:
        """True if an output is one number per class: a vector (axes of size 1 aside), not a map or a single number."""
        return self._classes is not None

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output of one image and step."""
        return self.raw_output.shape[2:]

    @property
    def outputs(self) -> np.ndarray:
        """``(B, *shape)``: the logits, summed over time steps where the network has no readout."""
        return self.logits if self.logits.ndim == self.raw_output.ndim - 1 else self.logits.sum(axis=0)

    @property
    def class_logits(self) -> np.ndarray:
        """``(B, classes)``: the logits, of several outputs the first that is one number per class; summed over time
        steps where the network has no readout.

        Raises:
            InputError: no output is one number per class.
        """
        part = self._classes
        if part is None:
            shapes = " and ".join(str(p.shape) for p in self.parts) or self.output_shape
            raise InputError(f"the network's output has the shape {shapes}, not one number per class")
        flat = self.outputs.reshape(len(self.outputs), math.prod(self.output_shape))
        return part.of(flat).reshape(len(flat), part.size)

    @property
    def predicted(self) -> np.ndarray:
        """Index of the largest logit per image (the first among equals), int64 ``(B,)``."""
        return self.class_logits.argmax(axis=-1)

    def accuracy(self, labels: Sequence[int] | np.ndarray) -> float:
        """Share of the images whose largest logit is that of their label.

        Args:
            labels: class index of every image, integers ``(B,)``.

        Raises:
            InputError: not one integer per image, a label that is no class, logits that are not finite, no image, an
                output that is not one number per class.
        """
        logits = self.class_logits
        given = _checked_labels(labels, *logits.shape)
        broken = np.flatnonzero(~np.isfinite(logits).all(axis=-1))
        if len(broken):
            raise InputError(
                f"the logits of image {broken[0]} are not finite", hint="look for it in the model's output"
            )
        return int((logits.argmax(axis=-1) == given).sum()) / len(given)

    def overview(self) -> Overview:
        """Headline, the best classes of the first images, what was recorded, notices."""
        images = self.ledger.images
        facts = (f"{self.ledger.arithmetic} network", f"T = {self.ledger.time_steps}", quantity(images, "image"))
        several = ", ".join(f"{part.name} {' x '.join(map(str, part.shape))}" for part in self.parts)
        shape = several or " x ".join(map(str, self.output_shape)) or "of one number"
        fields: list[Field[int]] = [Field("image", "image", lambda i: i), *_ranking(self)]
        more = (f"the first {ROWS} images of {images:,}",) if images > ROWS else ()
        recorded = [
            f"recorded {kind} of {quantity(len(found), 'node')}: {', '.join(found)}"
            for kind, found in (("values", self.values), ("membranes", self.membranes))
            if found
        ]
        return Overview(
            ", ".join(("run", *facts, f"output {shape}")),
            tabulate("", fields, range(min(images, ROWS))),
            (*more, *recorded, "exact counts per layer: .ledger", *self.notices),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: predicted classes, logits, counts, notices. Recorded arrays stay out."""
        return {
            "predicted": self.predicted.tolist() if self.classifies else None,
            "logits": self.logits.tolist(),
            **({"outputs": {n: v.tolist() for n, v in self.named_outputs.items()}} if self.parts else {}),
            "ledger": self.ledger.to_dict(),
            "notices": list(self.notices),
        }

    def to_pandas(self) -> DataFrame:
        """One row per image: ``predicted`` class, ``logit_0``, ``logit_1`` ...

        Raises:
            InputError: the output is not one number per class.
            MissingComponent: pandas is not installed.
        """
        names = ("image", "predicted", *(f"logit_{c}" for c in range(self.class_logits.shape[1])))
        rows = zip(self.predicted.tolist(), self.class_logits.tolist(), strict=True)
        records = [dict(zip(names, (i, best, *row), strict=True)) for i, (best, row) in enumerate(rows)]
        return data_frame(records, names, time_steps=self.ledger.time_steps)


def _ranking(run: Run) -> list[Field[int]]:
    """Columns: the three largest logits of an image and their classes; none for an output that is a map."""
    if not run.classifies:
        return []
    logits = run.class_logits
    best = np.argsort(-logits, axis=-1, kind="stable")

    def place(p: int) -> tuple[Field[int], Field[int]]:
        return (
            Field(f"class_{p + 1}", f"#{p + 1}", lambda i: int(best[i, p])),
            Field(f"logit_{p + 1}", "logit", lambda i: float(logits[i, best[i, p]]), "{:.4g}".format),
        )

    return [field for p in range(min(3, logits.shape[1])) for field in place(p)]


def _checked_labels(labels: Sequence[int] | np.ndarray, images: int, classes: int) -> np.ndarray:
    try:
        given = np.asarray(labels)
    except ValueError as error:
        raise InputError("labels cannot be read as an array", hint="one integer class index per image") from error
    if given.shape != (images,) or not np.issubdtype(given.dtype, np.integer):
        raise InputError(
            f"labels are {given.dtype} of shape {given.shape}, the run has {quantity(images, 'image')}",
            hint="one integer class index per image",
        )
    if not images:
        raise InputError("a run without images has no accuracy")
    for index in np.flatnonzero((given < 0) | (given >= classes)):
        raise InputError(
            f"label {given[index]} of image {index} is not a class", hint=f"classes are 0 to {classes - 1}"
        )
    return given


_Engine = TypeVar("_Engine", bound=Callable[..., Run])


def keeps_fired(run: _Engine) -> _Engine:
    """An engine's ``run`` that knows :attr:`Record.fired` too, of one that knows the values themselves."""

    @functools.wraps(run)
    def engine(graph: Graph, inputs: np.ndarray, record: Record = Record(), *more: Any, **options: Any) -> Run:
        if not record.fired:
            return run(graph, inputs, record, *more, **options)
        return run(graph, inputs, record.seen, *more, **options).keeping(record)

    return cast(_Engine, engine)


def join(runs: Sequence[Run]) -> Run:
    """One result of several batches, in order."""
    first = runs[0]
    if len(runs) == 1:
        return first

    def stack(maps: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([m[name] for m in maps], axis=1) for name in maps[0]}

    return Run(
        logits=np.concatenate([r.logits for r in runs], axis=0 if first.logits.ndim < first.raw_output.ndim else 1),
        raw_output=np.concatenate([r.raw_output for r in runs], axis=1),
        ledger=concatenate([r.ledger for r in runs]),
        spikes=stack([r.spikes for r in runs]),
        values=stack([r.values for r in runs]),
        membranes=stack([r.membranes for r in runs]),
        fired={name: np.concatenate([r.fired[name] for r in runs]) for name in first.fired},
        notices=tuple(dict.fromkeys(n for r in runs for n in r.notices)),
        parts=first.parts,
    )
