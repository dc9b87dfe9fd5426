"""The rounding shift of integer graphs in ONNX, whose own BitShift takes unsigned integers only."""

from __future__ import annotations

import numpy as np

from qkf_deploy.converters.onnx_builder import Tensor, carrier
from qkf_deploy.converters.onnx_ops import Emission, operator
from qkf_deploy.ir import Node
from qkf_deploy.ops import Shift


def shift(e: Emission, node: Node) -> Tensor:
    """Floor((x + 2^(bits-1)) * 2^-bits), in a type that carries the sum exactly."""
    op = operator(node, Shift)
    amounts = op.amounts(len(node.type.shape))
    half = np.where(amounts > 0, 2.0 ** (amounts - 1), 0.0)
    reach = max(abs(v) for v in e.widths[node.inputs[0].node].value) + int(half.max())
    dtype = carrier(reach, node.name)
    w = e.writer
    x = e.operand(node.inputs[0], dtype, node.name)
    x = w.op("Add", [x, w.stored(half, dtype, f"{node.name}.half")], f"{node.name}.raised")
    x = w.op("Mul", [x, w.stored(2.0**-amounts, dtype, f"{node.name}.factor")], f"{node.name}.scaled")
    return Tensor(w.op("Floor", [x], node.name), dtype, e.steps_of(node))
