"""Small helpers to assemble an ONNX graph: names, constants, casts, and the float types that carry exact integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qkf_deploy.errors import MissingComponent, UnsupportedError

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:  # pragma: no cover - depends on the installation
    raise MissingComponent("onnx is not installed", hint="pip install 'qkf-deploy[onnx]'") from error

#: Largest magnitude up to which every integer is representable (IEEE 754: 24 and 53 significant bits).
_EXACT = ((TensorProto.FLOAT, 2**24), (TensorProto.DOUBLE, 2**53))
_SHARED_BYTES = 256
#: Outputs of every file; a node of the graph that is called like one is numbered.
RESULTS = ("raw_output", "logits")


def carrier(reach: int, where: str) -> int:
    """The ONNX float type in which every sum of integers up to ``reach`` in magnitude is exact in any order.

    Raises:
        UnsupportedError: beyond 53 bits.
    """
    for dtype, limit in _EXACT:
        if reach <= limit:
            return dtype
    raise UnsupportedError(
        f"an intermediate sum can reach {reach}, more than the 53 bits that ONNX floats carry exactly",
        where=where,
        hint="quantize with fewer weight or fraction bits",
    )


@dataclass(frozen=True)
class Tensor:
    """A value inside the ONNX graph.

    Attributes:
        name: ONNX value name.
        dtype: ONNX element type (``FLOAT`` or ``DOUBLE``).
        steps: time steps stacked along the first axis: shape ``(steps * batch, *per-step shape)``.
    """

    name: str
    dtype: int
    steps: int


@dataclass
class OnnxWriter:
    """Collects nodes and initializers; names are unique and made from the graph's own node names."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)
    _constants: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    _casts: dict[tuple[str, int], str] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """``name``, with a number where it is taken."""
        candidate, number = name, 1
        while candidate in self._taken or candidate in RESULTS:
            candidate, number = f"{name}.{number}", number + 1
        self._taken.add(candidate)
        return candidate

    def op(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        output = self.unique(name)
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def split(self, value: str, parts: int, name: str) -> list[str]:
        """Cut ``value`` into equal parts along its first axis."""
        if parts == 1:
            return [value]
        outputs = [self.unique(f"{name}.step{t}") for t in range(parts)]
        self.nodes.append(helper.make_node("Split", [value], outputs, name=self.unique(f"{name}.steps"), axis=0))
        return outputs

    def constant(self, array: np.ndarray, name: str) -> str:
        """An initializer; small equal ones are shared."""
        array = np.asarray(array, order="C")
        key = (str(array.dtype), array.shape, array.tobytes()) if array.nbytes <= _SHARED_BYTES else None
        if key is not None and key in self._constants:
            return self._constants[key]
        label = self.unique(name)
        self.initializers.append(numpy_helper.from_array(array, label))
        if key is not None:
            self._constants[key] = label
        return label

    def ints(self, values: Sequence[int], name: str = "ints") -> str:
        """An int64 vector (shapes, axes, slices)."""
        return self.constant(np.array(values, np.int64), name)

    def number(self, value: float, dtype: int, name: str = "number") -> str:
        """A scalar of an ONNX element type."""
        return self.constant(np.array(value, helper.tensor_dtype_to_np_dtype(dtype)), name)

    def real(self, array: np.ndarray, dtype: int, name: str = "numbers") -> str:
        """An array in an ONNX element type."""
        return self.constant(array.astype(helper.tensor_dtype_to_np_dtype(dtype)), name)

    def cast(self, value: str, dtype: int) -> str:
        """``value`` as another element type; each conversion is written once."""
        key = (value, dtype)
        if key not in self._casts:
            suffix = TensorProto.DataType.Name(dtype).lower()
            self._casts[key] = self.op("Cast", [value], f"{value}.{suffix}", to=dtype)
        return self._casts[key]

    def carried(self, tensor: Tensor, dtype: int) -> str:
        """Name of a tensor in the wanted element type."""
        return tensor.name if tensor.dtype == dtype else self.cast(tensor.name, dtype)

    def stored(self, array: np.ndarray, dtype: int, name: str) -> str:
        """A constant kept in its own integer type in the file and cast where it is used."""
        if array.dtype.kind == "f":
            return self.constant(array.astype(helper.tensor_dtype_to_np_dtype(dtype)), name)
        return self.cast(self.constant(array, name), dtype)

    def reshape(self, value: str, shape: Sequence[int], name: str) -> str:
        """``value`` with the given shape (one entry may be -1)."""
        return self.op("Reshape", [value, self.ints(shape)], name)

    def add_input(self, name: str, dtype: int, shape: Sequence[int | str], default: np.ndarray | None = None) -> str:
        """Declare a graph input; one with a default may be left out."""
        label = self.unique(name)
        self.inputs.append(helper.make_tensor_value_info(label, dtype, list(shape)))
        if default is not None:
            self.initializers.append(numpy_helper.from_array(np.asarray(default, order="C"), label))
        return label

    def add_output(self, value: str, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Expose ``value`` as a graph output called ``name``."""
        label = name if name in RESULTS else self.unique(name)
        self.nodes.append(helper.make_node("Identity", [value], [label], name=label))
        self.outputs.append(helper.make_tensor_value_info(label, dtype, list(shape)))
