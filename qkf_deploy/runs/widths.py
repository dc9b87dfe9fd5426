"""The proven widths of a network as plain rows: what a hardware designer copies into RTL."""

from __future__ import annotations

from typing import Any

import numpy as np

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops.exact import signed_bits

#: Keys of a row of :func:`width_rows`.
WIDTH_KEYS = (
    "layer", "type", "weight_bits", "bias_bits", "accumulator_bits", "accumulator_low", "accumulator_high",
    "threshold_bits", "membrane_bits", "membrane_low", "membrane_high", "output_bits",
)  # fmt: skip


def width_rows(graph: Graph) -> list[dict[str, Any]]:
    """One row per node with proven widths, as plain data; empty for a float graph.

    Bits are of two's complement, except ``output_bits`` of spikes and counts, which are unsigned. ``accumulator``
    covers every partial sum in any order of summation, bias included; ``membrane`` the charged potential before firing.
    """
    return [
        _row(graph, node) for node in graph if node.name in graph.widths and node.op.kind not in ("input", "output")
    ]


def _row(graph: Graph, node: Node) -> dict[str, Any]:
    widths = graph.widths[node.name]
    low, high = widths.membrane or (None, None)
    sums = node.op.kind in ("conv", "linear", "matmul", "sum", "sum_pool", "readout", "add")
    values = {
        "layer": node.name,
        "type": node.op.kind,
        "weight_bits": getattr(node.op, "weight_bits", None),
        "bias_bits": _stored_bits(node, "bias"),
        "accumulator_bits": signed_bits(*widths.partial) if sums else None,
        "accumulator_low": widths.partial[0] if sums else None,
        "accumulator_high": widths.partial[1] if sums else None,
        "threshold_bits": _stored_bits(node, "theta"),
        "membrane_bits": None if low is None or high is None else signed_bits(low, high),
        "membrane_low": low,
        "membrane_high": high,
        "output_bits": _output_bits(node, widths.value),
    }
    return values


def _stored_bits(node: Node, name: str) -> int | None:
    array = node.params.get(name)
    if array is None or not np.asarray(array).size:
        return None
    return signed_bits(int(array.min()), int(array.max()))


def _output_bits(node: Node, value: tuple[int, int]) -> int:
    if node.type.is_counts:
        return max(value[1].bit_length(), 1)
    return signed_bits(*value)
