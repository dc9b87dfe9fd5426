"""`.qkf` files: one safetensors file, tensors and a canonical JSON graph in its metadata.

Nothing in it can run code. Writing is atomic: a file is complete or absent. A SHA-256 over its content lies in it:
damage is noticed. It is no signature; whoever alters a file on purpose writes a hash that fits.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from qkf_deploy import limits
from qkf_deploy.errors import GraphError, InputError, QkfError, damage, told
from qkf_deploy.filekinds import refuse_others
from qkf_deploy.ir import Assumption, Graph, Node, Operand, Operator, Preprocessing, Resize, View, Widths, freeze
from qkf_deploy.ir.digest import plain_node
from qkf_deploy.ir.values import Kind, Timing, ValueType
from qkf_deploy.ops import OPERATORS
from qkf_deploy.writing import write_atomically

FORMAT = "qkf-graph/1"
_KEY = "qkf"
_HASH = "sha256"
_MAX_NODES = 100_000
#: Bytes that analyses of a graph need per element of a value at most: four arrays of int64.
_BYTES_PER_ELEMENT = 32
_REWRITE = "write it again with `qkf-deploy trace`"


def save_graph(graph: Graph, path: str | Path) -> None:
    """Write a verified graph.

    Raises:
        GraphError: the graph breaks a rule.
        InputError: the place cannot be written.
    """
    write_atomically(Path(path), to_bytes(graph))


def to_bytes(graph: Graph) -> bytes:
    """What :func:`save_graph` writes. Raises GraphError if the graph breaks a rule."""
    graph.verify()
    return save(_tensors(graph), metadata={_KEY: to_json(graph)})


def to_json(graph: Graph) -> str:
    """The metadata of a graph's file, see :func:`sealed`."""
    return sealed(_to_data(graph), _tensors(graph))


def _tensors(graph: Graph) -> dict[str, np.ndarray]:
    return {
        f"{node.name}/{name}": np.asarray(array, order="C") for node in graph for name, array in node.params.items()
    }


def sealed(data: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """The metadata of a file as canonical JSON, with the hash of everything that goes into the file.

    Args:
        data: the metadata.
        tensors: by name, C-contiguous.
    """
    return _canonical({**data, _HASH: content_hash(data, tensors)}, allow_nan=False)


def content_hash(data: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the metadata as canonical JSON (without the hash) and names, types, shapes, bytes of all tensors."""
    names = sorted(tensors)
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter's lock
        digests = pool.map(lambda name: hashlib.sha256(tensors[name].data), names)
    shapes = [
        [name, tensors[name].dtype.str, tensors[name].shape, d.hexdigest()]
        for name, d in zip(names, digests, strict=True)
    ]
    return hashlib.sha256(_canonical([{**data, _HASH: None}, shapes]).encode()).hexdigest()


def _canonical(data: Any, allow_nan: bool = True) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)


def load_graph(path: str | Path) -> Graph:
    """Read and verify a graph.

    Raises:
        InputError: missing, truncated, not a `.qkf` file, or an inconsistent graph.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", where=str(path), hint="`qkf-deploy trace` writes .qkf files")
    refuse_others(path, "network")
    limits.check(path.stat().st_size, "the file", str(path))
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"not a .qkf file: {told(error)}", where=str(path), hint=_REWRITE) from error
    if _KEY not in metadata:
        raise InputError(
            "a safetensors file without a graph", where=str(path), hint="a checkpoint? `qkf-deploy trace` it first"
        )
    try:
        return from_json(metadata[_KEY], tensors)
    except QkfError as error:
        place = f"{path}: {error.where}" if error.where else str(path)
        raise InputError(error.message, where=place, hint=error.hint or _REWRITE) from error


def from_bytes(data: bytes) -> Graph:
    """Inverse of :func:`to_bytes`. Raises InputError as :func:`load_graph` does."""
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text = header["__metadata__"][_KEY]
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"not a .qkf file: {told(error)}", hint=_REWRITE) from error
    return from_json(text, tensors)


def _to_data(graph: Graph) -> dict[str, Any]:
    """Everything but the tensors."""
    pre = graph.preprocessing
    return {
        "format": FORMAT,
        "time_steps": graph.time_steps,
        "input_encoding": graph.input_encoding,
        "arithmetic": graph.arithmetic,
        "preprocessing": None if pre is None else _pixels_to_data(pre),
        "class_names": graph.class_names,
        "provenance": dict(graph.provenance),
        "notices": graph.notices,
        "widths": {name: dataclasses.astuple(w) for name, w in graph.widths.items()},
        "factors": {name: [str(f) for f in graph.factors[name]] for name in graph.factors if name in graph.nodes},
        "assumptions": [dataclasses.asdict(a) for a in graph.assumptions],
        "nodes": [plain_node(node) for node in graph],
    }


def _pixels_to_data(pre: Preprocessing) -> dict[str, Any]:
    resize = {} if pre.resize is None else {"resize": dataclasses.asdict(pre.resize)}
    return {"mean": pre.mean, "std": pre.std, **resize}


def _pixels_from_data(data: Mapping[str, Any]) -> Preprocessing:
    resize = data.get("resize")
    return Preprocessing(_floats(data["mean"]), _floats(data["std"]), None if resize is None else Resize(**resize))


def from_json(text: str, tensors: Mapping[str, np.ndarray]) -> Graph:
    """The graph of a file's metadata and tensors.

    Raises:
        InputError: not this format, altered content, unknown operators, missing or non-finite tensors, wrong types of
            fields, values beyond the memory limit.
        GraphError: the graph breaks a rule.
    """
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError("the graph has another format", hint=f"this version reads {FORMAT}")
        _check_hash(data, tensors)
        if len(data["nodes"]) > _MAX_NODES:
            raise InputError(f"more than {_MAX_NODES} nodes")
        nodes = [_node_from_json(n, tensors) for n in data["nodes"]]
        if len({n.name for n in nodes}) != len(nodes):
            raise InputError("two nodes have the same name")
        pre = data["preprocessing"]
        graph = Graph(
            {n.name: n for n in nodes},
            int(data["time_steps"]),
            data["input_encoding"],
            data["arithmetic"],
            None if pre is None else _pixels_from_data(pre),
            tuple(map(str, data["class_names"])),
            {str(k): str(v) for k, v in data["provenance"].items()},
            tuple(map(str, data["notices"])),
            {str(name): _widths(*ranges) for name, ranges in data["widths"].items()},
            {str(name): tuple(Fraction(f) for f in given) for name, given in data.get("factors", {}).items()},
            tuple(Assumption(**{str(k): str(v) for k, v in a.items()}) for a in data.get("assumptions", ())),
        )
        _check_header(graph)
        return graph.verify()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, ArithmeticError) as error:
        raise InputError(f"a damaged graph: {damage(error)}", hint=_REWRITE) from error


def _check_hash(data: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    if _HASH not in data:
        raise InputError("the file carries no hash of its content", hint=_REWRITE)
    if data[_HASH] != content_hash(data, tensors):
        raise InputError(
            "the content is not what was written: its hash differs", hint="copy the file again, or write it again"
        )


def _widths(value: Any, partial: Any, membrane: Any) -> Widths:
    return Widths(
        (int(value[0]), int(value[1])),
        (int(partial[0]), int(partial[1])),
        None if membrane is None else (int(membrane[0]), int(membrane[1])),
    )


def _check_header(graph: Graph) -> None:
    if graph.input_encoding not in ("direct", "frames") or graph.arithmetic not in ("float", "integer"):
        raise InputError(f"unknown encoding {graph.input_encoding!r} or arithmetic {graph.arithmetic!r}")
    if graph.time_steps > 4096:
        raise InputError(f"time_steps is {graph.time_steps}, at most 4096")
    pre = graph.preprocessing
    if pre is not None:
        channels = graph.input.type.shape[0]
        finite = np.isfinite([*pre.mean, *pre.std]).all()
        if len(pre.mean) != channels or len(pre.std) != channels or not finite or min(pre.std) <= 0:
            raise InputError("mean and std do not fit the input channels")
        if pre.resize is not None:
            pre.resize.check(graph.input.type.shape)
    for name in graph.widths:
        if name not in graph.nodes:
            raise InputError("a width proof of an unknown node", where=name)
    for name, factors in graph.factors.items():
        if name not in graph.nodes or len(factors) != len(graph[name].inputs):
            raise InputError("factors that do not fit the operands", where=name)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _operator(kind: str, attributes: Mapping[str, Any]) -> Operator:
    if kind not in OPERATORS:
        raise InputError(f"unknown operator {kind!r}", hint="the file was written by a newer version?")
    cls = OPERATORS[kind]
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # operators are dataclasses
    needed = {name for name, f in fields.items() if f.default is dataclasses.MISSING}
    if not needed <= set(attributes) <= set(fields):  # a file of an older version lacks what was added since
        raise InputError(f"{kind} has the attributes {sorted(fields)}, the file says {sorted(attributes)}")
    return cls(**{k: _tuples(v) for k, v in attributes.items()})


def _node_from_json(data: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Node:
    name = str(data["name"])
    params = {}
    for key in data["params"]:
        array = tensors.get(f"{name}/{key}")
        if array is None:
            raise InputError(f"the tensor {key!r} is missing", where=name)
        if array.dtype.kind not in "iuf" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
            raise InputError(f"the tensor {key!r} has values that are not finite numbers", where=name)
        params[key] = array
    inputs = tuple(Operand(str(n), None if v is None else View(*_tuples(v))) for n, v in data["inputs"])
    shape, kind, timing, high, low = data["type"]
    type_ = ValueType(tuple(int(n) for n in shape), Kind(kind), Timing(timing), high, low)
    limits.check(type_.size * _BYTES_PER_ELEMENT, f"a value of the shape {type_.shape}", name)
    try:
        op = _operator(str(data["op"]), data["attributes"])
    except QkfError as error:
        raise GraphError(error.message, where=name, hint=error.hint) from error
    return Node(name, op, inputs, type_, freeze(params), str(data["source"]))
