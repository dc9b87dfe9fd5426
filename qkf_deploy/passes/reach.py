"""How large the real values of a float graph can get: bounds from weights and input, for choosing scales."""

from __future__ import annotations

import numpy as np

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import Add, Concat, Conv, Linear, Mask, MatMul, Readout, Scale, Sum, SumPool


def reaches(graph: Graph, largest_input: float) -> dict[str, float]:
    """Largest magnitude of every value, by interval arithmetic over whole layers.

    Args:
        graph: folded float graph.
        largest_input: magnitude of the input.
    """
    out: dict[str, float] = {}
    for node in graph:
        seen = [out[o.node] for o in node.inputs]
        out[node.name] = _reach(graph, node, seen) if seen else largest_input
    return out


def weight_reach(node: Node, largest_input: float) -> np.ndarray:
    """Largest magnitude of Σ w x of each output channel, float64 ``(O,)``."""
    weight = np.abs(node.params["weight"].astype(np.float64))
    return weight.reshape(len(weight), -1).sum(axis=1) * largest_input


def _reach(graph: Graph, node: Node, seen: list[float]) -> float:
    op = node.op
    types = graph.input_types(node)
    if isinstance(op, Conv | Linear):
        bias = np.abs(node.params.get("bias", np.zeros(1))).max()
        return float(weight_reach(node, seen[0]).max() + bias)
    if isinstance(op, Add):
        return seen[0] + seen[1]
    if isinstance(op, Concat):
        return max(seen)
    if isinstance(op, Mask):
        return seen[1]
    if isinstance(op, MatMul):
        return seen[0] * seen[1] * types[0].shape[-1] * op.chunk
    if isinstance(op, Scale):
        return seen[0] * abs(op.factor)
    if isinstance(op, Sum):
        return seen[0] * float(np.prod([types[0].shape[axis] for axis in op.axes]))
    if isinstance(op, SumPool):
        return seen[0] * float(np.prod(op.kernel))
    if isinstance(op, Readout):
        return seen[0] * (sum(map(abs, op.weights)) if op.weights else graph.time_steps)
    return 1.0 if node.type.high == 1 else seen[0]
