"""What is known of a network without weights and images: layers, sizes, dense operations, and who reads whom."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from importlib import resources
from math import ceil
from typing import Any

from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.values import EVENT_KINDS

_FOLDER, _MOST_STEPS = "shapes", 4096
#: Nodes without work that only change the numbers of a drive: what they pass on is what they read.
_PASSING = ("batch_norm", "scale", "shift")


@dataclass(frozen=True)
class LayerShape:
    """One node, per image and time step.

    Attributes:
        name, op: node name and operator kind.
        sources: nodes whose values it reads.
        input_kinds, input_sizes: kind and number of elements of each operand.
        input_bounds: largest value of each operand in the model, ``None`` where it is not bounded.
        output_size: elements of the output.
        timing: of the first operand (``step``, ``constant`` or ``image``).
        dense_macs, border_exact_macs: with and without padding taps.
        bias: outputs to which a bias is added.
        parameters: stored parameters.
        weights: of a convolution or linear layer, those of them that are no bias.
    """

    name: str
    op: str
    sources: tuple[str, ...]
    input_kinds: tuple[str, ...]
    input_sizes: tuple[int, ...]
    input_bounds: tuple[int | None, ...]
    output_size: int
    timing: str
    dense_macs: int
    border_exact_macs: int
    bias: int
    parameters: int
    weights: int

    @property
    def is_synapse(self) -> bool:
        """True for convolutions and linear layers."""
        return self.op in ("conv", "linear")

    @property
    def reads_events(self) -> bool:
        """True if every operand is spikes or counts, of either polarity."""
        return bool(self.input_kinds) and all(kind in EVENT_KINDS for kind in self.input_kinds)


@dataclass(frozen=True)
class NetworkShape:
    """A network without its weights.

    Attributes:
        name: for people.
        time_steps: T.
        layers: in network order.
    """

    name: str
    time_steps: int
    layers: tuple[LayerShape, ...]

    def __iter__(self) -> Iterator[LayerShape]:
        return iter(self.layers)

    def with_time_steps(self, time_steps: int) -> NetworkShape:
        """The same layers for another T. Raises UsageError below 1."""
        if not 1 <= time_steps <= _MOST_STEPS:
            raise UsageError(f"time_steps: {time_steps}", hint=f"use 1 to {_MOST_STEPS}")
        return replace(self, time_steps=time_steps)

    def to_json(self) -> str:
        """One layer a line."""
        rows = [json.dumps(list(vars(layer).values())) for layer in self.layers]
        head = json.dumps({"name": self.name, "time_steps": self.time_steps})
        return head[:-1] + ', "layers": [\n' + ",\n".join(rows) + "\n]}\n"

    @staticmethod
    def from_json(text: str) -> NetworkShape:
        """Inverse of :meth:`to_json`."""
        data = json.loads(text)
        return NetworkShape(data["name"], data["time_steps"], tuple(_layer(row) for row in data["layers"]))


def _layer(row: list[Any]) -> LayerShape:
    named = zip((f.name for f in fields(LayerShape)), row, strict=True)
    values: dict[str, Any] = {name: tuple(cell) if isinstance(cell, list) else cell for name, cell in named}
    return LayerShape(**values)


def network_shape(graph: Graph, name: str = "network") -> NetworkShape:
    """The shape of a graph, float or integer."""
    kept = [node for node in graph if node.op.kind not in ("input", "output", *_PASSING)]
    return NetworkShape(name, graph.time_steps, tuple(_layer_shape(graph, node) for node in kept))


def _layer_shape(graph: Graph, node: Node) -> LayerShape:
    types, factors = graph.input_types(node), graph.input_factors(node)
    cost = node.op.static_cost(types, node.params)
    synapse = "weight" in node.params and node.op.kind in ("conv", "linear")
    return LayerShape(
        name=node.name,
        op="neuron" if node.op.kind == "integer_neuron" else node.op.kind,
        sources=tuple(_origin(graph, operand.node) for operand in node.inputs),
        input_kinds=tuple(t.kind.value for t in types),
        input_sizes=tuple(t.size for t in types),
        input_bounds=tuple(
            None if t.high is None or not t.is_events else ceil(t.high * abs(f))
            for t, f in zip(types, factors, strict=True)
        ),
        output_size=node.type.size,
        timing=(types[0] if types else node.type).timing.value,
        dense_macs=cost.dense_macs,
        border_exact_macs=cost.border_exact_macs,
        bias=node.type.size if synapse and "bias" in node.params else 0,
        parameters=sum(p.size for p in node.params.values()),
        weights=node.params["weight"].size if synapse else 0,
    )


def _origin(graph: Graph, name: str) -> str:
    while graph[name].op.kind in _PASSING:
        name = graph[name].inputs[0].node
    return name


def shape_names() -> tuple[str, ...]:
    """Models whose shape comes with the package."""
    files = (resources.files("qkf_deploy.hw_models") / _FOLDER).iterdir()
    return tuple(sorted(f.name.removesuffix(".json") for f in files if f.name.endswith(".json")))


def model_key(name: str) -> str:
    """How a model of the list of models is called here: small letters, hyphens."""
    return "-".join(name.lower().split())


def load_shape(name: str) -> NetworkShape:
    """The shape of a known model.

    Args:
        name: as `qkf-deploy models` lists it, in any case.

    Raises:
        UsageError: no such model.
    """
    key, names = model_key(name), shape_names()
    if key not in names:
        close = difflib.get_close_matches(key, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(names)}; or give a .qkf file"
        raise UsageError(f"no model {name!r} whose shape is known", hint=hint)
    text = (resources.files("qkf_deploy.hw_models") / _FOLDER / f"{key}.json").read_text(encoding="utf-8")
    return NetworkShape.from_json(text)
