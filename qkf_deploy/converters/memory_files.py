"""Parameters of an integer network as ``$readmemh`` files, for test benches and memories of a chip.

A folder holds one ``.mem`` file per parameter and ``manifest.json``. A file has one number per line, in row-major order
of the shape, as hexadecimal digits of its two's complement in the width that the manifest gives.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qkf_deploy.converters.event_streams import stems
from qkf_deploy.ir import Graph
from qkf_deploy.ir.needs import need_integers
from qkf_deploy.ops.exact import signed_bits
from qkf_deploy.writing import new_folder

_MANIFEST = "manifest.json"


def export_memory(graph: Graph, folder: str | Path) -> Path:
    """Write every integer parameter of a network; returns the manifest.

    Args:
        graph: integer graph.
        folder: new or empty.

    Raises:
        UsageError: a float graph.
        InputError: the folder has files, or cannot be written.
    """
    need_integers(graph, "memory files hold integers")
    found = {
        f"{node.name}.{name}": (values, getattr(node.op, "weight_bits", None) if name == "weight" else None)
        for node in graph
        for name, values in node.params.items()
        if values.dtype.kind in "iu"
    }
    names = stems(found)
    entries: list[dict[str, Any]] = []
    with new_folder(Path(folder)) as temporary:
        for parameter, (values, bits) in found.items():
            width = max(bits or 1, signed_bits(int(values.min()), int(values.max())))
            digits = -(-width // 4)
            mask = (1 << width) - 1
            lines = "".join(f"{int(v) & mask:0{digits}x}\n" for v in values.reshape(-1).tolist())
            (temporary / f"{names[parameter]}.mem").write_text(lines)
            node, _, name = parameter.rpartition(".")
            entries.append(
                {"node": node, "parameter": name, "file": f"{names[parameter]}.mem", "bits": width,
                 "shape": list(values.shape)}
            )  # fmt: skip
        (temporary / _MANIFEST).write_text(json.dumps({"version": 1, "files": entries}, indent=1) + "\n")
    return Path(folder) / _MANIFEST
