"""Which Q-K gates opened: what the pictures of a report are drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np

from qkf_deploy.ir import Graph
from qkf_deploy.simulators.run import Run, gate_nodes


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
