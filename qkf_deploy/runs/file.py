"""Run files: what one simulation leaves behind for `energy`, `map` and `report`, as JSON.

``{"schema_version", "kind": "qkf-run", "network", "ledger", "widths", "graph", "gates", "predictions", "provenance",
"notices"}``.
The same run gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qkf_deploy import limits
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger
from qkf_deploy.runs.check import check_content
from qkf_deploy.runs.content import KIND, SCHEMA_VERSION, RunFile, run_data
from qkf_deploy.simulators.run import Run
from qkf_deploy.writing import write_atomically

#: Memory that JSON takes at most per byte of text, as in ``[[],[],[]``.
_PER_BYTE = 24
_AGAIN = "write it again with `qkf-deploy simulate ... -o run.json`"


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
            str(data["network"]),
        )
        check_content(run)
        return run
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"a damaged run file: {type(error).__name__}: {error}", hint=_AGAIN) from error


def read_run(path: str | Path) -> RunFile:
    """Read a run file.

    Raises:
        InputError: missing, truncated, not JSON, not a run file, or beyond the memory limit.
    """
    path = Path(path)
    try:
        data = json.loads(limits.read_whole(path, bytes_per_byte=_PER_BYTE))
    except InputError as error:
        raise InputError(error.message, where=error.where, hint=error.hint or _AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise InputError("not a complete JSON file", where=str(path), hint=_AGAIN) from error
    try:
        return from_data(data)
    except InputError as error:
        raise InputError(error.message, where=str(path), hint=error.hint or _AGAIN) from error
