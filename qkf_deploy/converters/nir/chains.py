"""Our NIR files in norse and sinabs, which run chains: their loader (nirtorch's ``load``) drops what meets at a node.

Nothing in a file is changed to please them; what they read otherwise than NIR defines it is said anew in memory here,
by :func:`for_norse` and :func:`for_sinabs`, and listed in ``docs/interchange.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy.converters.nir.builder import DT, nir
from qkf_deploy.converters.nir.clients import Client, ClientRun, imported, module_of, quiet
from qkf_deploy.errors import InputError

_TAKEN = ("Input", "Output", "Affine", "Linear", "Conv2d", "Flatten", "LIF", "IF")


def norse(path: Path, x: np.ndarray) -> ClientRun:
    """Run under norse's ``from_nir``, one step after the other; its time step is told as one, time constants in steps.

    Raises:
        MissingComponent: norse is not installed.
        InputError: no chain, or its importer refuses the file.
    """
    loader = module_of("norse.torch.utils.import_nir", "norse")
    torch = module_of("torch", "torch")
    graph = for_norse(_chain("norse", nir.read(path)))
    with quiet(), torch.no_grad():
        model = imported("norse", lambda: loader.from_nir(graph, ignore_warnings=True, dt=1.0))
        outputs, state = [], None
        for frame in torch.from_numpy(x):
            value, state = model(frame, state)
            outputs.append(value)
    return ClientRun(torch.stack(outputs).numpy(), {})


def sinabs(path: Path, x: np.ndarray) -> ClientRun:
    """Run under sinabs' ``from_nir``, whose layers are then told to fire once and to reset to 0.

    Raises:
        MissingComponent: sinabs is not installed.
        InputError: no chain, or its importer refuses the file.
    """
    loader = module_of("sinabs.nir", "sinabs")
    layers, activation = module_of("sinabs.layers", "sinabs"), module_of("sinabs.activation", "sinabs")
    torch = module_of("torch", "torch")
    graph = for_sinabs(_chain("sinabs", nir.read(path)), lambda tau: torch.exp(-1.0 / torch.from_numpy(tau)).numpy())
    steps, batch = x.shape[:2]
    with quiet(), torch.no_grad():
        model = imported("sinabs", lambda: loader.from_nir(graph, batch_size=batch))
        for layer in model.modules():
            if isinstance(layer, layers.LIFSqueeze | layers.IAFSqueeze):
                layer.spike_fn, layer.reset_fn = activation.SingleSpike, activation.MembraneReset()
                layer.min_v_mem = None
        flat = torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1)).reshape(batch * steps, *x.shape[2:]))
        output = model(flat)
    output = (output[0] if isinstance(output, tuple) else output).numpy()
    return ClientRun(np.ascontiguousarray(output.reshape(batch, steps, *output.shape[1:]).swapaxes(0, 1)), {})


CHAINS: Mapping[str, Client] = {"norse": norse, "sinabs": sinabs}


def for_norse(graph: Any) -> Any:
    """A chain as norse reads it: it ignores r and v_reset, takes the axes of Linear the other way, and has a batch."""
    for name, node in list(graph.nodes.items()):
        if isinstance(node, nir.Flatten):
            node.start_dim = 1
        elif isinstance(node, nir.Linear):
            graph.nodes[name] = _affine(node)
        elif isinstance(node, nir.LIF):
            # v += (r x - v) / tau with a threshold is v += (x - v) / tau with threshold / r
            node.tau, node.v_threshold = _steps(node), _float(node.v_threshold / node.r)
            node.r = np.ones_like(node.r)
    return graph


def for_sinabs(graph: Any, decay: Any) -> Any:
    """A chain as sinabs reads it: decay exp(-1 / tau), input not divided by tau, ``v_leak`` of one axis.

    Args:
        graph: of NIR; changed.
        decay: what sinabs makes of a float32 array of time constants, with its own exponential.
    """
    for name, node in list(graph.nodes.items()):
        if isinstance(node, nir.Linear):
            graph.nodes[name] = _affine(node)
        elif isinstance(node, nir.LIF):
            # v = a v + x with threshold th tau / r fires as v = a v + (r / tau) x with threshold th
            steps = _steps(node)
            node.v_threshold = _float(node.v_threshold * steps / (node.r))
            node.tau, node.v_leak = _exponential(steps, decay), np.zeros(1, np.float32)
    return graph


def _chain(tool: str, graph: Any) -> Any:
    """The graph, known to be a chain of nodes that these tools take, with neurons that rest and start at 0.

    Raises:
        InputError: it is none.
    """
    meets = [n for n, count in Counter(target for _, target in graph.edges).items() if count > 1]
    if meets:
        raise InputError(
            f"{tool} drops values that meet at one node ({meets[0]})", hint="--partitioned --chains cuts there"
        )
    for name, node in graph.nodes.items():
        kind = type(node).__name__
        if kind not in _TAKEN:
            raise InputError(f"{tool} does not take {kind} ({name})")
        if kind in ("LIF", "IF") and (np.any(node.v_reset) or (kind == "LIF" and np.any(node.v_leak))):
            raise InputError(f"{tool} reads neither a reset nor a leak voltage ({name})")
        if kind == "IF" and not np.allclose(node.r * DT, 1.0, rtol=1e-6, atol=0.0):
            raise InputError(f"{tool} does not read the r of an IF ({name})")
    return graph


def _affine(node: Any) -> Any:
    return nir.Affine(weight=node.weight, bias=np.zeros(len(node.weight), np.float32))


def _steps(node: Any) -> np.ndarray:
    """Time constants in steps, those within rounding of a whole number as whole."""
    steps = np.asarray(node.tau, np.float64) / DT
    return _float(np.where(np.abs(steps - np.rint(steps)) < 1e-6 * steps, np.rint(steps), steps))


def _exponential(steps: np.ndarray, decay: Any) -> np.ndarray:
    """Float32 time constants whose exponential decay is that of an Euler step, to the last bit where float32 has it."""
    kept = _float(1.0 - 1.0 / steps.astype(np.float64))
    near = _float(-1.0 / np.log(kept.astype(np.float64)))
    tried = [near]
    for direction in (-np.inf, np.inf):
        moved = near
        for _ in range(4):
            moved = np.nextafter(moved, np.float32(direction))
            tried.append(moved)
    error = np.stack([np.abs(decay(t).astype(np.float64) - kept) for t in tried])
    return np.take_along_axis(np.stack(tried), error.argmin(0)[None], 0)[0]


def _float(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)
