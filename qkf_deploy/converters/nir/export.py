"""Graph to one NIR file: stock nodes only (portable), or the whole network with marked stand-ins (annotated).

Every file carries a sidecar, the HDF5 group ``/qkf`` next to stock NIR's ``/node``: the complete graph as a `.qkf` file
in one dataset. Stock readers ignore it; :mod:`qkf_deploy.converters.nir.read` uses it to import without loss.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qkf_deploy import bundle
from qkf_deploy.converters.nir.builder import DT, LayoutError, NirBuilder, Placed, hdf5, nir
from qkf_deploy.converters.nir.lowering import LOWERINGS, Emission, unwritten
from qkf_deploy.converters.nir.markers import mark, rearrange
from qkf_deploy.converters.nir.safety import MARK, SIDECAR, SIDECAR_VERSION, stock_digest
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Node
from qkf_deploy.passes.fold import fold
from qkf_deploy.passes.widths import proven
from qkf_deploy.writing import write_atomically

Mode = Literal["portable", "annotated"]


def export_nir(graph: Graph, path: str | Path, mode: Mode = "portable") -> None:
    """Write one NIR file, dt = 1e-4 s.

    Args:
        graph: float or integer; batch norms and scales are folded first.
        path: the file.
        mode: ``portable`` refuses what stock NIR cannot say; ``annotated`` writes marked stand-ins that no client runs.

    Raises:
        UnsupportedError: portable mode, every node that stock NIR cannot say with its reason.
        ProofError: widths that do not hold for the weights.
        InputError: the place cannot be written.
    """
    write_atomically(Path(path), nir_bytes(graph, mode))


def nir_bytes(graph: Graph, mode: Mode = "portable") -> bytes:
    """What :func:`export_nir` writes."""
    proven(graph)
    emission = lower(folded(graph), mode)
    return serialize(emission.builder.graph(), graph, mode)


def folded(graph: Graph) -> Graph:
    """The graph without batch norms; integer graphs are folded already."""
    return fold(graph, borders=False) if graph.arithmetic == "float" else graph


def lower(graph: Graph, mode: Mode) -> Emission:
    """NIR nodes of a folded graph. Raises UnsupportedError (portable mode) listing every offender."""
    emission = Emission(graph, NirBuilder())
    problems = emit(emission)
    if mode == "portable" and problems:
        lines = "\n  ".join(f"{name}: {reason}" for name, reason in problems.items())
        raise UnsupportedError(
            f"stock NIR cannot say {len(problems)} of {len(graph.nodes)} nodes:\n  {lines}",
            hint="--partitioned cuts the network there, --annotated writes marked stand-ins",
        )
    return emission


def offenders(graph: Graph) -> dict[str, str]:
    """Nodes that stock NIR cannot say, with reasons."""
    return emit(Emission(folded(graph), NirBuilder()))


def emit(emission: Emission) -> dict[str, str]:
    """Lower every node in order, with a stand-in for each that NIR cannot say; returns those and why."""
    problems: dict[str, str] = {}
    for node in emission.graph:
        if node.op.kind == "input":
            emission.values[node.name] = emission.builder.input(node.name, node.type.shape)
            continue
        before = len(emission.builder.nodes), len(emission.builder.edges)
        try:
            emission.values[node.name] = lower_node(emission, node, behind_stand_in=bool(problems))
        except UnsupportedError as error:
            emission.builder.forget(*before)
            problems[node.name] = error.message
            emission.values[node.name] = mark(emission, node, error)
    return problems


def lower_node(emission: Emission, node: Node, *, behind_stand_in: bool) -> Placed:
    """One node. Behind a stand-in the axes of an operand may be arranged arbitrarily: then it passes another one."""
    try:
        return LOWERINGS.get(node.op.kind, unwritten)(emission, node)
    except LayoutError:
        if not behind_stand_in:
            raise
        moved = tuple(rearrange(emission, node, port) for port in range(len(node.inputs)))
        return LOWERINGS.get(node.op.kind, unwritten)(replace(emission, forced=moved), node)


def serialize(nir_graph: Any, graph: Graph | None = None, mode: str = "part") -> bytes:
    """HDF5 file of a NIR graph, with the sidecar if the whole graph is given."""
    buffer = io.BytesIO()
    nir.write(buffer, nir_graph)
    if graph is None:
        return buffer.getvalue()
    with hdf5.File(buffer, "r+") as file:
        file.attrs[MARK] = SIDECAR_VERSION
        group = file.create_group(SIDECAR)
        group.attrs["version"] = SIDECAR_VERSION
        group.attrs["mode"] = mode
        group.attrs["dt"] = DT
        group.attrs["time_steps"] = graph.time_steps
        group.attrs["stock_sha256"] = stock_digest(file["node"])
        group.create_dataset("graph", data=np.frombuffer(bundle.to_bytes(graph), np.uint8))
    return buffer.getvalue()
