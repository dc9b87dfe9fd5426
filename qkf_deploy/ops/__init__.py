"""The operators: everything an operator means, one module per family. Backends say what they do with it."""

from __future__ import annotations

from collections.abc import Mapping

from qkf_deploy.ir.operator import Operator
from qkf_deploy.ops.batchnorm import BatchNorm
from qkf_deploy.ops.concat import Concat
from qkf_deploy.ops.conv import Conv
from qkf_deploy.ops.elementwise import Add, Mask, Scale, Shift
from qkf_deploy.ops.endpoints import Input, Output
from qkf_deploy.ops.integer_neuron import IntegerNeuron
from qkf_deploy.ops.linear import Linear
from qkf_deploy.ops.matmul import MatMul
from qkf_deploy.ops.neuron import Neuron
from qkf_deploy.ops.pool import MaxPool, SumPool
from qkf_deploy.ops.reduce import Readout, Sum

#: Every operator by the name it has in files.
OPERATORS: Mapping[str, type[Operator]] = {
    op.kind: op
    for op in (
        Input, Output, Conv, Linear, BatchNorm, Neuron, IntegerNeuron,
        MaxPool, SumPool, Add, Concat, Mask, Scale, Shift, MatMul, Sum, Readout,
    )
}  # fmt: skip

__all__ = [
    "OPERATORS",
    "Add",
    "BatchNorm",
    "Concat",
    "Conv",
    "Input",
    "IntegerNeuron",
    "Linear",
    "Mask",
    "MatMul",
    "MaxPool",
    "Neuron",
    "Output",
    "Readout",
    "Scale",
    "Shift",
    "Sum",
    "SumPool",
]
