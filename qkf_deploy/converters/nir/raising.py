"""Stock NIR nodes to operators of the graph: one function per NIR type, in the table :data:`RAISINGS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from qkf_deploy.converters.nir.flat import FlatGraph, refuse_marker
from qkf_deploy.converters.nir.safety import RawNode
from qkf_deploy.errors import GraphError, InputError, UnsupportedError
from qkf_deploy.ir import Graph, GraphBuilder, Operand, Operator, View, compose
from qkf_deploy.ops import Add, Conv, Input, Linear, Neuron, Output, Readout, Scale, SumPool

#: Largest number of elements of one value; a file cannot make an engine allocate more per image and step.
_MAX_VALUE = 2**28
_CLOSE = 1e-6


@dataclass
class Raising:
    """One NIR graph on its way to a graph.

    Attributes:
        source: what is read.
        dt: time step in seconds.
        fires: see :class:`qkf_deploy.converters.nir.read.ImportOptions`.
    """

    source: FlatGraph
    dt: float
    fires: Literal["above", "at"]
    builder: GraphBuilder = field(default_factory=GraphBuilder)
    values: dict[str, Operand] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    encoding: Literal["direct", "frames"] = "direct"

    def graph(self, time_steps: int, encoding: Literal["direct", "frames"], readout: bool) -> Graph:
        """The verified float graph.

        Raises:
            InputError: no or several inputs or outputs, shapes that do not fit.
            UnsupportedError: nodes without a meaning here, all listed.
        """
        if not 1 <= time_steps <= 4096:
            raise InputError(f"time_steps is {time_steps}, must be 1 to 4096")
        if not (math.isfinite(self.dt) and self.dt > 0):
            raise InputError(f"dt is {self.dt}, must be a positive number of seconds")
        self.encoding = encoding
        for kind in ("Input", "Output"):
            self._outermost(kind)
        self._raise_all()
        self._finish(time_steps, readout)
        built = self.builder.build(time_steps=time_steps, input_encoding=encoding)
        return Graph(
            built.nodes, time_steps, encoding, "float", provenance={"source": "NIR"},
            notices=tuple(dict.fromkeys(self.notices)),
        ).verify()  # fmt: skip

    def _outermost(self, kind: str) -> str:
        ends = [n for n, node in self.source.nodes.items() if node.type == kind and self._is_end(n, kind)]
        if len(ends) != 1:
            raise InputError(f"{len(ends)} {kind.lower()} nodes; exactly one is read")
        return ends[0]

    def _is_end(self, name: str, kind: str) -> bool:
        read = {s for sources in self.source.sources.values() for s in sources}
        return not self.source.sources[name] if kind == "Input" else name not in read

    def _raise_all(self) -> None:
        problems: list[str] = []
        for name, node in self.source.nodes.items():
            sources = self.source.sources[name]
            if any(s not in self.values for s in sources):
                continue  # behind a node that was refused
            try:
                if node.type not in RAISINGS:
                    raise UnsupportedError(f"a node of type {node.type[:60]!r} has no meaning here")
                refuse_marker(node.metadata, name)
                self.values[name] = RAISINGS[node.type](self, name, node)
                size = math.prod(self.shape(self.values[name]))
                if size > _MAX_VALUE:
                    raise InputError(f"a value of {size} elements per image and step, at most {_MAX_VALUE}", where=name)
            except UnsupportedError as error:
                problems.append(f"{name} ({node.type[:60]}): {error.message}")
            except GraphError as error:
                raise GraphError(error.message, where=name, hint=error.hint) from error
        if problems:
            raise UnsupportedError("this NIR file cannot be read here:\n  " + "\n  ".join(problems))

    def _finish(self, time_steps: int, readout: bool) -> None:
        last = self.values[self._outermost("Output")]
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
            total = Operand(self.builder.add(f"{name}.join{index}", Add(), [total, self.values[other]]))
        return total

    def shape(self, value: Operand) -> tuple[int, ...]:
        """Shape of a graph value as it is read."""
        return self.builder.nodes[value.node].type.shape if value.view is None else value.view.shape

    def add(self, name: str, op: Operator, value: Operand, **params: np.ndarray) -> Operand:
        """Append a graph node with one input."""
        return Operand(self.builder.add(name, op, [value], params))

    def flattened(self, value: Operand, shape: tuple[int, ...]) -> Operand:
        """A value read in another shape of the same size."""
        before = self.shape(value)
        return Operand(value.node, compose(value.view, View.of(before, range(len(before)), shape)))


def _array(node: RawNode, name: str, where: str) -> np.ndarray:
    value = node.params.get(name)
    if not isinstance(value, np.ndarray):
        raise InputError(f"the parameter {name!r} is missing or not a number", where=where)
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise InputError(f"the parameter {name!r} is not finite", where=where)
    return value


def _uniform(node: RawNode, name: str, where: str) -> float:
    values = np.unique(_array(node, name, where))
    if values.size != 1:
        raise UnsupportedError(f"{name} differs between neurons; a float neuron here has one value for all")
    return float(values[0])


def _ints(node: RawNode, name: str, rank: int, where: str) -> tuple[int, ...]:
    values = _array(node, name, where).reshape(-1)
    whole = np.rint(values)
    if values.size not in (1, rank) or (whole != values).any() or (np.abs(whole) > 2**20).any():
        raise InputError(f"{name} is {values[:4].tolist()}, not {rank} whole numbers", where=where)
    return tuple(int(v) for v in np.broadcast_to(whole, (rank,)))


def _input(r: Raising, name: str, node: RawNode) -> Operand:
    if r.source.sources[name]:  # the entry of a nested graph
        return r.operand(name)
    shape = tuple(int(n) for n in _array(node, "shape", name).reshape(-1))
    if not shape or min(shape) < 1 or math.prod(shape) > _MAX_VALUE or len(shape) > 6:
        raise InputError(f"an input of shape {shape[:8]}", where=name)
    return Operand(r.builder.add(name, Input(shape, format="frames" if r.encoding == "frames" else "real")))


def _pass(r: Raising, name: str, node: RawNode) -> Operand:
    return r.operand(name)


def _conv(r: Raising, name: str, node: RawNode) -> Operand:
    rank = 1 if node.type == "Conv1d" else 2
    weight = _array(node, "weight", name).astype(np.float64)
    if weight.ndim != rank + 2 or 0 in weight.shape:
        raise InputError(f"weights of shape {weight.shape}", where=name)
    stride, dilation = (_ints(node, k, rank, name) for k in ("stride", "dilation"))
    (groups,) = _ints(node, "groups", 1, name)
    if min(*stride, *dilation, groups) < 1:
        raise InputError("a stride, dilation or number of groups below 1", where=name)
    op = Conv(stride, _padding(node, weight, dilation, stride, name), dilation, groups)
    return r.add(name, op, r.operand(name), weight=weight, **_bias(node, name))


def _padding(
    node: RawNode, weight: np.ndarray, dilation: tuple[int, ...], stride: tuple[int, ...], where: str
) -> tuple[int, ...]:
    rank, padding = len(dilation), node.params.get("padding")
    if isinstance(padding, str) and padding == "valid":
        return (0,) * rank
    if isinstance(padding, str) and padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(n % 2 for n in reach) or max(stride) > 1:
            raise UnsupportedError("'same' padding of an even window is not symmetric")
        return tuple(n // 2 for n in reach)
    padded = _ints(node, "padding", rank, where)
    if min(padded) < 0:
        raise InputError(f"a padding of {min(padded)}", where=where)
    return padded


def _bias(node: RawNode, where: str) -> dict[str, np.ndarray]:
    if "bias" not in node.params:
        return {}
    bias = _array(node, "bias", where).astype(np.float64).reshape(-1)
    return {"bias": bias} if bias.any() else {}


def _linear(r: Raising, name: str, node: RawNode) -> Operand:
    weight = _array(node, "weight", name).astype(np.float64)
    value = r.operand(name)
    shape = r.shape(value)
    if weight.ndim != 2 or 0 in weight.shape:
        raise InputError(f"weights of shape {weight.shape}", where=name)
    if shape[-1] != weight.shape[1] and math.prod(shape) == weight.shape[1]:
        r.notices.append(f"{name}: reads a value of shape {shape} flattened")
        value = r.flattened(value, (weight.shape[1],))
    return r.add(name, Linear(), value, weight=weight, **_bias(node, name))


def _flatten(r: Raising, name: str, node: RawNode) -> Operand:
    value = r.operand(name)
    shape = r.shape(value)
    (start,), (end,) = (_ints(node, k, 1, name) for k in ("start_dim", "end_dim"))
    first, last = (d + len(shape) if d < 0 else d for d in (start, end))
    if not 0 <= first < len(shape) or last >= len(shape):
        # Tools that count the batch axis say 1..-1 for a whole sample.
        first, last = max(first - 1, 0), len(shape) - 1
        if first > last:
            raise InputError(f"start_dim {start} and end_dim {end} for values of shape {shape}", where=name)
    if first >= last:
        return value
    return r.flattened(value, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


def _pool(r: Raising, name: str, node: RawNode) -> Operand:
    kernel, stride, padding = (_ints(node, k, 2, name) for k in ("kernel_size", "stride", "padding"))
    if min(*kernel, *stride) < 1 or min(padding) < 0:
        raise InputError("a pooling window, stride or padding below its minimum", where=name)
    value = r.add(name, SumPool(kernel, stride, padding), r.operand(name))
    if node.type == "SumPool2d":
        return value
    return r.add(f"{name}.mean", Scale(1.0 / math.prod(kernel)), value)


def _scale(r: Raising, name: str, node: RawNode) -> Operand:
    factor, value = _array(node, "scale", name).astype(np.float64), r.operand(name)
    if np.unique(factor).size == 1:
        return r.add(name, Scale(float(factor.flat[0])), value)
    return _per_channel(r, name, factor, value, name)


def _per_channel(r: Raising, name: str, factor: np.ndarray, value: Operand, where: str) -> Operand:
    """A depthwise 1x1 convolution that multiplies every channel with its own factor."""
    shape = r.shape(value)
    try:
        full = np.broadcast_to(factor, shape)
    except ValueError:
        raise InputError(f"parameters of shape {factor.shape} for values of shape {shape}", where=where) from None
    per_channel = full.reshape(shape[0], -1)
    if len(shape) not in (2, 3) or (per_channel != per_channel[:, :1]).any():
        raise UnsupportedError("parameters that differ within a channel")
    ones = (1,) * (len(shape) - 1)
    weight = per_channel[:, 0].reshape(-1, 1, *ones)
    return r.add(name, Conv(ones, (0,) * len(ones), ones, groups=shape[0]), value, weight=weight)


def _threshold(r: Raising, name: str, node: RawNode) -> Operand:
    value = r.operand(name)
    level = _uniform(node, "threshold", name)
    if not (r.builder.nodes[value.node].type.is_events and 0 <= level < 1):
        raise UnsupportedError("a threshold without memory; only an OR of spikes has a neuron here that does the same")
    return r.add(name, Neuron(None, 1.0, 0.0), value)


@dataclass(frozen=True)
class _Levels:
    """Threshold and reset of a neuron; ``divisor`` per neuron where thresholds differ (then V_th is 1)."""

    threshold: float
    reset: float
    divisor: np.ndarray | None = None


def _levels(r: Raising, node: RawNode, where: str) -> _Levels:
    """NIR fires above V_th, this network at V_th: so V_th becomes the next number of its own type.

    Thresholds that differ between neurons are divided out of the drive, which changes no spike for a reset to zero.
    """
    stored = _array(node, "v_threshold", where)
    if r.fires == "above":
        kind = stored.dtype if stored.dtype.kind == "f" else np.dtype(np.float64)
        stored = np.nextafter(stored.astype(kind), np.array(np.inf, kind))
    stored = stored.astype(np.float64)
    reset = _uniform(node, "v_reset", where) if "v_reset" in node.params else 0.0
    if not stored.min() > reset:
        raise UnsupportedError("a threshold that is not above the reset voltage")
    if np.unique(stored).size == 1:
        return _Levels(float(stored.flat[0]), reset)
    if reset != 0:
        raise UnsupportedError("thresholds that differ between neurons, with a reset that is not to zero")
    return _Levels(1.0, 0.0, stored)


def _fed(r: Raising, name: str, gain: float, levels: _Levels) -> Operand:
    """What enters a neuron, times a gain and over the divisor where there are any."""
    value = r.operand(name)
    gain = 1.0 if abs(gain - 1.0) <= _CLOSE else gain
    if gain == 0 or not math.isfinite(gain):
        raise UnsupportedError(f"an input gain of {gain}")
    if levels.divisor is not None:
        return _per_channel(r, f"{name}.gain", gain / levels.divisor, value, name)
    return value if gain == 1.0 else r.add(f"{name}.gain", Scale(gain), value)


def _if(r: Raising, name: str, node: RawNode) -> Operand:
    levels = _levels(r, node, name)
    drive = _fed(r, name, _uniform(node, "r", name) * r.dt, levels)
    return r.add(name, Neuron(None, levels.threshold, levels.reset), drive)


def _lif(r: Raising, name: str, node: RawNode) -> Operand:
    return _leaky(r, name, node, "tau", 1.0)


def _cuba_lif(r: Raising, name: str, node: RawNode) -> Operand:
    if abs(_uniform(node, "tau_syn", name) / r.dt - 1.0) > _CLOSE:
        raise UnsupportedError("a synaptic current with memory (tau_syn is not dt)")
    return _leaky(r, name, node, "tau_mem", _uniform(node, "w_in", name))


def _leaky(r: Raising, name: str, node: RawNode, time_constant: str, weight: float) -> Operand:
    """tau dv/dt = (v_leak - v) + r x by one Euler step: decaying input for r = 1, undecayed for r = tau / dt."""
    tau = _uniform(node, time_constant, name) / r.dt
    levels = _levels(r, node, name)
    resistance = _uniform(node, "r", name) * weight
    if not (math.isfinite(tau) and tau > 1.0):
        raise UnsupportedError(f"a time constant of {tau:.6g} steps; above 1 is needed", hint="is --dt right?")
    tau = round(tau) if abs(tau - round(tau)) < _CLOSE * tau else tau
    if abs(_uniform(node, "v_leak", name) - levels.reset) > _CLOSE:
        raise UnsupportedError("a leak towards another voltage than the reset")
    decays = abs(resistance / tau - 1.0) > _CLOSE
    drive = _fed(r, name, resistance if decays else 1.0, levels)
    return r.add(name, Neuron(float(tau), levels.threshold, levels.reset, decay_input=decays), drive)


def _delay(r: Raising, name: str, node: RawNode) -> Operand:
    if _array(node, "delay", name).any():
        raise UnsupportedError("a delay; values here reach every node in the same step")
    return r.operand(name)


def _no_spikes(r: Raising, name: str, node: RawNode) -> Operand:
    raise UnsupportedError("an integrator that never fires")


Raise = Callable[[Raising, str, RawNode], Operand]
#: What each NIR type becomes.
RAISINGS: Mapping[str, Raise] = {
    "Input": _input,
    "Output": _pass,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "Linear": _linear,
    "Affine": _linear,
    "Flatten": _flatten,
    "AvgPool2d": _pool,
    "SumPool2d": _pool,
    "Scale": _scale,
    "Threshold": _threshold,
    "IF": _if,
    "LIF": _lif,
    "CubaLIF": _cuba_lif,
    "Delay": _delay,
    "I": _no_spikes,
    "LI": _no_spikes,
    "CubaLI": _no_spikes,
}
