"""A stock NIR graph on its way to a graph; what each NIR type becomes is in ``synapses.py`` and ``spiking.py``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from qkf_deploy.converters.nir.dialects import Dialect
from qkf_deploy.converters.nir.flat import FlatGraph, refuse_marker
from qkf_deploy.converters.nir.parameters import per_channel
from qkf_deploy.converters.nir.safety import RawNode
from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import GraphError, InputError, UnsupportedError
from qkf_deploy.ir import Graph, GraphBuilder, Operand, Operator, View, compose, freeze
from qkf_deploy.ops import Add, Conv, Linear, Neuron, Output, Readout, Scale

#: Largest number of elements of one value; a file cannot make an engine allocate more per image and step.
MAX_VALUE = 2**28

Encoding = Literal["direct", "frames"]


@dataclass
class Raising:
    """One NIR graph on its way to a graph.

    Attributes:
        source: what is read.
        dialect: how its neurons are read.
        table: what each NIR type becomes.
        pending: per NIR node, factors of its value that the synapses reading it take into their weights.
        prefix: per graph node, what it gives out before the first step, ``(steps, *shape)``, where spikes leave a layer
            a step late: the layers behind have then run without an image for as many steps.
    """

    source: FlatGraph
    dialect: Dialect
    table: Mapping[str, Raise]
    builder: GraphBuilder = field(default_factory=GraphBuilder)
    values: dict[str, Operand] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    pending: dict[str, np.ndarray] = field(default_factory=dict)
    prefix: dict[str, np.ndarray] = field(default_factory=dict)
    encoding: Encoding = "direct"

    @property
    def dt(self) -> float:
        """Time step in seconds."""
        return self.dialect.dt or 1.0

    def graph(self, time_steps: int, encoding: Encoding, readout: bool) -> Graph:
        """The verified float graph.

        Raises:
            InputError: no or several inputs or outputs, shapes that do not fit.
            UnsupportedError: nodes without a meaning here, all listed.
        """
        if not 1 <= time_steps <= 4096:
            raise InputError(f"time_steps is {time_steps}, must be 1 to 4096")
        self.encoding = encoding
        for kind in ("Input", "Output"):
            self._outermost(kind)
        self._raise_all()
        self._finish(time_steps, readout)
        built = self.builder.build(time_steps=time_steps, input_encoding=encoding)
        provenance: dict[str, Any] = {"source": "NIR", "nir": self.source.version, "dt_s": self.dt}
        return Graph(
            built.nodes, time_steps, encoding, "float", provenance={**provenance, "neurons": self.dialect.tool},
            notices=tuple(dict.fromkeys(self.notices)),
        ).verify()  # fmt: skip

    def _outermost(self, kind: str) -> str:
        ends = [n for n, node in self.source.nodes.items() if node.type == kind and self._is_end(n, kind)]
        if len(ends) != 1:
            raise InputError(f"{len(ends)} {kind.lower()} nodes; exactly one is read")
        return ends[0]

    def _is_end(self, name: str, kind: str) -> bool:
        return not (self.source.sources[name] if kind == "Input" else self.source.readers(name))

    def _raise_all(self) -> None:
        problems: list[str] = []
        for name, node in self.source.nodes.items():
            sources = self.source.sources[name]
            if any(s not in self.values for s in sources):
                continue  # behind a node that was refused
            try:
                if node.type not in self.table:
                    raise UnsupportedError(f"a node of type {node.type[:60]!r} has no meaning here")
                refuse_marker(node.metadata, name)
                self.values[name] = self.table[node.type](self, name, node)
                size = math.prod(self.shape(self.values[name]))
                if size > MAX_VALUE:
                    raise InputError(f"a value of {size} elements per image and step, at most {MAX_VALUE}", where=name)
            except UnsupportedError as error:
                problems.append(f"{name} ({node.type[:60]}): {error.message}")
            except GraphError as error:
                raise GraphError(error.message, where=name, hint=error.hint) from error
        if problems:
            raise UnsupportedError("this NIR file cannot be read here:\n  " + "\n  ".join(problems))

    def _finish(self, time_steps: int, readout: bool) -> None:
        last = self.values[self._outermost("Output")]
        late = len(self.prefix.get(last.node, ()))
        if late:
            self.notices.append(
                f"{self.dialect.tool} hands spikes on one step late per layer: step t of this network is its step "
                f"t + {late}; not run here: its first {quantity(late, 'step')}, which no image has reached"
            )
        if readout:
            last = self.add("readout", Readout(), last)
            last = self.add("readout.mean", Scale(1.0 / time_steps), last)
        self.add("output.logits", Output(), last)

    def operand(self, name: str) -> Operand:
        """What enters a NIR node: the sum of its sources."""
        sources = self.source.sources[name]
        if not sources:
            raise InputError("nothing feeds this node", where=name)
        total = self.values[sources[0]]
        for index, other in enumerate(sources[1:], start=1):
            total = self._node(f"{name}.join{index}", Add(), [total, self.values[other]], {})
        return total

    def shape(self, value: Operand) -> tuple[int, ...]:
        """Shape of a graph value as it is read."""
        return self.builder.nodes[value.node].type.shape if value.view is None else value.view.shape

    def add(self, name: str, op: Operator, value: Operand, **params: np.ndarray) -> Operand:
        """Append a graph node with one input."""
        return self._node(name, op, [value], params)

    def _node(self, name: str, op: Operator, operands: list[Operand], params: dict[str, np.ndarray]) -> Operand:
        before = [self._before(o) for o in operands]
        if len({len(p) for p in before}) != 1:
            raise UnsupportedError("branches of different depth meet, and spikes leave every layer a step late")
        steps = len(before[0])
        if isinstance(op, Neuron) and self.dialect.late:
            self.prefix[name], params = _late(op, before[0], params)
        elif steps and not isinstance(op, Readout | Output):
            self.prefix[name] = op.run([p[:, None] for p in before], freeze(params), steps)[:, 0]
        return Operand(self.builder.add(name, op, operands, params))

    def _before(self, value: Operand) -> np.ndarray:
        """What a value is before the first step, ``(steps, *shape)``; no steps where nothing is late."""
        prefix = self.prefix.get(value.node)
        if prefix is None:
            return np.zeros((0, *self.shape(value)))
        return prefix if value.view is None else value.view.apply(prefix, lead=1)

    def flattened(self, value: Operand, shape: tuple[int, ...], order: Sequence[int] | None = None) -> Operand:
        """A value read in another shape of the same size, its axes in another ``order`` first."""
        before = self.shape(value)
        return Operand(value.node, compose(value.view, View.of(before, order or range(len(before)), shape)))

    def affine(self, name: str, value: Operand, factor: np.ndarray, shift: np.ndarray, reader: str) -> Operand:
        """``factor * value + shift``, within the synapse that makes the value where only one NIR node reads it.

        Args:
            name: for a graph node, where one is needed.
            value: what is multiplied.
            factor, shift: of the value's shape.
            reader: the NIR node whose only input the value is.

        Raises:
            UnsupportedError: no synapse takes it, and it differs within a channel.
        """
        if (factor == 1).all() and not shift.any():
            return value
        if self._into_synapse(value, factor, shift, reader):
            return value
        if (factor == factor.flat[0]).all() and not shift.any():
            return self.add(name, Scale(float(factor.flat[0])), value)
        shape = self.shape(value)
        factors, shifts = per_channel(factor), per_channel(shift)
        if len(shape) > 3 or factors is None or shifts is None:
            raise UnsupportedError("parameters that differ within a channel, behind no synapse that could take them")
        image: tuple[int, ...] = shape if len(shape) > 1 else (*shape, 1)
        ones = (1,) * (len(image) - 1)
        params = {"weight": factors.reshape(-1, 1, *ones)} | ({"bias": shifts} if shifts.any() else {})
        op = Conv(ones, (0,) * len(ones), ones, groups=image[0])
        return self.flattened(self.add(name, op, self.flattened(value, image), **params), shape)

    def _into_synapse(self, value: Operand, factor: np.ndarray, shift: np.ndarray, reader: str) -> bool:
        node = self.builder.nodes[value.node]
        if not isinstance(node.op, Conv | Linear) or not self._only(value, reader):
            return False
        uniform = (factor == factor.flat[0]).all() and not shift.any()
        if value.view is not None and not uniform:
            return False
        axis = 0 if isinstance(node.op, Conv) or value.view is not None else factor.ndim - 1
        factors, shifts = per_channel(factor, axis), per_channel(shift, axis)
        if factors is None or shifts is None:
            return False
        weight = node.params["weight"]
        if uniform:
            factors, shifts = np.full(len(weight), factors[0]), np.zeros(len(weight))
        bias = node.params.get("bias", np.zeros(len(weight))) * factors + shifts
        params = {"weight": weight * factors.reshape(-1, *[1] * (weight.ndim - 1))}
        self.builder.nodes[node.name] = replace(node, params=freeze(params | ({"bias": bias} if bias.any() else {})))
        if value.node in self.prefix:
            self.prefix[value.node] = self.prefix[value.node] * (factor.flat[0] if uniform else factor) + (
                0.0 if uniform else shift
            )
        return True

    def _only(self, value: Operand, reader: str) -> bool:
        """True if a NIR node is all that reads a value, passing nodes between them left out."""
        name = reader
        while len(self.source.sources[name]) == 1:
            (name,) = self.source.sources[name]
            if len(self.source.readers(name)) != 1 or self.values[name].node != value.node:
                return False
            if self.source.nodes[name].type in ("Conv1d", "Conv2d", "Linear", "Affine"):
                return True
        return False


def _late(op: Neuron, drive: np.ndarray, params: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Spikes of a layer before the first step, and its parameters with the membrane that is left then.

    A membrane that passes the threshold in one step gives its spike in the next, and none in the very first.
    """
    steps, inputs = len(drive), [drive[:, None]]
    silent = np.zeros((1, *drive.shape[1:]))
    if not steps:
        return silent, params
    spikes = op.run(inputs, freeze(params), steps)[:, 0]
    left = op.leftovers(inputs, freeze(params), steps)[-1, 0]
    return np.concatenate([silent, spikes]), {**params, "initial": left}


Raise = Callable[[Raising, str, RawNode], Operand]
