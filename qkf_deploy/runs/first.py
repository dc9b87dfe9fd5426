"""What is shown of the first samples: the input itself, its Q-K gates, and neurons that never or always fire."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.runs.gates import gate_pictures
from qkf_deploy.simulators.engines import Engine
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record, Run, gate_nodes, is_neuron, join

#: Samples that are looked at, at most.
SAMPLES = 16
#: Neuron outputs that are looked at, at most; the first sample is looked at up to ``_LARGEST``.
_OUTPUTS, _LARGEST = 2**24, 2**26
#: Neuron outputs that are kept at a time (int64): of a large network a few layers, and as many runs.
_KEPT = 2**23
#: Pixels and channels of an input that is kept.
_PIXELS, _CHANNELS = 2**20, 4
#: Classes of firing rates: never, ten tenths of (0, 1), always.
RATES = 12


@dataclass(frozen=True)
class Shown:
    """What a page shows of the first samples.

    Attributes:
        gates: see :func:`qkf_deploy.runs.gates.gate_pictures`.
        input: see :func:`input_picture`; ``None`` where the input is no picture.
        activity: see :func:`activity`; empty where it was not looked at.
    """

    gates: tuple[Mapping[str, Any], ...] = ()
    input: Mapping[str, Any] | None = None
    activity: tuple[Mapping[str, Any], ...] = ()

    @staticmethod
    def of(tables: Sequence[Mapping[str, Any]]) -> Shown:
        """From what :meth:`tables` gave."""
        parts: dict[str, list[Mapping[str, Any]]] = {"gate": [], "input": [], "activity": []}
        for table in tables:
            kind = table.get("shows", "gate") if isinstance(table, Mapping) else ""
            if kind not in parts:
                raise InputError("a damaged run file: gates")
            parts[kind].append(table)
        return Shown(tuple(parts["gate"]), next(iter(parts["input"]), None), tuple(parts["activity"]))

    def tables(self) -> list[Mapping[str, Any]]:
        """All of it as one list of plain data."""
        return [*self.gates, *([self.input] if self.input else []), *self.activity]


def look(graph: Graph, engine: Engine, array: np.ndarray, together: int) -> Shown:
    """Run the first samples once more, with what their neurons do kept.

    Args:
        graph: the network.
        engine: what runs it.
        array: the first samples as :func:`encode` takes them, at least one.
        together: how many of them run together, at most.
    """
    sizes = {node.name: node.type.size * graph.time_steps for node in graph if is_neuron(node.op.kind)}
    outputs = sum(sizes.values())
    count = max(1, min(SAMPLES, len(array), _OUTPUTS // max(outputs, 1)))
    inputs, all_of_them = encode(graph, array[:count])[0], outputs * count <= _LARGEST
    gates: list[Mapping[str, Any]] = []
    seen: list[Mapping[str, Any]] = []
    for kept in _groups(sizes, _KEPT // count) if all_of_them else [list(gate_nodes(graph))]:
        record = Record(frozenset(kept) & frozenset(gate_nodes(graph)), fired=frozenset(kept))
        run = join([engine(graph, inputs[:, at : at + together], record, None) for at in range(0, count, together)])
        gates += gate_pictures(graph, run)
        seen += activity(graph, run) if all_of_them else []
        del run  # what it keeps, before the next one keeps as much
    return Shown(tuple(gates), input_picture(array[0]), tuple(seen))


def _groups(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names, in order, whose sizes add up to ``most`` at most; one that is larger alone."""
    groups: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if groups[-1] and held + size > most:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def input_picture(sample: np.ndarray) -> dict[str, Any] | None:
    """One input as bytes: pixels as they are, others from their smallest to their largest value.

    Args:
        sample: ``(C, H, W)``, or event frames ``(T, C, H, W)``, whose counts are added up.

    Returns:
        ``shape`` (C, H, W), ``pixels`` (base64 of its bytes), ``events`` and ``scaled``; ``None`` for an input of
        another rank, of too many channels or of too many pixels.
    """
    events = sample.ndim == 4
    picture = sample.sum(axis=0, dtype=np.int64) if events else sample
    if picture.ndim != 3 or picture.shape[0] > _CHANNELS or not 0 < picture.size <= _PIXELS:
        return None
    scaled = picture.dtype != np.uint8
    if scaled:
        low, high = (0, picture.max()) if events else (picture.min(), picture.max())
        picture = np.rint((picture - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    pixels = base64.b64encode(np.ascontiguousarray(picture).tobytes()).decode()
    return {"shows": "input", "shape": list(picture.shape), "pixels": pixels, "events": events, "scaled": scaled}


def activity(graph: Graph, run: Run) -> list[dict[str, Any]]:
    """How often each neuron fired, as a histogram per layer.

    Returns:
        Per recorded neuron layer: ``node``, ``images``, ``neurons``, and ``rates``: neurons that never fired, by tenths
        of their firing rate, and that fired at every step of every image.
    """
    found: list[dict[str, Any]] = []
    for name, steps in run.fired.items():
        if not is_neuron(graph[name].op.kind):
            continue
        fired = steps.sum(axis=0).ravel()
        most = graph.time_steps * len(steps)
        tenth = np.minimum(fired * 10 // most, 9) + 1
        tenth[fired == 0], tenth[fired == most] = 0, RATES - 1
        rates = np.bincount(tenth, minlength=RATES).tolist()
        found.append({"shows": "activity", "node": name, "images": len(steps), "neurons": len(fired), "rates": rates})
    order = {name: place for place, name in enumerate(graph.nodes)}
    return sorted(found, key=lambda row: order[row["node"]])


def pixels(picture: Mapping[str, Any]) -> np.ndarray:
    """The bytes of :func:`input_picture`, ``(C, H, W)`` uint8.

    Raises:
        InputError: they are not as many as the shape says.
    """
    shape = tuple(picture["shape"])
    try:
        found = np.frombuffer(base64.b64decode(picture["pixels"], validate=True), dtype=np.uint8)
    except ValueError as error:
        raise InputError("a damaged run file: the picture of the input") from error
    if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape) or math.prod(shape) != found.size:
        raise InputError("a damaged run file: the picture of the input")
    return found.reshape(shape)
