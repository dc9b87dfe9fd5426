"""One random network: torch in float64 against the traced graph, and its integers over engines and bits."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from spikingjelly.activation_based import functional, neuron

import qkf_deploy as qd
from oracle.networks import SIZE, STEPS, Network
from qkf_deploy.errors import ProofError, UnsupportedError

#: Relative to the largest membrane of a layer: what 32-bit weights and membranes with extra bits resolve.
RESOLUTION = 1e-6
#: Extra for decays that are not dyadic, m / 2^12, per step.
DECAY = 2.0**-12


@dataclass
class Outcome:
    """What became of one network.

    Attributes:
        case: seeds of the architecture and of the weights.
        close: why it is left out: a membrane nearer to its threshold than the stated resolution.
        refused: the refusals, by bits.
        compared: (bits, engine) whose integers equal the reference's.
        faults: what went wrong.
    """

    case: tuple[int, int]
    close: str = ""
    refused: dict[int, str] = field(default_factory=dict)
    compared: list[tuple[int, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def neuron_loop(node: torch.nn.Module, drive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and charged membranes of an IF or LIF neuron, written from their equations; ``(T, ...)``."""
    reset, threshold = node.v_reset, node.v_threshold
    rest = 0.0 if reset is None else reset
    v = np.full(drive.shape[1:], rest)
    spikes, charged = np.empty(drive.shape, bool), np.empty(drive.shape)
    for t, x in enumerate(drive):
        if not hasattr(node, "tau"):
            h = v + x
        elif node.decay_input:
            h = v + (x - (v - rest)) / node.tau
        else:
            h = v - (v - rest) / node.tau + x
        charged[t], spikes[t] = h, h >= threshold
        v = np.where(spikes[t], h - threshold if reset is None else reset, h)
    return spikes, charged


def closeness(node: torch.nn.Module, drive: np.ndarray, charged: np.ndarray) -> float:
    """How near a membrane comes to the threshold, in units of what integers resolve; ties of dyadic sums are none."""
    distance = np.abs(charged - node.v_threshold)
    tau = getattr(node, "tau", 2.0)
    dyadic = tau in (2.0, 4.0)
    exact = dyadic and (drive * 2.0**16 == np.rint(drive * 2.0**16)).all()
    if exact:
        distance = distance[distance > 0]
    limit = np.abs(charged).max() * (RESOLUTION + (0.0 if dyadic else DECAY * STEPS))
    return float(distance.min(initial=np.inf) / limit) if limit else np.inf


def run_torch(network: Network, images: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    """(spikes by neuron, logits, the neuron that comes too close to its threshold) of the float64 model."""
    model = copy.deepcopy(network).double()
    seen: dict[str, list[np.ndarray]] = {}
    drives: dict[str, list[np.ndarray]] = {}
    nodes = {n: m for n, m in model.named_modules() if isinstance(m, neuron.BaseNode)}
    for name, node in nodes.items():

        def hook(_m, inputs, output, name=name):
            drives.setdefault(name, []).append(inputs[0].detach().numpy().copy())
            seen.setdefault(name, []).append(output.detach().numpy().copy())

        node.register_forward_hook(hook)  # fmt: skip
    logits = []
    with torch.no_grad():
        for image in images:
            functional.reset_net(model)
            logits.append(model(torch.from_numpy(image[None] / 255.0)).numpy())
    spikes, close = {}, ""
    for name, node in nodes.items():
        drive, spikes[name] = (np.concatenate(x[name], axis=1) for x in (drives, seen))
        own, charged = neuron_loop(node, drive)
        if closeness(node, drive, charged) < 1:
            close = close or name
        elif not np.array_equal(own, spikes[name].astype(bool)):
            raise AssertionError(f"{name}: the equations and SpikingJelly differ")
    return spikes, np.concatenate(logits), close


def traced(network: Network) -> qd.Graph:
    """The traced network, float64 parameters."""
    return qd.trace(network, time_steps=STEPS, preset="none", image_size=SIZE, in_channels=2)


def with_parameters(graph: qd.Graph, network: Network) -> qd.Graph:
    """The traced graph with the weights that the network has now: tracing takes most of the time."""
    modules = dict(network.named_modules())
    names = {"weight": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    nodes = dict(graph.nodes)
    for name, node in graph.nodes.items():
        if node.params:
            new = {k: getattr(modules[name], names[k]).detach().numpy().astype(np.float64) for k in node.params}
            nodes[name] = replace(node, params={k: v.reshape(node.params[k].shape) for k, v in new.items()})
    return replace(graph, nodes=nodes).verify()


def compare(network: Network, graph: qd.Graph, case: tuple[int, int], bits: Sequence[int]) -> Outcome:
    """Quantize and run one network; see :class:`Outcome`."""
    out = Outcome(case)
    images = np.random.default_rng(case).integers(0, 256, (2, 2, SIZE, SIZE), dtype=np.uint8)
    spikes, logits, out.close = run_torch(network, images)
    folded = qd.fold(graph)
    for what, floating in (("traced", graph), ("folded", folded))[case[1] > 0 :]:  # tracing is the same for all draws
        run = qd.simulate(floating, images, record=list(spikes), engine="reference")
        if not out.close:
            out.faults += [f"{what}: {n}" for n in spikes if not np.array_equal(run.spikes[n], spikes[n])]
        on_torch = qd.simulate(floating, images, record=list(spikes), engine="torch")
        same = all(np.array_equal(on_torch.spikes[n], run.spikes[n]) for n in spikes)
        if not same or on_torch.ledger != run.ledger:
            out.faults.append(f"{what}: the torch engine differs from the reference")
    for width in bits:
        try:
            integer = qd.quantize(folded, width, first_bits=width)
        except (ProofError, UnsupportedError) as refusal:
            out.refused[width] = str(refusal).splitlines()[0]
            continue
        run = _compare_engines(out, integer, images, width)
        if width == 32 and not out.close:
            out.faults += [f"32 bits: {n}" for n in spikes if not np.array_equal(run.spikes[n], spikes[n])]
            if not np.abs(run.logits - logits).max() < 1e-5:
                out.faults.append("32 bits: logits")
        if not network.grids and not any("bits at least" in text for text in integer.notices):
            out.faults += [f"{width} bits: {n} keeps {k}" for n, k in bits_kept(integer).items() if k < width]
    return out


def _compare_engines(out: Outcome, integer: qd.Graph, images: np.ndarray, width: int) -> qd.Run:
    expected = qd.simulate(integer, images, record="all", engine="reference")
    # Making a session of ONNX takes as long as all the rest.
    for engine in ("event", "torch", "onnx")[: 2 + (out.case[1] % 2 == 0)]:
        try:
            run = qd.simulate(integer, images, record=() if engine == "onnx" else "all", engine=engine)
        except UnsupportedError:  # sums beyond the 53 bits of ONNX's doubles
            continue
        same = np.array_equal(run.raw_output, expected.raw_output)
        for name in run.spikes:
            same &= np.array_equal(run.spikes[name], expected.spikes[name])
        out.compared.append((width, engine))
        if not same:
            out.faults.append(f"{width} bits: {engine} differs from the reference")
    return expected


def bits_kept(integer: qd.Graph) -> dict[str, int]:
    """Bits of the largest weight of the narrowest channel; identities that lift spikes have no bits of their own."""
    out = {}
    for node in integer:
        if "weight" in node.params and "identity" not in node.name:
            weight = np.abs(node.params["weight"].astype(np.int64)).reshape(len(node.params["weight"]), -1).max(axis=1)
            out[node.name] = int(weight.min()).bit_length() + 1
    return out


def search(first: int, architectures: int, draws: int, bits: Sequence[int] = (4, 8, 16, 24, 32)) -> Iterator[Outcome]:
    """Compare ``draws`` networks of each of so many architectures."""
    for seed in range(first, first + architectures):
        network = Network(seed)
        graph = traced(network)
        for draw in range(draws):
            network.draw(seed + 1_000_003 * draw)
            yield compare(network, with_parameters(graph, network), (seed, draw), bits)
