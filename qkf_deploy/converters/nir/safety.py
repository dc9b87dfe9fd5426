"""Reading an untrusted NIR file within bounds: sizes are checked before anything is read.

This module runs in a process of its own (:mod:`qkf_deploy.converters.nir.isolated`), because damaged files can make the
HDF5 library itself loop, crash or allocate without end.

HDF5 lets a file of a few kilobytes declare arrays of gigabytes (chunks that were never written, compressed zeros),
point at other files, and contain itself. Stock ``nir.read`` follows all of that. Here only plain groups and plain
numeric or string datasets inside the file are accepted, and nothing is read that the stored bytes cannot justify.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy import limits
from qkf_deploy.errors import InputError, MissingComponent, damage

try:
    import h5py
    from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]
except ImportError as error:
    raise MissingComponent("h5py is not installed", hint="pip install 'qkf-deploy[nir]'") from error

MAX_NODES = 20_000
MAX_EDGES = 500_000
MAX_DEPTH = 8
MAX_NAME = 512
MAX_ENTRIES = 64  # datasets and groups inside one node
MAX_TEXT = 2**20
MAX_ARRAY = 2**29  # bytes of one array
#: DEFLATE expands at most 1032 times (zlib technical details, "Maximum Compression Factor").
_MAX_EXPANSION = 1100
_SLACK = 2**16
#: What h5py raises over damaged headers: a lost filter parameter is an IndexError, for one.
_DAMAGED = (OSError, ValueError, RuntimeError, LookupError, TypeError, OverflowError, MemoryError, AttributeError)
_LONGEST_VERSION = 40
SIDECAR = "qkf"
SIDECAR_VERSION = "qkf-nir/1"
#: Attribute of the file itself: a sidecar belongs to it. Tools that write the stock nodes anew leave both away.
MARK = "qkf_sidecar"
_EDGE_ROWS, _EDGE_BYTES = 4096, 2**26
_FILTERS = {"gzip", "lzf", None}
_HINT = "write the file again with the tool it came from"
_STOCK = "import with --stock to read the stock nodes"

Value = np.ndarray | str


@dataclass(frozen=True)
class RawNode:
    """One NIR node as stored: its type, parameters and metadata, nothing interpreted."""

    type: str
    params: Mapping[str, Value]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class RawGraph:
    """A NIR graph as stored; nodes may be graphs."""

    nodes: Mapping[str, RawNode | RawGraph]
    edges: tuple[tuple[str, str], ...]
    metadata: Mapping[str, str]


@dataclass
class _Budget:
    """What one file may still spend."""

    file_size: int
    nodes: int = MAX_NODES
    bytes: int = 0
    seen: set[int] = field(default_factory=set)

    def spend(self, size: int, place: str) -> None:
        self.bytes += size
        limits.check(self.bytes, "what the file declares", place)


@dataclass(frozen=True)
class NirContent:
    """What a NIR file holds: the bytes of our sidecar's graph, or else the stock graph; and the version of nir."""

    stock: RawGraph | None
    sidecar: np.ndarray | None
    version: str = ""


def read_content(path: Path, stock_only: bool) -> NirContent:
    """Read one file.

    Args:
        path: the file.
        stock_only: ignore the sidecar.

    Raises:
        InputError: see :func:`read_stock`; a sidecar that is gone, damaged, or no longer belongs to the stock nodes.
    """
    try:
        with open_file(path) as file:
            stock = read_stock(file)
            sidecar = None if stock_only else read_sidecar(file)
            version = _version(file)
    except _DAMAGED as error:
        raise InputError(f"a damaged file: {damage(error)}", hint=_HINT) from error
    return NirContent(stock if sidecar is None else None, sidecar, version)


def _version(file: Any) -> str:
    """Version of nir that wrote the file, "" where it does not say."""
    item = child(file, "version", "")
    if not isinstance(item, h5py.Dataset) or not _is_text(item):
        return ""
    return str(_dataset(item, "/version", _Budget(1)))[:_LONGEST_VERSION]


def read_sidecar(file: Any) -> np.ndarray | None:
    """Bytes of the graph stored beside the stock nodes, if there is one and the stock nodes are as they were."""
    try:
        group = child(file, SIDECAR, "")
        if group is None and MARK in file.attrs:
            raise InputError("the sidecar that the file was written with is gone", hint=_STOCK)
        if group is None:
            return None
        if not isinstance(group, h5py.Group) or group.attrs.get("version") != SIDECAR_VERSION:
            raise InputError("a sidecar of another version", where=f"/{SIDECAR}", hint=_STOCK)
        data = child(group, "graph", f"/{SIDECAR}")
        _check_sidecar(data)
        if group.attrs.get("stock_sha256") != stock_digest(file["node"]):
            raise InputError(
                "the stock nodes were changed after the export, the sidecar was not",
                where=f"/{SIDECAR}",
                hint=_STOCK,
            )
        return np.asarray(data[()])
    except _DAMAGED as error:
        raise InputError(f"a damaged sidecar: {damage(error)}", where=f"/{SIDECAR}") from error


def _check_sidecar(data: Any) -> None:
    plain = isinstance(data, h5py.Dataset) and data.dtype == np.uint8 and data.ndim == 1 and not data.is_virtual
    size = (data.size if plain else None) or 0
    if not plain or data.external or data.compression is not None or not 0 < size <= 8 * MAX_ARRAY:
        raise InputError("a sidecar that is not plain bytes", where=f"/{SIDECAR}/graph")
    if data.id.get_storage_size() < size:
        raise InputError("a sidecar that declares more than it stores", where=f"/{SIDECAR}/graph")


def stock_digest(group: Any) -> str:
    """SHA-256 over names, types and contents of everything in the stock part, so that later edits are noticed."""
    digest = hashlib.sha256()

    def visit(name: str, item: Any) -> None:
        digest.update(name.encode())
        if isinstance(item, h5py.Dataset):
            value = item[()]
            array = np.asarray(value if not isinstance(value, bytes) else np.frombuffer(value, np.uint8))
            if array.dtype == object:
                array = np.frombuffer(b"\0".join(bytes(v) for v in array.reshape(-1)), np.uint8)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())

    group.visititems(visit)
    return digest.hexdigest()


def open_file(path: Path) -> Any:
    """The HDF5 file, read-only.

    Raises:
        InputError: missing or not HDF5.
    """
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    try:
        return h5py.File(path, "r")
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"not an HDF5 file: {error}", where=str(path), hint=_HINT) from error


def read_stock(file: Any) -> RawGraph:
    """The stock part of an open file, ``/node``.

    Raises:
        InputError: anything beyond the limits of this module, links, unknown layouts; names the place in the file.
    """
    try:
        node = child(file, "node", "")
        if not isinstance(node, h5py.Group):
            raise InputError("no NIR graph in this file", where="/node", hint=_HINT)
        graph = _node(node, "/node", 0, _Budget(max(1, Path(file.filename).stat().st_size)))
    except _DAMAGED as error:
        raise InputError(f"a damaged file: {damage(error)}", hint=_HINT) from error
    if not isinstance(graph, RawGraph):
        raise InputError(f"the file holds a single {graph.type} node, not a graph", where="/node")
    return graph


def child(group: Any, name: str, place: str) -> Any:
    """A member of a group that lies in this file. Raises InputError for links, ``None`` where there is none."""
    link = group.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        kind = "external" if isinstance(link, h5py.ExternalLink) else "soft"
        raise InputError(f"an {kind} link; a NIR file contains everything itself", where=f"{place}/{name}")
    return group[name]


def _members(group: Any, place: str, limit: int) -> dict[str, Any]:
    if len(group) > limit:
        raise InputError(f"{len(group)} members, at most {limit} are read", where=place)
    out = {}
    for name in group:
        if not isinstance(name, str) or len(name) > MAX_NAME:
            raise InputError("a name that is too long or not text", where=place)
        out[name] = child(group, name, place)
    return out


def _node(group: Any, place: str, depth: int, budget: _Budget) -> RawNode | RawGraph:
    if depth > MAX_DEPTH:
        raise InputError(f"graphs nested more than {MAX_DEPTH} deep", where=place)
    identity = h5o.get_info(group.id).addr
    if identity in budget.seen:
        raise InputError("a group that appears twice in the file (a hard link)", where=place)
    budget.seen.add(identity)
    budget.nodes -= 1
    if budget.nodes < 0:
        raise InputError(f"more than {MAX_NODES} nodes", where=place)
    members = _members(group, place, MAX_ENTRIES)
    kind = _dataset(members.pop("type", None), f"{place}/type", budget)
    if not isinstance(kind, str):
        raise InputError("a node without a type", where=place, hint=_HINT)
    metadata = _metadata(members.pop("metadata", None), f"{place}/metadata", budget)
    if kind == "NIRGraph":
        return _graph(members, place, depth, budget, metadata)
    params = {k: _dataset(v, f"{place}/{k}", budget) for k, v in members.items()}
    return RawNode(kind, params, metadata)


def _graph(members: Mapping[str, Any], place: str, depth: int, budget: _Budget, notes: Mapping[str, str]) -> RawGraph:
    inner, edges = members.get("nodes"), members.get("edges")
    if not isinstance(inner, h5py.Group) or not isinstance(edges, h5py.Dataset):
        raise InputError("a graph without nodes or edges", where=place, hint=_HINT)
    nodes: dict[str, RawNode | RawGraph] = {}
    for name, item in _members(inner, f"{place}/nodes", MAX_NODES).items():
        if not isinstance(item, h5py.Group):
            raise InputError("a node that is not a group", where=f"{place}/nodes/{name}")
        nodes[name] = _node(item, f"{place}/nodes/{name}", depth + 1, budget)
    return RawGraph(nodes, _edges(edges, f"{place}/edges", nodes, budget), notes)


def _edges(dataset: Any, place: str, nodes: Mapping[str, Any], budget: _Budget) -> tuple[tuple[str, str], ...]:
    if dataset.size == 0:
        return ()
    if dataset.ndim != 2 or dataset.shape[1] != 2 or dataset.shape[0] > MAX_EDGES:
        raise InputError(f"edges of shape {dataset.shape}, not (count, 2) with at most {MAX_EDGES}", where=place)
    if h5py.check_string_dtype(dataset.dtype) is None:
        raise InputError("edges that are not names", where=place)
    _check_storage(dataset, place, budget)
    out: list[tuple[str, str]] = []
    # Many names may point at one long string in the file, so few are read at a time where the file is large.
    rows = max(1, min(_EDGE_ROWS, _EDGE_BYTES // budget.file_size))
    for start in range(0, dataset.shape[0], rows):
        for row in dataset[start : start + rows]:
            source, target = (_text(v, place, MAX_NAME) for v in row)
            out.append((source, target))
    unknown = {end for edge in out for end in edge} - set(nodes)
    if unknown:
        raise InputError(f"an edge to an unknown node {min(unknown)!r}", where=place)
    return tuple(out)


def _text(value: object, place: str, longest: int = MAX_TEXT) -> str:
    text = value.decode("utf-8") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > longest:
        raise InputError("text that is too long or not text", where=place)
    return text


def _metadata(group: Any, place: str, budget: _Budget) -> dict[str, str]:
    """Text and number entries of a node's metadata, as text; everything else in there is ignored unread."""
    if not isinstance(group, h5py.Group):
        return {}
    entries = _members(group, place, MAX_ENTRIES)
    simple = {k: v for k, v in entries.items() if isinstance(v, h5py.Dataset) and (_is_text(v) or _is_number(v))}
    return {k: str(_dataset(v, f"{place}/{k}", budget)) for k, v in simple.items()}


def _is_number(dataset: Any) -> bool:
    return dataset.shape == () and dataset.dtype.kind in "iuf"


def _is_text(dataset: Any) -> bool:
    return dataset.shape == () and h5py.check_string_dtype(dataset.dtype) is not None


def _dataset(item: Any, place: str, budget: _Budget) -> Value:
    if item is None or not isinstance(item, h5py.Dataset):
        raise InputError("missing or not an array", where=place, hint=_HINT)
    if _is_text(item):
        _check_storage(item, place, budget)
        text = _text(item[()], place)
        budget.spend(len(text), place)
        return text
    if item.dtype.kind not in "iufb" or item.shape is None:
        raise InputError(f"an array of type {item.dtype}; numbers are expected", where=place)
    _check_storage(item, place, budget)
    return np.asarray(item[()])


def _check_storage(dataset: Any, place: str, budget: _Budget) -> None:
    """Refuse what is stored elsewhere, packed in an unknown way, or larger than its stored bytes can be."""
    if dataset.is_virtual or dataset.external:
        raise InputError("an array stored in another file", where=place)
    if dataset.compression not in _FILTERS or dataset.scaleoffset is not None:
        raise InputError(f"an array packed with {dataset.compression}", where=place, hint="use gzip or no compression")
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize if dataset.chunks else 0
    if max(declared, chunk) > MAX_ARRAY:
        raise InputError(f"an array of {max(declared, chunk)} bytes, at most {MAX_ARRAY} are read", where=place)
    stored = dataset.id.get_storage_size()
    if max(declared, chunk) > stored * _MAX_EXPANSION + _SLACK:
        raise InputError(f"declares {declared} bytes but stores {stored}", where=place, hint=_HINT)
    budget.spend(declared, place)
