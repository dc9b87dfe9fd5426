"""Run files: what one simulation leaves behind for `energy` and `report`, as JSON.

``{"schema_version", "kind": "qkf-run", "ledger", "widths", "graph", "gates", "predictions", "provenance", "notices"}``.
The same run gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy.bundle import write_atomically
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ledger import Ledger
from qkf_deploy.ops import Mask
from qkf_deploy.report.run_check import check_content
from qkf_deploy.report.widths import width_rows
from qkf_deploy.simulators.run import Run

SCHEMA_VERSION = 1
KIND = "qkf-run"
_MAX_BYTES = 500_000_000
_AGAIN = "write it again with `qkf-deploy simulate ... -o run.json`"
_PACKAGES = ("qkf-deploy", "numpy", "torch", "spikingjelly", "numba", "onnxruntime")


@dataclass(frozen=True)
class RunFile:
    """A run read back.

    Attributes:
        ledger: counts.
        widths: one dictionary per node with proven widths, see :func:`qkf_deploy.report.widths.width_rows`.
        graph: summary of the network: ``time_steps``, ``arithmetic``, ``nodes`` ...
        gates: Q-K gate pictures of the first image, see :func:`gate_pictures`.
        predictions: index of the largest logit per image.
        provenance: source hashes, versions, command.
        notices: sentences the user should read.
    """

    ledger: Ledger
    widths: tuple[Mapping[str, Any], ...]
    graph: Mapping[str, Any]
    gates: tuple[Mapping[str, Any], ...]
    predictions: tuple[int, ...]
    provenance: Mapping[str, str]
    notices: tuple[str, ...]


def write_run(path: str | Path, graph: Graph, run: Run) -> None:
    """Write a run file, atomically.

    Args:
        path: of the file.
        graph: the network that ran.
        run: its result; gate pictures appear where the gates of :func:`gate_nodes` were recorded.

    Raises:
        InputError: the place cannot be written.
    """
    text = json.dumps(run_data(graph, run), sort_keys=True, separators=(",", ":"), allow_nan=False)
    write_atomically(Path(path), text.encode() + b"\n")


def run_data(graph: Graph, run: Run) -> dict[str, Any]:
    """Content of a run file as plain data."""
    per_image = run.logits.reshape(-1, *run.logits.shape[-2:]).sum(axis=0) if run.logits.ndim > 2 else run.logits
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "ledger": run.ledger.to_dict(),
        "widths": width_rows(graph),
        "graph": graph_summary(graph),
        "gates": gate_pictures(graph, run),
        "predictions": [int(i) for i in per_image.argmax(axis=-1)],
        "provenance": {**graph.provenance, **_versions(), "command": _command()},
        "notices": [*graph.notices, *run.notices],
    }


def from_data(data: Mapping[str, Any]) -> RunFile:
    """Inverse of :func:`run_data`. Raises InputError for another kind, schema, or missing fields."""
    if not isinstance(data, Mapping) or data.get("kind") != KIND:
        raise InputError("not a run file", hint=_AGAIN)
    if data.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"run schema {data.get('schema_version')!r}, this version reads {SCHEMA_VERSION}", hint=_AGAIN)
    try:
        run = RunFile(
            Ledger.from_dict(data["ledger"]),
            tuple(data["widths"]),
            data["graph"],
            tuple(data["gates"]),
            tuple(int(i) for i in data["predictions"]),
            {str(k): str(v) for k, v in data["provenance"].items()},
            tuple(map(str, data["notices"])),
        )
        check_content(run)
        return run
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"a damaged run file: {type(error).__name__}: {error}", hint=_AGAIN) from error


def read_run(path: str | Path) -> RunFile:
    """Read a run file.

    Raises:
        InputError: missing, truncated, not JSON, or not a run file.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"larger than {_MAX_BYTES} bytes", where=str(path))
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), hint=_AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise InputError("not a complete JSON file", where=str(path), hint=_AGAIN) from error
    try:
        return from_data(data)
    except InputError as error:
        raise InputError(error.message, where=str(path), hint=error.hint or _AGAIN) from error


def graph_summary(graph: Graph) -> dict[str, Any]:
    """The network as plain data: enough to draw it and to describe every node."""
    return {
        "time_steps": graph.time_steps,
        "input_encoding": graph.input_encoding,
        "arithmetic": graph.arithmetic,
        "parameters": graph.parameter_count(),
        "class_names": list(graph.class_names),
        "nodes": [_node_summary(node) for node in graph],
    }


def _node_summary(node: Node) -> dict[str, Any]:
    attributes = dataclasses.asdict(node.op)  # type: ignore[call-overload]  # operators are dataclasses
    return {
        "name": node.name,
        "op": node.op.kind,
        "attributes": attributes,
        "inputs": [o.node for o in node.inputs],
        "shape": list(node.type.shape),
        "kind": node.type.kind.value,
        "high": node.type.high,
        "parameters": sum(p.size for p in node.params.values()),
        "source": node.source,
    }


def gate_nodes(graph: Graph) -> tuple[str, ...]:
    """Neurons whose spikes open or close the tokens or channels of another value: record these for the pictures."""
    return tuple(dict.fromkeys(node.inputs[0].node for node in graph if isinstance(node.op, Mask)))


def gate_pictures(graph: Graph, run: Run) -> list[dict[str, Any]]:
    """How often each gate opened for the first image, summed over time.

    Returns:
        Per recorded gate: ``node``, ``time_steps``, ``heads``, ``positions`` (tokens, or channels for a channel gate),
        ``open`` (heads x positions, 0..T), and per step ``open_per_step``.
    """
    pictures = []
    for name in gate_nodes(graph):
        if name not in run.values:
            continue
        gate = np.asarray(run.values[name])[:, 0]
        heads = gate.shape[1] if gate.ndim > 2 else 1
        flat = gate.reshape(gate.shape[0], heads, -1).astype(np.int64)
        pictures.append(
            {
                "node": name,
                "time_steps": graph.time_steps,
                "heads": heads,
                "positions": flat.shape[2],
                "open": flat.sum(axis=0).tolist(),
                "open_per_step": flat.sum(axis=(1, 2)).tolist(),
            }
        )
    return pictures


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _command(arguments: Sequence[str] | None = None) -> str:
    given = sys.argv if arguments is None else arguments
    return shlex.join([Path(given[0]).name, *given[1:]]) if given else ""
