"""Stand-ins for what stock NIR cannot say: they parse and type-check everywhere and run nowhere.

A stand-in is a nested graph: a 1x1 convolution with weights that are not numbers gives the declared shape, and a
``Threshold`` of not-a-number follows, which SpikingJelly and snnTorch refuse to import. Without it snnTorch would run
the stand-in as if it were the operator.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from qkf_deploy.converters.nir.builder import Placed, nir
from qkf_deploy.converters.nir.lowering import Emission
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Node, View

_MAX_FLAT = 2**24


def mark(e: Emission, node: Node, error: UnsupportedError) -> Placed:
    """A stand-in for one node; operands of another shape pass through a stand-in of their own.

    Raises:
        UnsupportedError: a shape change too large for a flat stand-in.
    """
    placed = [e.values[o.node] for o in node.inputs]
    shape = placed[0].shape
    sources: dict[str, None] = {}
    for port, value in enumerate(placed):
        if value.shape == shape:
            sources |= dict.fromkeys(value.sources)
        else:
            made = _stand_in(value.shape, shape)
            sources[e.builder.add(node.name, made, value.sources, role="operand", port=port)] = None
    out, view = natural(node.type.shape)
    views = [None if o.view is None else dataclasses.astuple(o.view) for o in node.inputs]
    name = e.builder.add(
        node.name, _stand_in(shape, out), list(sources), op=node.op.kind, reason=error.message,
        attributes=dataclasses.asdict(node.op),  # type: ignore[call-overload]  # operators are dataclasses
        operands=[[o.node, v] for o, v in zip(node.inputs, views, strict=True)],
    )  # fmt: skip
    if node.op.kind == "output":
        e.builder.output(node.name, Placed((name,), out, view))
    return Placed((name,), out, view)


def rearrange(e: Emission, node: Node, port: int) -> Placed:
    """An operand in natural order, through a stand-in where it is kept in another one."""
    operand = node.inputs[port]
    value = e.values[operand.node]
    shape, view = natural(e.graph.operand_type(operand).shape)
    try:
        seen = value.seen(operand.view)
        if seen.shape == shape and np.array_equal(seen.index(), Placed((), shape, view).index()):
            return seen
    except UnsupportedError:
        pass  # a slice: the stand-in says so
    made = _stand_in(value.shape, shape)
    name = e.builder.add(node.name, made, value.sources, role="operand", port=port, reads=operand.node)
    return Placed((name,), shape, view)


def natural(shape: tuple[int, ...]) -> tuple[tuple[int, ...], View]:
    """Placed shape ``(C, H, W)`` that keeps the order of elements, and its view; a flat value stays flat."""
    view = View.of(shape, range(len(shape)), shape)
    if len(shape) == 1:
        return shape, view
    return ((shape[0], 1, shape[1]) if len(shape) == 2 else (math.prod(shape[:-2]), *shape[-2:])), view


def _stand_in(source: tuple[int, ...], target: tuple[int, ...]) -> object:
    """Names sort in the order of the nodes; the ends are called what stock nir expects of any node's ports."""
    nodes: dict[str, object] = {"input": nir.Input({"input": np.array(source)})}
    if len(source) == len(target) == 3:
        nodes["n1_shape"] = _reshaping_convolution(source, target)
    else:
        _add_flat(nodes, source, target)
    nodes["n3_refuse"] = nir.Threshold(np.full(target, np.nan, np.float32))
    nodes["output"] = nir.Output({"output": np.array(target)})
    names = list(nodes)
    return nir.NIRGraph(nodes, list(itertools.pairwise(names)))


def _add_flat(nodes: dict[str, object], source: tuple[int, ...], target: tuple[int, ...]) -> None:
    size = math.prod(source)
    if len(target) != 1 or size * target[0] > _MAX_FLAT:
        raise UnsupportedError(f"a stand-in from {source} to {target}; use the partitioned form")
    if len(source) > 1:
        nodes["n1_flatten"] = nir.Flatten(input_type={"input": np.array(source)}, start_dim=0, end_dim=-1)
    nodes["n2_shape"] = nir.Linear(np.full((target[0], size), np.nan, np.float32))


def _reshaping_convolution(source: tuple[int, ...], target: tuple[int, ...]) -> object:
    """A 1x1 convolution whose stride and padding map the sizes."""
    stride, padding = [], []
    for n, wanted in zip(source[1:], target[1:], strict=True):
        step = max(2, -(-n // wanted))
        stride.append(step)
        padding.append(max(0, -(-(step * (wanted - 1) - n + 1) // 2)))
    return nir.Conv2d(
        input_shape=source[1:], weight=np.full((target[0], source[0], 1, 1), np.nan, np.float32),
        stride=tuple(stride), padding=tuple(padding), dilation=(1, 1), groups=1,
        bias=np.full(target[0], np.nan, np.float32),
    )  # fmt: skip
