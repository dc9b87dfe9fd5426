"""Where graph values live inside a NIR graph, and a builder that adds nodes and edges.

NIR knows neither reshape nor transpose, so a graph value of any shape is kept in a *placed* tensor ``(C, H, W)`` or
``(F,)`` together with the view that turns it into the value; views of the graph then cost nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qkf_deploy.errors import GraphError, MissingComponent, UnsupportedError
from qkf_deploy.ir import View, compose, identity

try:
    import h5py
    import nir as _nir
except ImportError as error:
    raise MissingComponent(f"{error.name} is not installed", hint="pip install 'qkf-deploy[nir]'") from error

#: Stock NIR and its files; the annotations of NIR are narrower than what it accepts.
nir: Any = _nir
hdf5: Any = h5py
#: Time step in seconds of every file written here: the value snnTorch has fixed and SpikingJelly defaults to.
DT = 1e-4
METADATA_KEY = "qkf"
#: Helper convolutions beyond this many weights are refused rather than written.
MAX_HELPER = 2**26


class LayoutError(UnsupportedError):
    """Refused only because of how an operand's axes are arranged in the placed tensor."""


@dataclass(frozen=True)
class Placed:
    """A graph value inside the NIR graph.

    Attributes:
        sources: NIR nodes whose outputs, added, are the value (NIR adds what meets at an input).
        shape: shape of each source's output.
        view: from ``shape`` to the value's own shape.
        gain: what every step must be multiplied by so that the mean over time is the value (T behind the readout).
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    view: View
    gain: float = 1.0

    def seen(self, view: View | None) -> Placed:
        """The value read through a further view.

        Raises:
            UnsupportedError: the view drops elements, which NIR has no node for.
        """
        if view is None:
            return self
        try:
            joined = compose(self.view, view) or identity(self.shape)
        except GraphError as error:
            raise LayoutError(f"a chain of views that has no single form: {error.message}") from error
        if not joined.keeps_all:
            raise UnsupportedError("a slice of a value; NIR has no node that drops elements")
        return Placed(self.sources, self.shape, joined, self.gain)

    def index(self) -> np.ndarray:
        """Flat index into ``shape`` of every element of the value, int64 in the value's shape."""
        return self.view.apply(np.arange(math.prod(self.shape)).reshape(self.shape), lead=0)


def placed_array(value: np.ndarray, view: View, shape: Sequence[int], lead: int = 0) -> np.ndarray:
    """An array in the value's shape rearranged into the placed shape: the inverse of ``view``.

    Args:
        value: ``(*lead axes, *view.shape)``.
        view: keeps every element of ``shape``.
        shape: placed shape.
        lead: number of axes passed through.
    """
    size = math.prod(shape)
    index = view.apply(np.arange(size).reshape(*shape), lead=0).reshape(-1)
    out = np.empty((*value.shape[:lead], size), value.dtype)
    out[..., index] = value.reshape(*value.shape[:lead], size)
    return out.reshape(*value.shape[:lead], *shape)


@dataclass
class NirBuilder:
    """Adds NIR nodes with names that sort topologically; every node carries one JSON string of metadata."""

    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def add(self, label: str, node: Any, sources: Sequence[str], **notes: Any) -> str:
        """Append a node and the edges into it.

        Args:
            label: graph node name it comes from.
            node: NIR node.
            sources: nodes that feed it.
            **notes: further metadata.
        """
        name = f"n{len(self.nodes):05d}_{re.sub(r'[^0-9A-Za-z]+', '_', label)}"
        node.metadata = {METADATA_KEY: json.dumps({"node": label, **notes}, sort_keys=True)}
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def forget(self, nodes: int, edges: int) -> None:
        """Back to an earlier number of nodes and edges."""
        for name in list(self.nodes)[nodes:]:
            del self.nodes[name]
        del self.edges[edges:]

    def input(self, label: str, shape: Sequence[int]) -> Placed:
        """The input node."""
        name = self.add(label, nir.Input({"input": np.array(shape)}), ())
        return Placed((name,), tuple(shape), identity(shape))

    def output(self, label: str, value: Placed, **notes: Any) -> None:
        """The output node. Only one edge may enter it: clients drop all others, so a sum passes an identity first."""
        sources = value.sources
        if len(sources) > 1:
            sources = (self.add(label, identity_node(value.shape), sources, role="join"),)
        self.add(label, nir.Output({"output": np.array(value.shape)}), sources, **notes)

    def graph(self) -> Any:
        """The type-checked NIR graph."""
        return nir.NIRGraph(self.nodes, self.edges)


def identity_node(shape: Sequence[int]) -> Any:
    """A stock node that changes nothing."""
    if len(shape) == 1:
        return nir.Linear(np.eye(shape[0], dtype=np.float32))
    one = np.array([1, 1])
    return nir.AvgPool2d(kernel_size=one, stride=one, padding=np.array([0, 0]))


def convolution(
    weight: np.ndarray, shape: Sequence[int], *, stride: Sequence[int] = (1, 1), padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1), groups: int = 1, bias: np.ndarray | None = None,
) -> Any:  # fmt: skip
    """A stock Conv2d on ``(C, H, W)`` in float32, groups written out as zeros (stock nir's own type check and
    SpikingJelly refuse grouped convolutions).

    Raises:
        UnsupportedError: numbers that float32 does not hold, or a kernel whose output size stock nir gets wrong (it
            takes the kernel's height for both axes).
    """
    bias = np.zeros(len(weight)) if bias is None else bias
    weight = ungrouped(weight, groups)
    node = nir.Conv2d(
        input_shape=(int(shape[1]), int(shape[2])), weight=single(weight, "weight"), stride=tuple(map(int, stride)),
        padding=tuple(map(int, padding)), dilation=tuple(map(int, dilation)), groups=1, bias=single(bias, "bias"),
    )  # fmt: skip
    spatial = zip(shape[1:], weight.shape[2:], stride, padding, dilation, strict=True)
    true = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in spatial]
    if list(node.output_type["output"][1:]) != true:
        raise UnsupportedError(f"a {weight.shape[2]}x{weight.shape[3]} kernel, whose output size stock nir gets wrong")
    return node


def ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """Weights ``(O, C / groups, *kernel)`` as ``(O, C, *kernel)`` of an ordinary convolution."""
    if groups == 1:
        return weight
    out, group_in = weight.shape[:2]
    if weight.size * groups > MAX_HELPER:
        raise UnsupportedError(f"a grouped convolution that takes {weight.size * groups} weights without groups")
    full = np.zeros((out, group_in * groups, *weight.shape[2:]), weight.dtype)
    for o in range(out):
        start = o // (out // groups) * group_in
        full[o, start : start + group_in] = weight[o]
    return full


def single(values: np.ndarray, what: str) -> np.ndarray:
    """Float32 of an array; integers must survive exactly."""
    out = np.ascontiguousarray(values, dtype=np.float32)
    if values.dtype.kind in "iu" and not np.array_equal(out.astype(np.int64), values.astype(np.int64)):
        raise UnsupportedError(f"a {what} beyond 24 bits, which float32 does not hold")
    if not np.isfinite(out).all():
        raise UnsupportedError(f"a {what} beyond the range of float32")
    return out


#: One value for all neurons, or one for each.
Values = np.ndarray | float


def lif(shape: Sequence[int], *, tau: Values, r: Values, threshold: Values, v_reset: Values = 0.0) -> Any:
    """A stock LIF with one value per neuron; ``tau`` in time steps, input gain ``r / tau`` per step."""
    full = {
        "tau": tau * DT,
        "r": r,
        "v_leak": v_reset,
        "v_threshold": threshold,
        "v_reset": v_reset,
    }
    return nir.LIF(**{k: np.broadcast_to(np.asarray(v), shape).astype(np.float32) for k, v in full.items()})


def memoryless(shape: Sequence[int], threshold: float) -> Any:
    """A neuron that fires where this step's input exceeds ``threshold``.

    Stock ``nir.Threshold`` is what this means, but SpikingJelly and snnTorch do not import it. With τ = 1.001 steps
    0.1 % of the membrane survives a step; inputs are whole numbers and the threshold lies midway, so nothing changes.
    """
    return lif(shape, tau=1.001, r=1.0, threshold=threshold)


def below(threshold: np.ndarray) -> np.ndarray:
    """The largest float32 below: NIR fires on ``>``, this network on ``>=``, and ties are systematic."""
    return np.nextafter(np.asarray(threshold, np.float32), np.float32(-np.inf))


def above(threshold: np.ndarray) -> np.ndarray:
    """The smallest float32 above: a strict neuron does not fire at its threshold, also where a reader would."""
    return np.nextafter(np.asarray(threshold, np.float32), np.float32(np.inf))
