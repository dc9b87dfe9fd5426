"""NIR files read: our own bit for bit, stock files of other tools spike for spike, everything else refused by name."""

from __future__ import annotations

import contextlib
import io
import itertools
from dataclasses import replace
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
from zoo import CHANNELS, ZOO, images

from qkf_deploy import bundle
from qkf_deploy.converters.nir.clients import own
from qkf_deploy.converters.nir.export import export_nir
from qkf_deploy.converters.nir.partition import export_parts, load_parts, run_parts
from qkf_deploy.converters.nir.read import import_nir
from qkf_deploy.errors import InputError, UnsupportedError
from qkf_deploy.options import ImportOptions
from qkf_deploy.passes.quantize import QuantizeOptions, quantize
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

FRAMES = ImportOptions(input_encoding="frames", readout=False)
FILES = Path(__file__).parent / "files"


@pytest.mark.parametrize("options", [None, QuantizeOptions(), QuantizeOptions(bits=4, input="fixed")])
@pytest.mark.parametrize("name", ZOO)
def test_round_trip_of_our_files_is_bit_exact(name, options, tmp_path):
    graph = ZOO[name](np.random.default_rng(0))
    graph = graph if options is None else quantize(graph, options)
    export_nir(graph, tmp_path / "net.nir", "annotated")
    assert bundle.to_bytes(import_nir(tmp_path / "net.nir")) == bundle.to_bytes(graph)
    bundle.save_graph(graph, tmp_path / "net.qkf")
    again = bundle.load_graph(tmp_path / "net.qkf")
    assert bundle.to_bytes(again) == bundle.to_bytes(graph)
    for node in graph:
        for key, array in node.params.items():
            np.testing.assert_array_equal(again[node.name].params[key], array)
            assert again[node.name].params[key].dtype == array.dtype


@pytest.mark.parametrize("name", ["convnet", "residual", "token_attention", "channel_attention", "spike_pooling"])
@pytest.mark.parametrize("options", [None, QuantizeOptions(bits=4, input="fixed")])
def test_stock_part_alone_gives_the_same_spikes(name, options, tmp_path):
    """Float and integer graphs; per-channel thresholds of the latter are what SpikingJelly and snnTorch refuse."""
    rng = np.random.default_rng(3)
    graph = ZOO[name](rng)
    graph = graph if options is None else quantize(graph, options)
    export_nir(graph, tmp_path / "net.nir")
    stock = import_nir(tmp_path / "net.nir", ImportOptions(stock=True))
    x, _ = encode(graph, images(graph, rng))
    expected = reference.run(graph, x)
    actual = reference.run(stock, x.astype(np.float64))
    np.testing.assert_allclose(actual.logits, expected.logits, rtol=0, atol=1e-6)
    neurons = [r.total("events_out_unary") for r in expected.ledger if r.op.endswith("neuron") or r.op == "mask"]
    found = [r.total("events_out_unary") for r in actual.ledger if r.op == "neuron"]
    assert sum(neurons) > 100
    assert [n for n in found if n in neurons] == neurons or set(neurons) <= set(found)


@pytest.mark.parametrize("name", ["self_attention", "membrane_shortcut", "grouped"])
@pytest.mark.parametrize("options", [None, QuantizeOptions(), QuantizeOptions(bits=4, input="fixed")])
def test_integer_partitions_give_the_same_integers(name, options, tmp_path):
    rng = np.random.default_rng(1)
    graph = ZOO[name](rng)
    graph = graph if options is None else quantize(graph, options)
    export_parts(graph, tmp_path / "parts")
    planned, files = load_parts(tmp_path / "parts")
    x, _ = encode(planned.graph, images(planned.graph, rng))
    expected = reference.run(planned.graph, x, Record.of(planned.graph, "all"))
    values = run_parts(planned, files, x, own)
    for node in values:
        if node in expected.values and (options is not None or planned.graph[node].type.is_events):
            np.testing.assert_array_equal(values[node], expected.values[node], err_msg=node)
    np.testing.assert_allclose(values[planned.graph.output.name], expected.raw_output, rtol=0, atol=1e-12)


def dyadic(module, torch, gain):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.round(parameter * 64 * gain) / 64)


def frames(torch, shape=(2, 6, 6)):
    return torch.round(torch.randn(4, 3, *shape) * 32) / 32


@pytest.mark.parametrize("seed", range(3))
def test_spikingjelly_exports(seed, tmp_path):
    torch = pytest.importorskip("torch")
    from spikingjelly.activation_based import layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c1, self.l1 = layer.Conv2d(2, 4, 3, padding=1), neuron.LIFNode(tau=2.0)
            self.c2, self.l2 = layer.Conv2d(4, 4, 3, padding=1), neuron.LIFNode(tau=4.0, decay_input=False)
            self.pool, self.flat = layer.AvgPool2d(2), layer.Flatten()
            self.fc, self.l3 = layer.Linear(36, 5), neuron.IFNode()

        def forward(self, x):
            x = self.l1(self.c1(x))
            x = x + self.l2(self.c2(x))
            return self.l3(self.fc(self.flat(self.pool(x))))

    torch.manual_seed(seed)
    net = Net().eval()
    dyadic(net, torch, 3)
    nir.write(tmp_path / "net.nir", export_to_nir(net, torch.randn(1, 2, 6, 6)))
    x = frames(torch)
    for module in net.modules():
        if hasattr(module, "reset"):
            module.reset()
    with torch.no_grad():
        expected = torch.stack([net(frame) for frame in x]).numpy()
    graph = import_nir(tmp_path / "net.nir", replace(FRAMES, fires="at"))
    actual = reference.run(graph, x.numpy().astype(np.float64)).raw_output
    assert expected.any()
    np.testing.assert_array_equal(actual, expected)


def test_snntorch_exports(tmp_path):
    torch = pytest.importorskip("torch")
    snn = pytest.importorskip("snntorch")
    from snntorch.export_nir import export_to_nir
    from snntorch.utils import reset

    def leaky(n, **kwargs):
        beta, threshold = torch.full((n,), 0.5), torch.ones(n)
        return snn.Leaky(
            beta=beta, threshold=threshold, init_hidden=True, reset_mechanism="zero", reset_delay=False, **kwargs
        )

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(72, 20), leaky(20), torch.nn.Linear(20, 5), leaky(5, output=True))
    for layer in (net[0], net[2]):
        dyadic(layer, torch, 4)
    with contextlib.redirect_stdout(io.StringIO()):
        nir.write(tmp_path / "net.nir", export_to_nir(net, torch.randn(72)))
    x = frames(torch, (72,))
    reset(net)
    with torch.no_grad():
        expected = torch.stack([net(frame)[0] for frame in x]).numpy()
    graph = import_nir(tmp_path / "net.nir", FRAMES)
    assert expected.any()
    np.testing.assert_array_equal(reference.run(graph, x.numpy().astype(np.float64)).raw_output, expected)


def test_norse_export():
    """Written by norse 1.1.0 (two linear layers, two LIFBoxCells, its dt = 1e-3 applied twice), with its own spikes."""
    recorded = np.load(FILES / "norse_1_1_0.npz")
    graph = import_nir(FILES / "norse_1_1_0.nir", replace(FRAMES, dt=1e-6))
    assert recorded["spikes"].any()
    actual = reference.run(graph, recorded["x"].astype(np.float64)).raw_output
    np.testing.assert_array_equal(actual, recorded["spikes"])


def write(path: Path, nodes: dict, edges: list, **kwargs) -> Path:
    full = {"input": nir.Input({"input": np.array([CHANNELS, 6, 6])}), **nodes}
    nir.write(path, nir.NIRGraph({**full, "output": nir.Output(None)}, edges, **kwargs))
    return path


def neuron_parameters(*names: str, **values: float) -> dict[str, np.ndarray]:
    return {k: np.full((CHANNELS, 6, 6), values.get(k, 1.0), np.float32) for k in names}


def chain(*names: str) -> list[tuple[str, str]]:
    ends = ("input", *names, "output")
    return list(itertools.pairwise(ends))


LIF = ("tau", "r", "v_leak", "v_threshold", "v_reset")
CUBA = ("tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in")


def test_every_stock_node_with_a_meaning(tmp_path):
    """Conv1d excepted, all in one file, against the same arithmetic written out here."""
    rng = np.random.default_rng(0)
    weight = np.round(rng.normal(size=(CHANNELS, CHANNELS, 3, 3)) * 8).astype(np.float32) / 8
    scale = np.broadcast_to((2.0 ** np.arange(-4, 4))[:, None, None], (CHANNELS, 6, 6)).astype(np.float32)
    lif = neuron_parameters(*LIF, tau=2e-4, r=3.0, v_leak=0, v_reset=0)
    cuba = neuron_parameters(*CUBA, tau_mem=2e-4, tau_syn=1e-4, r=2.0, v_leak=0, v_reset=0, w_in=1.0)
    inner = nir.NIRGraph(
        {
            "input": nir.Input({"input": np.array([CHANNELS, 6, 6])}),
            "if": nir.IF(**neuron_parameters("r", "v_threshold", "v_reset", r=1e4, v_reset=0)),
            "output": nir.Output({"output": np.array([CHANNELS, 6, 6])}),
        },
        [("input", "if"), ("if", "output")],
    )
    nodes = {
        "conv": nir.Conv2d((6, 6), weight, 1, "same", 1, 1, np.zeros(CHANNELS, np.float32)),
        "scale": nir.Scale(scale),
        "lif": nir.LIF(**lif),
        "inner": inner,
        "delay": nir.Delay(np.zeros((CHANNELS, 6, 6), np.float32)),
        "cuba": nir.CubaLIF(**cuba),
        "or": nir.Threshold(np.full((CHANNELS, 6, 6), 0.5, np.float32)),
        "sum": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([CHANNELS, 3, 3])}, 0, -1),
        "linear": nir.Linear(np.eye(CHANNELS * 9, dtype=np.float32)),
    }
    edges = chain("conv", "scale", "lif", "inner", "cuba", "or", "sum", "flat", "linear")
    edges = [*edges, ("lif", "delay"), ("delay", "cuba")]
    graph = import_nir(write(tmp_path / "net.nir", nodes, edges), FRAMES)
    x = rng.integers(0, 3, (4, 2, CHANNELS, 6, 6)).astype(np.float64)
    run = reference.run(graph, x, Record.of(graph, "all"))

    def leaky(drive, r):
        state, out = np.zeros(drive.shape[1:]), []
        for frame in drive:
            state = state + (r * frame - state) / 2
            out.append(state > 1)
            state = np.where(out[-1], 0, state)
        return np.array(out, np.float64)

    # scale and gain (r = 3) are in the weights, and nothing is left to multiply
    np.testing.assert_array_equal(
        graph["conv"].params["weight"], 3 * weight * scale[:, :1, :1, None].astype(np.float64)
    )
    assert not [node.name for node in graph if node.op.kind == "scale"]
    first = leaky(run.values["conv"], 1.0)
    np.testing.assert_array_equal(run.values["lif"], first)
    assert 0 < first.mean() < 1
    total, held = np.zeros_like(first[0]), []
    for frame in first:
        total = total + frame
        held.append(total > 1)
        total = np.where(held[-1], 0, total)
    np.testing.assert_array_equal(run.values["inner.if"], held)
    second = leaky(np.array(held) + first, 2.0)
    np.testing.assert_array_equal(run.values["cuba"], second)
    pooled = second.reshape(4, 2, CHANNELS, 3, 2, 3, 2).sum(axis=(4, 6))
    np.testing.assert_array_equal(run.raw_output, pooled.reshape(4, 2, -1))


REFUSED = {
    "delay": nir.Delay(np.ones((CHANNELS, 6, 6), np.float32)),
    "synaptic": nir.CubaLIF(**neuron_parameters(*CUBA, tau_mem=2e-4, tau_syn=5e-4, v_leak=0, v_reset=0)),
    "leaky integrator": nir.LI(**neuron_parameters("tau", "r", "v_leak")),
    "integrator": nir.I(**neuron_parameters("r")),
    "threshold of reals": nir.Threshold(np.full((CHANNELS, 6, 6), 0.5, np.float32)),
    "fast": nir.LIF(**neuron_parameters(*LIF, tau=1e-4, v_leak=0, v_reset=0)),
    "never reset": nir.LIF(**neuron_parameters(*LIF, tau=2e-4, v_leak=2, v_reset=2)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nodes_without_a_meaning_are_refused_by_name(name, tmp_path):
    path = write(tmp_path / "net.nir", {"strange": REFUSED[name]}, chain("strange"))
    with pytest.raises(UnsupportedError, match="strange"):
        import_nir(path, ImportOptions(dt=1e-4))


def test_recurrence_is_refused_with_the_cycle(tmp_path):
    lif = {n: nir.LIF(**neuron_parameters(*LIF, tau=2e-4, v_leak=0, v_reset=0)) for n in ("a", "b")}
    path = write(tmp_path / "net.nir", lif, [*chain("a", "b"), ("b", "a")])
    with pytest.raises(UnsupportedError, match=r"recurrent.*a.*b|recurrent.*b.*a"):
        import_nir(path)


def test_a_changed_stock_part_is_noticed(tmp_path):
    path = tmp_path / "net.nir"
    export_nir(ZOO["convnet"](np.random.default_rng(0)), path)
    with h5py.File(path, "r+") as file:
        name = next(n for n in file["node/nodes"] if "stem_conv" in n)
        file[f"node/nodes/{name}/weight"][0, 0, 0, 0] += 1
    with pytest.raises(InputError, match="changed after the export"):
        import_nir(path)
    assert import_nir(path, ImportOptions(stock=True)).nodes


def test_stand_ins_are_refused_without_the_sidecar(tmp_path):
    export_nir(ZOO["self_attention"](np.random.default_rng(0)), tmp_path / "net.nir", "annotated")
    with pytest.raises(UnsupportedError, match="stand-in"):
        import_nir(tmp_path / "net.nir", ImportOptions(stock=True))
