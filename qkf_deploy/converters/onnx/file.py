"""Reading an ONNX file that this package exported, without trusting it.

Accepted is only what the exporter writes: its own standard operators, no subgraphs, no external data, and sizes of
every intermediate value that are known and bounded for one image before anything runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy.converters.onnx.builder import onnx
from qkf_deploy.converters.onnx.export import OPSET
from qkf_deploy.errors import InputError

OPERATORS = frozenset(
    {"Abs", "Add", "And", "Cast", "Concat", "Conv", "Div", "Equal", "Floor", "Gather", "Greater", "GreaterOrEqual"}
    | {"Identity", "MatMul", "Max", "MaxPool", "Min", "Mul", "Or", "Pad", "ReduceSum", "Reshape", "Round", "Sign"}
    | {"Slice", "Split", "Sub", "Tile", "Transpose", "Where"}
)
_MAX_BYTES = 2**31 - 1  # the limit of protobuf itself
_MAX_NODES = 1_000_000
_MAX_ELEMENTS = 2**28
_MAX_STEPS = 4096
_HINT = "export it again with `qkf-deploy export --to onnx`"


@dataclass(frozen=True)
class OnnxFile:
    """A checked file.

    Attributes:
        model: serialized, as ONNX Runtime takes it.
        form: ``step`` or ``sequence``.
        time_steps: T.
    """

    model: bytes
    form: str
    time_steps: int


def load_onnx(path: str | Path) -> OnnxFile:
    """Read and check one exported file.

    Raises:
        InputError: missing, damaged, too large, or anything the exporter never writes.
    """
    place = Path(path)
    try:
        return _checked(place)
    except InputError as error:
        where = f"{place}: {error.where}" if error.where else str(place)
        raise InputError(error.message, where=where, hint=error.hint or _HINT) from error
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=str(place)) from error


def _checked(path: Path) -> OnnxFile:
    if not path.is_file():
        raise InputError("no such file")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError("larger than 2 GiB, which no ONNX file of one part is")
    data = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf raises classes of its own in every implementation
        raise InputError(f"not an ONNX file: {error}") from error
    notes = {p.key: p.value for p in model.metadata_props}
    form, steps = notes.get("qkf.form", ""), notes.get("qkf.time_steps", "")
    if form not in ("step", "sequence") or not steps.isdecimal() or not 1 <= int(steps[:5]) <= _MAX_STEPS:
        raise InputError("not written by this package: the form and the time steps are missing")
    _check_nodes(model)
    _check_tensors(model)
    _check_sizes(model, int(steps))
    return OnnxFile(data, form, int(steps))


def _check_nodes(model: Any) -> None:
    if [(o.domain, o.version) for o in model.opset_import] != [("", OPSET)] or model.functions:
        raise InputError("operator sets or functions that the exporter does not use")
    if len(model.graph.node) > _MAX_NODES:
        raise InputError(f"more than {_MAX_NODES} nodes")
    if model.graph.sparse_initializer or model.training_info:
        raise InputError("sparse tensors or training data, which the exporter does not write")
    for node in model.graph.node:
        if node.domain or node.op_type not in OPERATORS:
            raise InputError(f"an operator {node.op_type[:60]!r} that the exporter does not use", where=node.name[:200])
        if any(a.HasField("g") or a.graphs or a.HasField("t") or a.tensors for a in node.attribute):
            raise InputError("a subgraph or tensor as attribute", where=node.name[:200])


def _check_tensors(model: Any) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            raise InputError("a tensor stored in another file", where=tensor.name[:200])
        try:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a tensor of type {tensor.data_type}", where=tensor.name[:200]) from error
        size = math.prod(tensor.dims)
        if min(tensor.dims, default=1) < 0 or len(tensor.raw_data) != size * dtype.itemsize:
            raise InputError(f"a tensor that declares {size} values and stores others", where=tensor.name[:200])
        if dtype.kind == "f" and not np.isfinite(np.frombuffer(tensor.raw_data, dtype)).all():
            raise InputError("a tensor with values that are not finite", where=tensor.name[:200])


def _check_sizes(model: Any, steps: int) -> None:
    """Infer every shape for one image; all must be known and none huge. Works on a copy without large weights."""
    one = onnx.ModelProto()
    one.CopyFrom(model)
    rows = {"batch": 1, "steps_x_batch": steps}
    for value in (*one.graph.input, *one.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param not in rows:
                raise InputError(f"a dimension called {dim.dim_param[:60]!r}", where=value.name[:200])
            if dim.dim_param:
                dim.dim_value = rows[dim.dim_param]
    del one.graph.value_info[:]
    try:
        onnx.checker.check_model(one)
        inferred = onnx.shape_inference.infer_shapes(one, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # the checker and the inference raise different classes in different versions
        raise InputError(f"an inconsistent graph: {str(error).strip().splitlines()[0][:300]}") from error
    known = {v.name: v for v in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)}
    for node in inferred.graph.node:
        for name in node.output:
            dims = known[name].type.tensor_type.shape.dim if name in known else None
            if dims is None or not all(d.HasField("dim_value") for d in dims):
                raise InputError("a value whose size is not known", where=name[:200])
            if math.prod(d.dim_value for d in dims) > _MAX_ELEMENTS:
                raise InputError(f"a value of more than {_MAX_ELEMENTS} elements for one image", where=name[:200])
