"""What stock NIR can say: one function per operator, in the table :data:`LOWERINGS`.

A function adds NIR nodes and returns where the value now lives, or raises :class:`UnsupportedError` with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from qkf_deploy.converters.nir.builder import (
    DT,
    MAX_HELPER,
    LayoutError,
    NirBuilder,
    Placed,
    Values,
    above,
    below,
    convolution,
    lif,
    memoryless,
    nir,
    placed_array,
    single,
)
from qkf_deploy.converters.nir.refusals import check_start, reset_voltage
from qkf_deploy.errors import GraphError, UnsupportedError
from qkf_deploy.ir import Graph, Node, View, identity
from qkf_deploy.ops import Conv, IntegerNeuron, Linear, Mask, MaxPool, Neuron, Readout, Scale, Sum, SumPool

Op = TypeVar("Op")
_SINGLE = 2**24
NO_PRODUCT = "a product of two activations (spiking self-attention); NIR has no such node"
#: Operators that hand a pending factor (the mean instead of the sum) on to the classifier.
_PASS_GAIN = frozenset({"linear", "scale", "add", "sum", "readout", "output"})


@dataclass
class Emission:
    """A float or integer graph on its way to NIR.

    Attributes:
        graph: folded graph.
        builder: what collects NIR nodes.
        values: where each graph node's value lives.
        forced: operands of the node being lowered, where not what ``values`` and its views say.
    """

    graph: Graph
    builder: NirBuilder
    values: dict[str, Placed] = field(default_factory=dict)
    forced: tuple[Placed, ...] | None = None

    def operands(self, node: Node) -> list[Placed]:
        """Operands of a node, views applied.

        Raises:
            UnsupportedError: a view drops elements, or a pending factor reaches a node that cannot take it.
        """
        found = list(self.forced or (self.values[o.node].seen(o.view) for o in node.inputs))
        if node.op.kind not in _PASS_GAIN and any(p.gain != 1.0 for p in found):
            raise UnsupportedError("computes on a sum over positions or time, which NIR only has as a mean")
        return found

    def place(self, node: Node, nir_node: object, value: Placed, shape: tuple[int, ...], view: View) -> Placed:
        """Add the NIR node that computes ``node`` from ``value``."""
        name = self.builder.add(node.name, nir_node, value.sources, op=node.op.kind)
        return Placed((name,), shape, view, value.gain)


Lowering = Callable[[Emission, Node], Placed]


def operator(node: Node, kind: type[Op]) -> Op:
    """The node's operator, known to be of this class. Raises GraphError where it is not."""
    if not isinstance(node.op, kind):
        raise GraphError(f"is {node.op.kind}, not {kind.__name__}", where=node.name)
    return node.op


def conv(e: Emission, node: Node) -> Placed:
    """Conv2d; a 1x1 Conv1d over flattened positions is the Conv2d of the same weights."""
    op, (x,) = operator(node, Conv), e.operands(node)
    _check_width(e, node)
    weight, bias = node.params["weight"], node.params.get("bias")
    if op.spread:
        raise UnsupportedError("a transposed convolution; NIR has none")
    if bias is not None and bias.ndim > 1:
        raise UnsupportedError(
            "a bias that depends on the border (pixel normalization folded in); NIR has one per channel"
        )
    channels = e.graph.operand_type(node.inputs[0]).shape[0]
    flat = len(op.stride) == 1
    if len(x.shape) != 3 or not x.view.is_reshape or x.shape[0] != channels or not (flat or x.view.shape == x.shape):
        raise LayoutError("a convolution over rearranged axes")
    if flat and (weight.shape[2] != 1 or op.stride[0] != 1 or op.padding[0] != 0):
        raise LayoutError("a 1-d window over positions that NIR keeps in 2-d")
    if flat:
        weight, spatial = weight[..., None], {}
    else:
        spatial = {"stride": op.stride, "padding": op.padding, "dilation": op.dilation}
    made = convolution(weight, x.shape, groups=op.groups, bias=bias, **spatial)
    shape = tuple(int(n) for n in made.output_type["output"])
    return e.place(node, made, x, shape, View.of(shape, range(3), node.type.shape))


def linear(e: Emission, node: Node) -> Placed:
    """Flatten and Affine. Behind the readout the weights take the factor T: the mean over time is the result."""
    operator(node, Linear)
    _check_width(e, node)
    (x,) = e.operands(node)
    if len(node.type.shape) != 1 or not x.view.is_reshape:
        raise LayoutError("a linear layer over one axis of several")
    sources = x.sources
    if len(x.shape) > 1:
        flat = nir.Flatten(input_type={"input": np.array(x.shape)}, start_dim=0, end_dim=-1)
        sources = (e.builder.add(node.name, flat, sources, role="flatten"),)
    scale = _output_scale(e.graph, node)
    weight = node.params["weight"] * (x.gain * scale.reshape(-1, 1))
    if "bias" in node.params:
        made = nir.Affine(single(weight, "weight"), single(node.params["bias"] * scale.reshape(-1), "bias"))
    else:
        made = nir.Linear(single(weight, "weight"))
    shape = node.type.shape
    return e.place(node, made, Placed(sources, shape, identity(shape)), shape, identity(shape))


def _check_width(e: Emission, node: Node) -> None:
    """Clients compute in float32: integers are exact there up to 2**24, by the width proof of the graph."""
    widths = e.graph.widths.get(node.name)
    if widths is not None:
        _check_single(max(abs(v) for v in widths.partial))


def _check_single(reach: int) -> None:
    if reach > _SINGLE:
        raise UnsupportedError(f"integers up to {reach}, beyond the 24 bits that NIR clients compute with exactly")


def _output_scale(graph: Graph, node: Node) -> np.ndarray:
    """Scale of the logits of an integer graph, multiplied into the classifier."""
    users = graph.consumers()[node.name]
    if len(users) == 1 and users[0].op.kind == "output" and "scale" in users[0].params:
        return np.broadcast_to(users[0].params["scale"], node.type.shape)
    return np.ones(1)


def neuron(e: Emission, node: Node) -> Placed:
    """LIF or IF with dt = 1e-4 s, threshold one float32 below a tie that fires, above one that does not."""
    op, (x,) = operator(node, Neuron), e.operands(node)
    check_start(op, node)
    levels = op.levels(node.params)

    def placed(values: np.ndarray) -> Values:
        if values.size == 1:
            return float(values.reshape(()))
        return placed_array(np.broadcast_to(values, x.view.shape), x.view, x.shape)

    threshold = placed((above if op.strict else below)(levels.v_threshold))
    steps, v_reset = levels.time_constant, placed(reset_voltage(levels))
    if steps is None:
        made = _integrate_and_fire(x.shape, threshold, v_reset)
    else:
        r = 1.0 if op.tau is not None and op.decay_input else placed(steps)
        made = lif(x.shape, tau=placed(steps), r=r, threshold=threshold, v_reset=v_reset)
    return e.place(node, made, x, x.shape, x.view)


def integer_neuron(e: Emission, node: Node) -> Placed:
    """LIF (τ = 2) or IF with thresholds midway between the values a membrane can take, so ``>`` and ``>=`` agree.

    The floor of the integer decay never changes a spike at τ = 2, because floors of halves nest; other decays are
    refused.
    """
    op, (x,) = operator(node, IntegerNeuron), e.operands(node)
    check_start(op, node)
    if {"decay_multiplier", "lowest"} & set(node.params):
        raise UnsupportedError("decays that differ between neurons, or a lower bound; NIR has neither in integers")
    halves = (op.decay_multiplier, op.decay_shift) == (1, 1)
    if op.soft_reset or not (halves or op.decay_multiplier == 1 << op.decay_shift):
        raise UnsupportedError("a soft reset or a rounded decay; NIR has neither")
    steps = e.graph.time_steps - 1 if halves else 0
    widths = e.graph.widths.get(node.name)
    if widths is not None and widths.membrane is not None:
        reach = max(abs(v) for v in widths.membrane) >> op.fraction_bits
        _check_single(reach << steps)
    spacing = 2.0**-steps  # the drive is whole, the membrane a multiple of this
    first = np.ceil(node.params["theta"] / 2.0**op.fraction_bits / spacing) * spacing
    threshold = first - spacing / 2
    if not np.array_equal(threshold.astype(np.float32).astype(np.float64), threshold):
        raise UnsupportedError("a threshold that float32 does not place between two membrane values")
    full = placed_array(np.broadcast_to(threshold, x.view.shape), x.view, x.shape)
    made = lif(x.shape, tau=2.0, r=2.0, threshold=full) if halves else _integrate_and_fire(x.shape, full, 0.0)
    return e.place(node, made, x, x.shape, x.view)


def _integrate_and_fire(shape: tuple[int, ...], threshold: Values, v_reset: Values) -> object:
    full = {"r": 1.0 / DT, "v_threshold": threshold, "v_reset": v_reset}
    return nir.IF(**{k: np.broadcast_to(np.asarray(v), shape).astype(np.float32) for k, v in full.items()})


def add(e: Emission, node: Node) -> Placed:
    """Edges that meet: NIR adds what arrives at a node."""
    a, b = e.operands(node)
    if a.shape != b.shape or not np.array_equal(a.index(), b.index()):
        raise LayoutError("an addition of values whose axes are ordered differently")
    if a.gain != b.gain:
        raise UnsupportedError("an addition of a value per step and a value per image")
    if set(a.sources) & set(b.sources):
        raise UnsupportedError("a value added to itself; NIR cannot repeat an edge")
    return Placed(a.sources + b.sources, a.shape, a.view, a.gain)


def channels_of(view: View, channels: int) -> int:
    """How many leading atoms of a view make up the channel axis. Raises UnsupportedError if an atom crosses it."""
    product = 1
    for count, size in enumerate(view.split):
        if product == channels:
            return count
        product *= size
    if product != channels:
        raise LayoutError("a sum over axes that cut through the channels")
    return len(view.split)


def sum_axes(e: Emission, node: Node) -> Placed:
    """A convolution of ones: over the channels of a head (1x1), over all positions (full size), or both."""
    op, (x,) = operator(node, Sum), e.operands(node)
    _check_width(e, node)
    if len(x.shape) != 3:
        raise LayoutError("a sum over a flat value")
    lead = channels_of(x.view, x.shape[0])
    groups = x.view.groups()
    summed = {atom for axis in op.axes for atom in groups[axis]}
    spatial = {a for a in range(lead, len(x.view.split)) if x.view.split[a] > 1}
    if spatial & summed not in (set(), spatial):
        raise UnsupportedError("a sum over some of the positions")
    left = tuple(1 if a in summed else n for a, n in enumerate(x.view.split))
    everywhere = bool(spatial & summed)
    if op.role == "readout" and everywhere and not any(a < lead for a in summed if x.view.split[a] > 1):
        return _pooled(e, node, x, left)
    outputs = math.prod(left[:lead])
    target = np.broadcast_to(np.arange(outputs).reshape(left[:lead]), x.view.split[:lead]).reshape(-1)
    weight = (np.arange(outputs)[:, None] == target[None, :]).astype(np.float32)
    made = _ones(weight, x.shape, x.shape[1:] if everywhere else (1, 1), (0, 0))
    shape = (outputs, 1, 1) if everywhere else (outputs, *x.shape[1:])
    return e.place(node, made, x, shape, View.of(left, x.view.perm, node.type.shape))


def _pooled(e: Emission, node: Node, x: Placed, left: tuple[int, ...]) -> Placed:
    """Token sum of the readout: average pooling, the number of positions kept as gain for the classifier."""
    kernel = np.array(x.shape[1:])
    made = nir.AvgPool2d(kernel_size=kernel, stride=kernel, padding=np.array([0, 0]))
    out = e.place(node, made, x, (x.shape[0], 1, 1), View.of(left, x.view.perm, node.type.shape))
    return Placed(out.sources, out.shape, out.view, out.gain * float(kernel.prod()))


def _ones(weight: np.ndarray, shape: tuple[int, ...], kernel: tuple[int, ...], padding: tuple[int, int]) -> object:
    """The same channel mixing at every tap of a kernel."""
    if weight.size * math.prod(kernel) > MAX_HELPER:
        raise UnsupportedError(f"a helper convolution of {weight.size * math.prod(kernel)} weights, too large to write")
    return convolution(np.broadcast_to(weight[..., None, None], (*weight.shape, *kernel)), shape, padding=padding)


def mask(e: Emission, node: Node) -> Placed:
    """A memoryless neuron of the sum: both spike (sum 2), or with ``invert`` only the value (difference 1)."""
    op, (gate, x) = operator(node, Mask), e.operands(node)
    if not all(t.is_binary for t in e.graph.input_types(node)):
        raise UnsupportedError("a gate on counts or signed events; only spikes can be gated by a neuron")
    spread = _spread(gate, x, -1.0 if op.invert else 1.0)
    wide = e.builder.add(node.name, spread, gate.sources, role="gate")
    both = Placed((*x.sources, wide), x.shape, x.view)
    return e.place(node, memoryless(x.shape, 0.5 if op.invert else 1.5), both, x.shape, x.view)


def _spread(gate: Placed, x: Placed, sign: float) -> object:
    """The gate repeated wherever the masked value has a place, as a convolution of ones."""
    if len(gate.shape) != 3 or len(x.shape) != 3:
        raise LayoutError("a gate on a flat value")
    wanted = placed_array(np.broadcast_to(gate.index(), x.view.shape), x.view, x.shape).reshape(x.shape[0], -1)
    size = math.prod(gate.shape[1:])
    channel = wanted[:, 0] // size
    weight = (channel[:, None] == np.arange(gate.shape[0])[None, :]).astype(np.float32) * sign
    positions = np.arange(math.prod(x.shape[1:])) if gate.shape[1:] == x.shape[1:] else np.zeros(1, np.int64)
    if not np.array_equal(wanted, np.broadcast_to(channel[:, None] * size + positions, wanted.shape)):
        raise LayoutError("a gate whose axes do not match the channels or positions of what it gates")
    if gate.shape[1:] == x.shape[1:]:
        return _ones(weight, gate.shape, (1, 1), (0, 0))
    if x.shape[1] != x.shape[2]:
        raise UnsupportedError("a channel gate over a map that is not square; stock nir gets such kernels wrong")
    return _ones(weight, gate.shape, x.shape[1:], (x.shape[1] - 1, x.shape[2] - 1))


def max_pool(e: Emission, node: Node) -> Placed:
    """Of spikes: an OR, that is a convolution of ones and a memoryless neuron. Of anything else: NIR has no maximum."""
    op, (x,) = operator(node, MaxPool), e.operands(node)
    if not e.graph.input_types(node)[0].is_binary:
        raise UnsupportedError("max pooling of values that are not spikes; NIR has no maximum")
    window = e.builder.add(node.name, _window(op, x, node), x.sources, role="window")
    shape = node.type.shape
    return e.place(node, memoryless(shape, 0.5), Placed((window,), shape, identity(shape)), shape, identity(shape))


def _window(op: MaxPool | SumPool, x: Placed, node: Node) -> object:
    """Sum over a window as a convolution (importers ignore the padding of SumPool2d)."""
    if len(x.shape) != 3 or not x.view.is_reshape or len(node.type.shape) != 3 or x.view.shape != x.shape:
        raise LayoutError("pooling over rearranged axes")
    weight = np.eye(x.shape[0], dtype=np.float32)[..., None, None]
    if weight.size * math.prod(op.kernel) > MAX_HELPER:
        raise UnsupportedError("a helper convolution too large to write")
    full = np.broadcast_to(weight, (*weight.shape[:2], *op.kernel))
    return convolution(full, x.shape, stride=op.stride, padding=op.padding)


def sum_pool(e: Emission, node: Node) -> Placed:
    """SumPool2d; a convolution of ones where there is padding."""
    op, (x,) = operator(node, SumPool), e.operands(node)
    made = _window(op, x, node)
    if not any(op.padding):
        made = nir.SumPool2d(*(np.array(v) for v in (op.kernel, op.stride, op.padding)))
    shape = node.type.shape
    return e.place(node, made, x, shape, identity(shape))


def scale(e: Emission, node: Node) -> Placed:
    """nir.Scale (SpikingJelly and snnTorch do not import it)."""
    (x,) = e.operands(node)
    factor = operator(node, Scale).factor
    if x.gain != 1.0:
        return Placed(x.sources, x.shape, x.view, x.gain * factor)
    return e.place(node, nir.Scale(np.full(x.shape, factor, np.float32)), x, x.shape, x.view)


def readout(e: Emission, node: Node) -> Placed:
    """Nothing: whoever runs the file takes the mean over time. The factor T goes into the classifier."""
    (x,) = e.operands(node)
    if operator(node, Readout).weights:
        raise UnsupportedError("a readout with a weight for every step; readers of NIR take the mean")
    return Placed(x.sources, x.shape, x.view, x.gain * e.graph.time_steps)


def batch_norm(e: Emission, node: Node) -> Placed:
    raise UnsupportedError("a batch norm; fold the graph first")


def matmul(e: Emission, node: Node) -> Placed:
    raise UnsupportedError(NO_PRODUCT)


def concat(e: Emission, node: Node) -> Placed:
    raise UnsupportedError("values side by side; NIR has none")


def shift(e: Emission, node: Node) -> Placed:
    raise UnsupportedError("a rounding shift; NIR has no rounding")


def output(e: Emission, node: Node) -> Placed:
    """The output node; what the steps still lack is multiplied in."""
    (x,) = e.operands(node)
    if x.gain != 1.0:
        made = nir.Scale(np.full(x.shape, x.gain, np.float32))
        x = Placed((e.builder.add(node.name, made, x.sources, role="gain"),), x.shape, x.view)
    timing = node.type.timing.value
    e.builder.output(node.name, x, result="mean over time" if timing == "image" else "per step")
    return x


#: How each operator is written; ``input`` is placed by the exporter itself.
LOWERINGS: Mapping[str, Lowering] = {
    "conv": conv,
    "linear": linear,
    "batch_norm": batch_norm,
    "neuron": neuron,
    "integer_neuron": integer_neuron,
    "max_pool": max_pool,
    "sum_pool": sum_pool,
    "add": add,
    "mask": mask,
    "scale": scale,
    "shift": shift,
    "concat": concat,
    "matmul": matmul,
    "sum": sum_axes,
    "readout": readout,
    "output": output,
}


def unwritten(e: Emission, node: Node) -> Placed:
    """In place of a function that :data:`LOWERINGS` lacks."""
    raise UnsupportedError(f"{node.op.kind} has no NIR form here")
