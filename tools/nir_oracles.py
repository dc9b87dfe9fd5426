"""Small networks of other tools, as NIR files written by those tools, with the spikes that the tools compute.

Each tool runs in an environment of its own (they pin versions that exclude each other)::

    python tools/nir_oracles.py sinabs tests/interchange/files/sinabs

writes one ``.npz`` per network: ``nir`` (the file's bytes), ``x`` ``(T, B, *shape)``, ``spikes`` ``(T, B, *shape)``,
``tool`` (name and version) and ``options`` (of the import, as JSON, beyond the preset). Needs numpy, nir, the tool and
what it imports; norse and sinabs are installed with ``--no-deps``. Nothing of this package is used.

Weights and inputs are rounded to multiples of 2^-5, so that sums of products are exact in float32. Membranes that decay
are not; the tests require that every membrane of a network is farther from its threshold than the rounding.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nir
import numpy as np

STEPS, BATCH, GRID = 12, 3, 32.0
IMAGE, FEATURES, HIDDEN, CLASSES = (2, 6, 6), 20, 15, 5
#: Name, NIR graph, input, spikes, options of the import.
Case = tuple[str, Any, np.ndarray, np.ndarray, dict[str, Any]]


def rounded(values: np.ndarray) -> np.ndarray:
    """Float32 multiples of the grid."""
    return (np.rint(np.asarray(values) * GRID) / GRID).astype(np.float32)


def inputs(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return rounded(np.random.default_rng(seed).normal(0.3, 1.0, (STEPS, BATCH, *shape)))


def weights(seed: int, shape: tuple[int, ...], gain: float) -> np.ndarray:
    fan_in = int(np.prod(shape[1:]))
    return rounded(np.random.default_rng(seed).normal(0.1, gain / np.sqrt(fan_in), shape))


def torch_layers(kind: str, seed: int, gain: float, pool: Callable[[], Any] | None = None) -> list[Any]:
    """Layers of a linear or convolutional network; ``None`` stands for neurons of the shape that follows it."""
    import torch

    def filled(layer: Any, number: int) -> Any:
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weights(seed + number, tuple(layer.weight.shape), gain)))
            layer.bias.copy_(torch.from_numpy(weights(seed + 10 + number, tuple(layer.bias.shape), 0.1)))
        return layer

    if kind == "linear":
        return [
            filled(torch.nn.Linear(FEATURES, HIDDEN), 0), None, (HIDDEN,),
            filled(torch.nn.Linear(HIDDEN, CLASSES), 1), None, (CLASSES,),
        ]  # fmt: skip
    if kind == "convolutions":
        return [
            filled(torch.nn.Conv2d(2, 4, 3, padding=1), 0), None, (4, 6, 6),
            filled(torch.nn.Conv2d(4, 3, 3, stride=2), 1), None, (3, 2, 2),
        ]  # fmt: skip
    pooled = [] if pool is None else [pool()]
    side = 6 if pool is None else 3
    return [
        filled(torch.nn.Conv2d(2, 4, 3, padding=1), 0), None, (4, 6, 6), *pooled,
        torch.nn.Flatten(), filled(torch.nn.Linear(4 * side * side, CLASSES), 1), None, (CLASSES,),
    ]  # fmt: skip


def with_neurons(layers: list[Any], make: Callable[[tuple[int, ...]], Any]) -> list[Any]:
    out = []
    for index, layer in enumerate(layers):
        if layer is None:
            out.append(make(layers[index + 1]))
        elif not isinstance(layer, tuple):
            out.append(layer)
    return out


def shape_of(kind: str) -> tuple[int, ...]:
    return (FEATURES,) if kind == "linear" else IMAGE


def typed(graph: Any) -> Any:
    """With the shapes that the tool left open, found by NIR itself; without them nir 1.0.8 writes no file."""
    graph.infer_types()
    return graph


def sinabs() -> Iterator[Case]:
    import sinabs.layers as sl
    import torch
    from sinabs.nir import to_nir

    def lif(norm_input: bool) -> Callable[[tuple[int, ...]], Any]:
        def make(shape: tuple[int, ...]) -> Any:
            tau, threshold = torch.full(shape, 8.0), torch.full(shape, 0.125 if norm_input else 1.5)
            return sl.LIFSqueeze(tau_mem=tau, spike_threshold=threshold, batch_size=BATCH, norm_input=norm_input)

        return make

    def iaf(lowest: float | None) -> Callable[[tuple[int, ...]], Any]:
        return lambda shape: sl.IAFSqueeze(batch_size=BATCH, spike_threshold=torch.tensor(1.0), min_v_mem=lowest)

    cases = {
        "iaf_linear": ("linear", iaf(-1.0), {}),
        "iaf_conv": ("conv", iaf(-1.0), {}),
        "iaf_unbounded": ("linear", iaf(None), {"floor": False}),
        "lif_linear": ("linear", lif(True), {}),
        "lif_plain_input": ("linear", lif(False), {"gain": "one"}),
    }
    for number, (name, (kind, make, options)) in enumerate(cases.items()):
        layers = torch_layers(kind, 100 * number, 1.0, lambda: sl.SumPool2d(2))
        net = torch.nn.Sequential(*with_neurons(layers, make))
        x = inputs(number, shape_of(kind))
        flat = torch.from_numpy(np.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]).copy())  # (B T, ...)
        with torch.no_grad():
            spikes = net(flat).numpy().reshape(BATCH, STEPS, -1).swapaxes(0, 1)
        for layer in net:
            if hasattr(layer, "reset_states"):
                layer.reset_states()
        yield name, typed(to_nir(net, flat)), x, spikes, options


def norse() -> Iterator[Case]:
    import norse.torch as nt
    import torch
    from norse.torch.functional.reset import reset_subtract
    from norse.torch.utils.export_nir import to_nir

    def box(**parameters: Any) -> Callable[[tuple[int, ...]], Any]:
        def make(shape: tuple[int, ...]) -> Any:
            full = {
                "tau_mem_inv": torch.full(shape, 200.0), "v_th": torch.full(shape, 0.25),
                "v_leak": torch.zeros(shape), "v_reset": torch.zeros(shape),
            }  # fmt: skip
            levels = {k: torch.full(shape, v) if isinstance(v, float) else v for k, v in parameters.items()}
            return nt.LIFBoxCell(nt.LIFBoxParameters(**{**full, **levels}))

        return make

    def iaf(shape: tuple[int, ...]) -> Any:
        return nt.IAFCell(nt.IAFParameters(v_th=torch.full(shape, 1.0), v_reset=torch.zeros(shape)))

    cases = {
        "lifbox_linear": ("linear", box(), {}),
        "lifbox_leak": ("linear", box(v_leak=0.125), {}),
        "lifbox_subtract": ("linear", box(reset_method=reset_subtract), {"reset": "subtract"}),
        "lifbox_conv": ("convolutions", box(), {}),  # norse writes neither pools nor Flatten
        "iaf_linear": ("linear", iaf, {}),
    }
    for number, (name, (kind, make, options)) in enumerate(cases.items()):
        layers = with_neurons(torch_layers(kind, 200 + 100 * number, 1.0), make)
        net, x = nt.SequentialState(*layers), inputs(number, shape_of(kind))
        spikes, state = [], None
        with torch.no_grad():
            for frame in torch.from_numpy(x):
                out, state = net(frame, state)
                spikes.append(out.numpy())
        yield name, typed(to_nir(net, torch.from_numpy(x[0, 0]))), x, np.stack(spikes), options


def snntorch() -> Iterator[Case]:
    import snntorch as snn
    import torch
    from snntorch.export_nir import export_to_nir
    from snntorch.utils import reset as clear

    def leaky(mechanism: str, delay: bool, beta: float, threshold: float) -> Callable[[tuple[int, ...]], Any]:
        def make(shape: tuple[int, ...]) -> Any:
            return snn.Leaky(
                beta=torch.full(shape, beta), threshold=torch.full(shape, threshold), init_hidden=True,
                reset_mechanism=mechanism, reset_delay=delay,
            )  # fmt: skip

        return make

    cases = {
        "subtract": ("linear", "subtract", True, 0.9, 1.0, {}),
        "subtract_conv": ("conv", "subtract", True, 0.75, 1.0, {}),
        "zero": ("linear", "zero", True, 0.9, 1.0, {"reset": "hard"}),
        "subtract_at_once": ("linear", "subtract", False, 0.8, 2.0, {"reset": "subtract"}),  # no membrane above 2 V_th
    }
    for number, (name, (kind, mechanism, delay, beta, threshold, options)) in enumerate(cases.items()):
        layers = torch_layers(kind, 300 + 100 * number, 1.0, lambda: torch.nn.AvgPool2d(2))
        net = torch.nn.Sequential(*with_neurons(layers, leaky(mechanism, delay, beta, threshold)))
        x = inputs(number, shape_of(kind)) * np.float32(1.0 if delay else 0.5)
        clear(net)
        with torch.no_grad():
            spikes = np.stack([net(frame).numpy() for frame in torch.from_numpy(x)])
        clear(net)
        yield name, export_to_nir(net, torch.from_numpy(x[0]), ignore_dims=[0]), x, spikes, options


def spikingjelly() -> Iterator[Case]:
    import torch
    from spikingjelly.activation_based import functional, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    cases = {
        "if_linear": ("linear", lambda shape: neuron.IFNode(), {}),
        "if_reset_voltage": ("linear", lambda shape: neuron.IFNode(v_reset=-0.5), {}),
        "lif_conv": ("conv", lambda shape: neuron.LIFNode(tau=2.0, v_threshold=0.5), {}),
        "lif_undecayed": ("linear", lambda shape: neuron.LIFNode(tau=3.0, decay_input=False), {}),
        "plif_linear": ("linear", lambda shape: neuron.ParametricLIFNode(init_tau=1.7, v_threshold=0.5), {}),
    }
    for number, (name, (kind, make, options)) in enumerate(cases.items()):
        layers = torch_layers(kind, 400 + 100 * number, 1.0, lambda: torch.nn.AvgPool2d(2))
        net = torch.nn.Sequential(*with_neurons(layers, make)).eval()
        x = inputs(number, shape_of(kind))
        with torch.no_grad():
            spikes = np.stack([net(frame).numpy() for frame in torch.from_numpy(x)])
        functional.reset_net(net)
        yield name, export_to_nir(net, torch.from_numpy(x[0])), x, spikes, options


def spyx() -> Iterator[Case]:
    import jax.numpy as jnp
    from flax import nnx
    from spyx import nn
    from spyx.nir import to_nir

    rngs = nnx.Rngs(0)

    def dense(rows: int, columns: int, seed: int, gain: float = 1.0) -> Any:
        layer = nnx.Linear(rows, columns, rngs=rngs)
        layer.kernel[...] = jnp.asarray(weights(seed, (columns, rows), gain).T)
        layer.bias[...] = jnp.asarray(weights(seed + 1, (columns,), 0.1))
        return layer

    def conv(seed: int) -> Any:
        layer = nnx.Conv(2, 4, (3, 3), padding=[(1, 1), (1, 1)], rngs=rngs)
        layer.kernel[...] = jnp.asarray(weights(seed, (4, 2, 3, 3), 1.0).transpose(2, 3, 1, 0))
        layer.bias[...] = jnp.asarray(weights(seed + 1, (4,), 0.1))
        return layer

    def lif(shape: tuple[int, ...]) -> Any:
        return nn.LIF(shape, beta=0.75, rngs=rngs)

    networks = {
        "if_linear": lambda s: [dense(FEATURES, HIDDEN, s), nn.IF((HIDDEN,)), dense(HIDDEN, CLASSES, s + 2),
                                nn.IF((CLASSES,))],
        "lif_deep": lambda s: [dense(FEATURES, HIDDEN, s), lif((HIDDEN,)), dense(HIDDEN, HIDDEN, s + 2), lif((HIDDEN,)),
                               dense(HIDDEN, CLASSES, s + 4), lif((CLASSES,))],
        "lif_conv": lambda s: [conv(s), lif((6, 6, 4)), nn.SumPool((2, 2), (2, 2), "VALID"), lif((3, 3, 4))],
        "lif_flatten": lambda s: [conv(s), lif((6, 6, 4)), nn.Flatten(), dense(144, CLASSES, s + 2, 16.0),
                                  lif((CLASSES,))],
    }  # fmt: skip
    for number, (name, make) in enumerate(networks.items()):
        net = nn.Sequential(*make(500 + 100 * number))
        x = inputs(number, IMAGE if name in ("lif_conv", "lif_flatten") else (FEATURES,))
        spikes = np.moveaxis(np.asarray(nn.run(net, jnp.asarray(np.moveaxis(x, 2, -1)))[0]), -1, 2)
        graph = to_nir(net, {"input": np.array(x.shape[2:])}, {"output": np.array(spikes.shape[2:])}, dt=1)
        yield name, graph, x, spikes, {}


def main(tool: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    version = f"{tool} {importlib.metadata.version(tool)}, nir {importlib.metadata.version('nir')}"
    for name, graph, x, spikes, options in globals()[tool]():
        with tempfile.TemporaryDirectory() as directory:
            nir.write(Path(directory) / "net.nir", graph)
            stored = (Path(directory) / "net.nir").read_bytes()
        held = {"nir": np.frombuffer(stored, np.uint8), "x": x.astype(np.float32), "spikes": spikes.astype(np.uint8)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **held, tool=version, options=json.dumps(options))
        (folder / f"{name}.npz").write_bytes(buffer.getvalue())
        said = f"{len(buffer.getvalue())} bytes, mean {spikes.mean():.3f}, most {spikes.max():.0f}"
        sys.stdout.write(f"{tool} {name}: {said}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
