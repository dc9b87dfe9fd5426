"""A network as stock NIR parts and what stock NIR lacks between them.

The network is cut at every node that stock NIR cannot say. Each part is one stock file with one input and one output
(importers drop further ones), so other people's software can run it; the nodes between parts, and everything after the
readout, are executed by this package. ``manifest.json`` names the order, ``network.qkf`` holds the whole graph.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy import bundle, limits
from qkf_deploy.converters.nir.builder import NirBuilder, Placed, placed_array
from qkf_deploy.converters.nir.clients import Client
from qkf_deploy.converters.nir.export import folded, serialize
from qkf_deploy.converters.nir.lowering import LOWERINGS, NO_PRODUCT, Emission, unwritten
from qkf_deploy.converters.nir.markers import natural
from qkf_deploy.errors import InputError, QkfError, UnsupportedError, damage
from qkf_deploy.ir import Graph, Node, View
from qkf_deploy.ir.values import Timing
from qkf_deploy.writing import new_folder

FORMAT = "qkf-nir-parts/1"
_HASH = "sha256"
MANIFEST, NETWORK = "manifest.json", "network.qkf"
_MAX_MANIFEST = 64 * 2**20
#: Executed by this package although NIR has a node: importers lack ``Scale``; the readout stays in float64.
_OURS = frozenset({"scale", "readout", "output"})


@dataclass(frozen=True)
class Part:
    """One stock file.

    Attributes:
        output: graph node whose value the part computes.
        source: graph node whose value it reads.
        source_view: how it reads that value, ``None`` as it is.
        source_shape: placed shape of the input.
        output_shape: placed shape of the output.
        output_view: from the placed output to the value's own shape.
        nodes: graph nodes inside.
    """

    output: str
    source: str
    source_view: View | None
    source_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output_view: View
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A partitioned network: in topological order, parts by the value they compute, all else executed here."""

    graph: Graph
    parts: Mapping[str, Part]
    reasons: Mapping[str, str]


def plan(graph: Graph, *, chains: bool = False) -> Plan:
    """Cut a graph. ``reasons`` says for every node outside the parts why it is there.

    Args:
        graph: float or integer.
        chains: cut also where values meet, so that every part is a chain; some tools run nothing else.
    """
    return _plan(folded(graph), chains)[0]


def _plan(graph: Graph, chains: bool) -> tuple[Plan, dict[str, Emission]]:
    reasons = {n.name: "stays with the reader of the manifest" for n in graph if _is_ours(n)}
    reasons |= {n.name: NO_PRODUCT for n in graph if n.op.kind == "matmul"}
    if chains:
        reasons |= {n.name: "joins values; the parts are chains" for n in graph if len(n.inputs) > 1} | reasons
    while True:
        parts: dict[str, Part] = {}
        emissions: dict[str, Emission] = {}
        refused = _refusals(graph, reasons, parts, emissions)
        if not refused:
            return Plan(graph, parts, reasons), emissions
        reasons |= refused


def _is_ours(node: Node) -> bool:
    return node.op.kind in _OURS or node.type.timing is Timing.IMAGE or getattr(node.op, "role", "") == "readout"


def _refusals(
    graph: Graph, ours: Mapping[str, str], parts: dict[str, Part], emissions: dict[str, Emission]
) -> dict[str, str]:
    """Fill in the parts that the present cut gives; returns nodes that must be cut out too."""
    edges = _boundary(graph, ours)
    for name in edges:
        if graph[name].op.kind == "input" or name in ours:
            continue
        inside, sources = _reach(graph, name, edges)
        if len(sources) > 1:
            return {_first_join(graph, inside, edges): "joins values of several parts"}
        try:
            parts[name], emissions[name] = _lower_part(graph, name, inside, sources.pop())
        except _RefusedNode as refusal:
            return {refusal.node: refusal.reason}
    return {}


def _boundary(graph: Graph, ours: Mapping[str, str]) -> list[str]:
    """Values that a part reads or computes: inputs, what our nodes compute, what our nodes read."""
    names = {graph.input.name, *ours}
    for name in ours:
        names |= {o.node for o in graph[name].inputs}
    return [name for name in graph.nodes if name in names]


def _reach(graph: Graph, name: str, edges: list[str]) -> tuple[list[Node], set[str]]:
    """Nodes that compute a value from boundary values, in order, and those boundary values."""
    inside, sources, stack = {name}, set[str](), [name]
    while stack:
        for operand in graph[stack.pop()].inputs:
            if operand.node in edges:
                sources.add(operand.node)
            elif operand.node not in inside:
                inside.add(operand.node)
                stack.append(operand.node)
    return [n for n in graph if n.name in inside], sources


def _first_join(graph: Graph, inside: list[Node], edges: list[str]) -> str:
    """The first node at which values of different sources meet."""
    origin: dict[str, str] = {}
    for node in inside:
        found = {o.node if o.node in edges else origin[o.node] for o in node.inputs}
        if len(found) > 1:
            return node.name
        origin[node.name] = found.pop()
    raise UnsupportedError("no node joins the parts", where=inside[-1].name)


class _RefusedNode(Exception):  # noqa: N818 - control flow inside this module
    def __init__(self, node: str, reason: str) -> None:
        super().__init__(node)
        self.node, self.reason = node, reason


def _lower_part(graph: Graph, name: str, inside: list[Node], source: str) -> tuple[Part, Emission]:
    views = {o.view for n in inside for o in n.inputs if o.node == source}
    view = views.pop() if len(views) == 1 else None
    reading = inside if view is None else [_without_view(n, source) for n in inside]
    value = graph[source].type
    shape, placed_view = natural(value.shape if view is None else view.shape)
    emission = Emission(graph, NirBuilder())
    placed = emission.builder.input(source, shape)
    emission.values[source] = Placed(placed.sources, shape, placed_view)
    for node in reading:
        try:
            emission.values[node.name] = LOWERINGS.get(node.op.kind, unwritten)(emission, node)
        except UnsupportedError as error:
            raise _RefusedNode(node.name, error.message) from error
    result = emission.values[name]
    if result.gain != 1.0:
        raise _RefusedNode(name, "a sum that NIR only has as a mean")
    emission.builder.output(name, result, result="per step")
    part = Part(name, source, view, shape, result.shape, result.view, tuple(n.name for n in inside))
    return part, emission


def _without_view(node: Node, source: str) -> Node:
    """The node reading an input whose view has been applied already."""
    inputs = tuple(dataclasses.replace(o, view=None) if o.node == source else o for o in node.inputs)
    return dataclasses.replace(node, inputs=inputs)


def export_parts(graph: Graph, directory: str | Path, *, chains: bool = False) -> Plan:
    """Write a directory of stock NIR parts, the manifest and the whole graph; complete or not at all.

    Args:
        graph: float or integer.
        directory: a new one.
        chains: as :func:`plan` takes it.

    Raises:
        InputError: the directory exists and is not empty, or cannot be written.
    """
    target = Path(directory)
    planned, emissions = _plan(folded(graph), chains)
    files = {name: f"part{i:03d}.nir" for i, name in enumerate(planned.parts)}
    with new_folder(target) as temporary:
        for name, file in files.items():
            (temporary / file).write_bytes(serialize(emissions[name].builder.graph()))
        bundle.save_graph(planned.graph, temporary / NETWORK)
        (temporary / MANIFEST).write_text(_manifest(planned, files, temporary))
    return planned


def _manifest(planned: Plan, files: Mapping[str, str], folder: Path) -> str:
    graph = planned.graph
    data = {
        "format": FORMAT,
        "network": NETWORK,
        "time_steps": graph.time_steps,
        "dt": 1e-4,
        "parts": [{"file": files[n], **_part_json(p)} for n, p in planned.parts.items()],
        "executed_by_reader": dict(planned.reasons),
        "files": {name: _file_hash(folder / name) for name in (*files.values(), NETWORK)},
    }
    return json.dumps({**data, _HASH: _content_hash(data)}, indent=1, sort_keys=True)


def _file_hash(path: Path) -> str:
    return hashlib.sha256(limits.read_whole(path)).hexdigest()


def _content_hash(data: Mapping[str, Any]) -> str:
    """SHA-256 over everything in a manifest but the hash itself."""
    return hashlib.sha256(json.dumps({**data, _HASH: None}, sort_keys=True).encode()).hexdigest()


def _check_hashes(data: Mapping[str, Any], root: Path) -> None:
    """The manifest and every file it names are as they were written; no signature, as in `.qkf` files."""
    if data.get(_HASH) != _content_hash(data):
        raise InputError("the manifest is not what was written: its hash differs", where=str(root / MANIFEST))
    for name in sorted({NETWORK, *(str(entry["file"]) for entry in data["parts"])}):
        if _file_hash(_inside(root, name)) != data["files"][name]:
            raise InputError("the file is not what was written: its hash differs", where=str(root / name))


def _part_json(part: Part) -> dict[str, Any]:
    return dataclasses.asdict(part)


def load_parts(directory: str | Path) -> tuple[Plan, dict[str, Path]]:
    """Read a manifest: the plan, and the file of each part by the value it computes.

    Raises:
        InputError: missing, damaged or contradictory files; a part outside the directory.
    """
    root = Path(directory)
    path = root / MANIFEST
    try:
        if path.stat().st_size > _MAX_MANIFEST:
            raise InputError("the manifest is larger than 64 MiB", where=str(path))
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError("not a manifest of NIR parts", where=str(path), hint=f"this version reads {FORMAT}")
        _check_hashes(data, root)
        graph = bundle.load_graph(root / NETWORK)
        parts, files = {}, {}
        for entry in data["parts"]:
            part = _part_from_json(entry, graph)
            parts[part.output] = part
            files[part.output] = _inside(root, str(entry["file"]))
        planned = Plan(graph, parts, {str(k): str(v) for k, v in data["executed_by_reader"].items()})
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=str(path), hint="export the network again") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"a damaged manifest: {damage(error)}", where=str(path)) from error
    _check(planned, path)
    return planned, files


def _part_from_json(entry: Mapping[str, Any], graph: Graph) -> Part:
    def view(v: Any) -> View | None:
        return None if v is None else View(
            tuple(v["split"]), tuple((a, b) for a, b in v["take"]), tuple(v["perm"]), tuple(v["shape"])
        )  # fmt: skip

    output_view = view(entry["output_view"])
    if output_view is None:
        raise ValueError("a part without output view")
    source_shape, output_shape = (tuple(int(n) for n in entry[k]) for k in ("source_shape", "output_shape"))
    return Part(
        graph[str(entry["output"])].name, graph[str(entry["source"])].name, view(entry["source_view"]),
        source_shape, output_shape, output_view, tuple(map(str, entry["nodes"])),
    )  # fmt: skip


def _inside(root: Path, name: str) -> Path:
    path = root / name
    if Path(name).name != name or path.is_symlink() or not path.is_file():
        raise InputError("a part that is not a plain file beside the manifest", where=str(path))
    return path


def _check(planned: Plan, path: Path) -> None:
    """Every value must be computable, and every shape must fit the graph."""
    for part in planned.parts.values():
        value = planned.graph[part.output].type
        seen = planned.graph[part.source].type.size if part.source_view is None else np.prod(part.source_view.shape)
        fits = part.output_view.shape == value.shape and np.prod(part.output_shape) == value.size
        if not fits or not part.output_view.keeps_all or seen != np.prod(part.source_shape):
            raise InputError("a part whose shapes do not fit the network", where=f"{path}: {part.output}")


def run_parts(planned: Plan, files: Mapping[str, Path], x: np.ndarray, client: Client) -> dict[str, np.ndarray]:
    """Run the whole network: parts in a client, everything else here, in the arithmetic of the graph.

    Args:
        planned: the plan.
        files: file of each part.
        x: encoded input, ``(1 or T, B, *shape)``.
        client: see :mod:`qkf_deploy.converters.nir.clients`.

    Returns:
        Every value at the cuts by graph node name, ``(T or 1, B, *shape)``; the output node's is the logits.
    """
    graph = planned.graph
    values: dict[str, np.ndarray] = {graph.input.name: x}
    for node in graph:
        if node.name in planned.parts:
            values[node.name] = _run_part(graph, planned.parts[node.name], files[node.name], values, client)
        elif node.name in planned.reasons:
            operands = [values[o.node] if o.view is None else o.view.apply(values[o.node]) for o in node.inputs]
            values[node.name] = node.op.run(operands, node.params, graph.time_steps)
    return values


def _run_part(graph: Graph, part: Part, file: Path, values: Mapping[str, np.ndarray], client: Client) -> np.ndarray:
    try:
        value = values[part.source]
    except KeyError:
        raise InputError("a part reads a value that nothing has computed", where=part.output) from None
    seen = value if part.source_view is None else part.source_view.apply(value)
    steps = graph.time_steps
    _, view = natural(seen.shape[2:])
    placed = placed_array(seen, view, part.source_shape, lead=2)
    full = np.broadcast_to(placed, (steps, *placed.shape[1:])).astype(np.float32)
    try:
        output = client(file, np.ascontiguousarray(full)).output
    except QkfError as error:
        raise InputError(error.message, where=str(file), hint=error.hint) from error
    if output.shape != (steps, value.shape[1], *part.output_shape):
        raise InputError(f"the client returned shape {output.shape}", where=str(file))
    result = part.output_view.apply(output)
    if graph[part.output].type.timing is Timing.CONSTANT:
        result = result[:1]
    return np.rint(result).astype(np.int64) if graph.arithmetic == "integer" else result.astype(np.float64)
