"""NIR files are opened in a child process with limits on memory and time; only checked arrays come back.

Flipped bits can make the HDF5 library loop for minutes or allocate gigabytes before a caller sees anything. The child
sends what it read as one safetensors message, which cannot carry code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from qkf_deploy import limits
from qkf_deploy.children import isolated_command
from qkf_deploy.converters.nir.safety import NirContent, RawGraph, RawNode, Value, read_content
from qkf_deploy.errors import InputError, QkfError, told

_BASE_MEMORY = 2 * 2**30  # address space of an interpreter with numpy and h5py, and room for small files
_MEMORY_PER_BYTE = 40
_BASE_SECONDS = 5
_BYTES_PER_SECOND = 2 * 2**20
_TREE, _SIDECAR = "tree", "sidecar"
_FAILED = 3
#: Parameters with one value per neuron: sent as one number where all are equal.
_PER_NEURON = frozenset(
    {"tau", "tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in", "threshold", "scale", "delay"}
)


def read_isolated(path: Path, stock_only: bool) -> NirContent:
    """:func:`qkf_deploy.converters.nir.safety.read_content` in a child process.

    Raises:
        InputError: what the child found, or that the file drove the HDF5 library past its limits.
    """
    if not path.is_file():
        raise InputError("no such file", hint="give a .nir file")
    size = path.stat().st_size
    seconds = _BASE_SECONDS + size // _BYTES_PER_SECOND
    limits.check(size, "the file")
    numbers = (int(stock_only), size, seconds, limits.allowed())
    command = isolated_command(__name__, str(path.resolve()), *map(str, numbers))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command, capture_output=True, timeout=4 * seconds, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"not read within {4 * seconds} s: damaged or hostile") from error
    if done.returncode == 0:
        return _decode(done.stdout)
    raise _failure(done.returncode, done.stderr)


def _failure(code: int, stderr: bytes) -> InputError:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    try:
        told = json.loads(lines[-1]) if code == _FAILED and lines else {}
    except ValueError:
        told = {}
    if "message" in told:
        return InputError(str(told["message"]), where=told.get("where"), hint=told.get("hint"))
    reason = f"signal {-code}" if code < 0 else (lines[-1] if lines else f"exit {code}")
    return InputError(f"the HDF5 library gave up on this file ({reason}): damaged or hostile")


def _decode(message: bytes) -> NirContent:
    try:
        tensors = load(message)
        tree = json.loads(tensors[_TREE].tobytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"the reading process sent nothing usable: {told(error)}") from error
    if _SIDECAR in tensors:
        return NirContent(None, tensors[_SIDECAR])
    node = _node_from(tree, tensors)
    if not isinstance(node, RawGraph):
        raise InputError("the reading process sent no graph")
    return NirContent(node, None, tree["version"])


def _encode(content: NirContent) -> bytes:
    tensors: dict[str, np.ndarray] = {}
    tree = None if content.stock is None else {**_tree_of(content.stock, tensors), "version": content.version}
    if content.sidecar is not None:
        tensors[_SIDECAR] = content.sidecar
    tensors[_TREE] = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    return save(tensors)


def _tree_of(node: RawNode | RawGraph, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    if isinstance(node, RawGraph):
        inner = {name: _tree_of(n, tensors) for name, n in node.nodes.items()}
        return {"nodes": inner, "edges": node.edges, "metadata": dict(node.metadata)}
    params: dict[str, Any] = {}
    for name, value in node.params.items():
        if isinstance(value, np.ndarray):
            params[name] = len(tensors)
            tensors[str(len(tensors))] = np.asarray(_plain(name, value), order="C")
        else:
            params[name] = value
    return {"type": node.type, "params": params, "metadata": dict(node.metadata)}


def _plain(name: str, value: np.ndarray) -> np.ndarray:
    if name in _PER_NEURON and value.size > 1 and (value == value.flat[0]).all():
        value = value.reshape(-1)[:1].copy()
    return value.astype(value.dtype.newbyteorder("="))


def _node_from(tree: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> RawNode | RawGraph:
    if "nodes" in tree:
        nodes = {name: _node_from(n, tensors) for name, n in tree["nodes"].items()}
        return RawGraph(nodes, tuple((a, b) for a, b in tree["edges"]), tree["metadata"])
    params: dict[str, Value] = {k: v if isinstance(v, str) else tensors[str(v)] for k, v in tree["params"].items()}
    return RawNode(tree["type"], params, tree["metadata"])


def _limit(size: int, seconds: int) -> None:
    """Bound this process. Windows has no such limits; there only the parent's clock works."""
    try:
        import resource
    except ImportError:
        return
    memory = _BASE_MEMORY + _MEMORY_PER_BYTE * size
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _main(arguments: list[str]) -> int:
    path, stock_only, size, seconds, allowed = arguments
    _limit(int(size), int(seconds))
    try:
        with limits.memory_limit(int(allowed)):
            message = _encode(read_content(Path(path), stock_only == "1"))
    except QkfError as error:
        told = {"message": error.message, "where": error.where, "hint": error.hint}
        print(json.dumps(told), file=sys.stderr)  # noqa: T201 - the parent reads it
        return _FAILED
    sys.stdout.buffer.write(message)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
