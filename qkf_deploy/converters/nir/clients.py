"""Our NIR files in other people's simulators: SpikingJelly and snnTorch, through their own importers.

Both are optional and imported only here. Known traits of the clients are handled here and listed in
``docs/interchange.md``; nothing in a file is changed to please one of them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy.converters.nir.builder import DT, nir
from qkf_deploy.converters.nir.read import import_nir
from qkf_deploy.errors import InputError, MissingComponent, told
from qkf_deploy.options import ImportOptions
from qkf_deploy.simulators import reference

#: What an extra of this package brings.
_FROM = {name: "'qkf-deploy[torch]'" for name in ("torch", "spikingjelly", "nirtorch")}
#: Runs a NIR file on ``(T, B, *shape)`` float32 input.
Client = Callable[[Path, np.ndarray], "ClientRun"]


@dataclass(frozen=True)
class ClientRun:
    """What a client computed.

    Attributes:
        output: ``(T, B, *shape)`` float32 of the output node.
        values: output of every NIR node the client runs as a module, by sanitized NIR name.
    """

    output: np.ndarray
    values: Mapping[str, np.ndarray]


def spikingjelly(path: Path, x: np.ndarray) -> ClientRun:
    """Run under SpikingJelly's ``import_from_nir`` in multi-step mode.

    Raises:
        MissingComponent: SpikingJelly is not installed.
        InputError: its importer refuses the file.
    """
    exchange = module_of("spikingjelly.activation_based.nir_exchange", "spikingjelly")
    torch = module_of("torch", "torch")
    with quiet():
        model = imported("SpikingJelly", lambda: exchange.import_from_nir(str(path), dt=DT, step_mode="m"))
        kept, output = _run(torch, model, lambda: model(torch.from_numpy(x))[0])
    return ClientRun(output.numpy(), {name: values[0].numpy() for name, values in kept.items()})


def snntorch(path: Path, x: np.ndarray) -> ClientRun:
    """Run under snnTorch's ``import_from_nir``, one step after the other.

    snnTorch flattens from the batch axis on (NIR has no batch), so Flatten starts at 1 here.

    Raises:
        MissingComponent: snnTorch is not installed.
        InputError: its importer refuses the file.
    """
    importer = module_of("snntorch.import_nir", "snntorch")
    torch = module_of("torch", "torch")
    with quiet():
        model = imported("snnTorch", lambda: importer.import_from_nir(_batched(nir.read(path))))

        def steps() -> Any:
            outputs, state = [], None
            for frame in torch.from_numpy(x):
                result = model(frame, state) if state is not None else model(frame)
                value, state = result if isinstance(result, tuple) else (result, None)
                outputs.append(value)
            return torch.stack(outputs)

        kept, output = _run(torch, model, steps)
    return ClientRun(output.numpy(), {name: np.stack([v.numpy() for v in values]) for name, values in kept.items()})


def own(path: Path, x: np.ndarray) -> ClientRun:
    """Run the stock nodes of a file in this package's reference engine (float64), as an importer of stock NIR would.

    It takes per-channel thresholds, which the other clients refuse.
    """
    options = ImportOptions(preset="nir", time_steps=len(x), input_encoding="frames", dt=DT, readout=False, stock=True)
    run = reference.run(import_nir(path, options), x.astype(np.float64))
    return ClientRun(run.raw_output.astype(np.float32), {})


CLIENTS: Mapping[str, Client] = {"spikingjelly": spikingjelly, "snntorch": snntorch}


def installed(clients: Mapping[str, Client]) -> list[str]:
    """Names of the clients that can be imported here."""
    return [name for name in clients if importlib.util.find_spec(name) is not None]


def _batched(graph: Any) -> Any:
    for node in graph.nodes.values():
        if isinstance(node, nir.Flatten):
            node.start_dim = 1
    return graph


def _run(torch: Any, model: Any, call: Callable[[], Any]) -> tuple[dict[str, list[Any]], Any]:
    """Call a model and keep what each of its modules returns."""
    kept: dict[str, list[Any]] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            kept.setdefault(name, []).append((output[0] if isinstance(output, tuple) else output).detach())

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_children()]
    try:
        with torch.no_grad():
            output = call()
    finally:
        for handle in handles:
            handle.remove()
    return kept, output


def imported(client: str, load: Callable[[], Any]) -> Any:
    """What a client's importer gives. Raises InputError with its words where it refuses."""
    try:
        return load()
    except Exception as error:  # importers raise whatever comes to hand
        raise InputError(f"{client} refuses the file: {told(error)}") from error


def module_of(module: str, package: str) -> Any:
    """A module of a client. Raises MissingComponent where it, or what it imports, is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:  # of the package itself, or of one that its importer needs
        lacking = (error.name or package).split(".")[0]
        raise MissingComponent(
            f"{lacking} is not installed", hint=f"pip install {_FROM.get(lacking, lacking)}"
        ) from error


@contextlib.contextmanager
def quiet() -> Any:
    """Clients print progress; stdout carries results only."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)
