"""A network's fingerprint: what ties runs, recordings and comparisons to the network they belong to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from qkf_deploy.ir.graph import Graph, Node


def digest(graph: Graph) -> str:
    """SHA-256 of what a graph computes: nodes, parameters, T, input and pixel normalization.

    The same before and after a `.qkf` file; names of classes, notices, provenance and places in source code are not
    part of it.
    """
    pre = graph.preprocessing
    structure = {
        "time_steps": graph.time_steps,
        "input_encoding": graph.input_encoding,
        "arithmetic": graph.arithmetic,
        "preprocessing": None if pre is None else [[float(v) for v in pre.mean], [float(v) for v in pre.std]],
        "nodes": [{**plain_node(node), "source": ""} for node in graph],
    }
    found = hashlib.sha256(json.dumps(structure, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
    for node in graph:
        for name in sorted(node.params):
            array = np.asarray(node.params[name], order="C")
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            found.update(f"{array.dtype.str}{array.shape}".encode())
            found.update(array.data)
    return found.hexdigest()


def plain_node(node: Node) -> dict[str, Any]:
    """A node without its arrays, as plain data."""
    inputs = [[o.node, None if o.view is None else dataclasses.astuple(o.view)] for o in node.inputs]
    type_ = node.type
    return {
        "name": node.name,
        "op": node.op.kind,
        "attributes": dataclasses.asdict(node.op),  # type: ignore[call-overload]  # operators are dataclasses
        "inputs": inputs,
        "type": [type_.shape, type_.kind.value, type_.timing.value, type_.high, type_.low],
        "params": sorted(node.params),
        "source": node.source,
    }
