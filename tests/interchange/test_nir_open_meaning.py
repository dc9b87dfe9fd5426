"""What NIR leaves open: decided by a rule, asked for, refused, or said in a notice; what folds is not multiplied."""

from __future__ import annotations

import h5py
import nir
import numpy as np
import pytest
from test_nir_import import CHANNELS, CUBA, LIF, chain, neuron_parameters, write

from qkf_deploy.cli import run as cli
from qkf_deploy.converters.nir import read as nir_read
from qkf_deploy.converters.nir.dialects import PRESETS
from qkf_deploy.converters.nir.read import import_nir
from qkf_deploy.converters.nir.safety import read_content
from qkf_deploy.errors import InputError, UnsupportedError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ops import Conv, Linear
from qkf_deploy.options import ImportOptions
from qkf_deploy.passes.fold import fold
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.run import Record

IF = ("r", "v_threshold", "v_reset")
SHAPE = (CHANNELS, 6, 6)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Without the child process that reads files of strangers: starting it is slow, and it has tests of its own."""
    monkeypatch.setattr(nir_read, "read_isolated", read_content)


def told(graph: Graph, text: str) -> bool:
    return any(text in notice for notice in graph.notices)


def read(path, **options) -> Graph:
    return import_nir(path, ImportOptions(**{"time_steps": 4, "input_encoding": "frames", "readout": False, **options}))


def change(path, name, **parameters):
    """Replace parameters of a written node."""
    with h5py.File(path, "r+") as file:
        for key, value in parameters.items():
            del file[f"node/nodes/{name}/{key}"]
            file[f"node/nodes/{name}/{key}"] = value


def conv(seed=0, **kwargs):
    weight = np.round(np.random.default_rng(seed).normal(size=(CHANNELS, CHANNELS, 3, 3)) * 8).astype(np.float32) / 8
    return nir.Conv2d((6, 6), weight, 1, 1, 1, 1, np.ones(CHANNELS, np.float32), **kwargs)


def frames(seed=0, size=SHAPE):
    return np.random.default_rng(seed).integers(0, 3, (4, 2, *size)).astype(np.float64)


def lif(**values):
    return nir.LIF(**neuron_parameters(*LIF, **{"v_leak": 0, "v_reset": 0, **values}))


def integrate(**values):
    return nir.IF(**neuron_parameters(*IF, **{"v_reset": 0, **values}))


@pytest.mark.parametrize(
    ("node", "step"),
    [
        (integrate(r=1e4), 1e-4), (integrate(r=1.0), 1.0), (integrate(r=1e3), 1e-3),
        (lif(tau=2e-4), 1e-4), (lif(tau=1e-2), 1e-4), (lif(tau=20.0), 1.0), (lif(tau=50.0, r=5e5), 1e-4),
        (nir.CubaLIF(**neuron_parameters(*CUBA, tau_mem=2e-4, tau_syn=1e-4, v_leak=0, v_reset=0)), 1e-4),
    ],
)  # fmt: skip
def test_the_step_is_told_from_the_parameters(node, step, tmp_path):
    graph = read(write(tmp_path / "net.nir", {"conv": conv(), "n": node}, chain("conv", "n")))
    assert graph.provenance["dt_s"] == step
    assert told(graph, f"dt = {step:g} s (the first of")


@pytest.mark.parametrize(
    "nodes",
    [{"a": integrate(r=1.0), "b": lif(tau=2e-4)}, {"a": integrate(r=0.3)}, {"a": lif(tau=1e-5)}],
)
def test_an_open_step_is_asked_for(nodes, tmp_path):
    path = write(tmp_path / "net.nir", {"conv": conv(), **nodes}, chain("conv", *nodes))
    with pytest.raises(InputError, match=r"the file's time step is open: 0\.0001 s does not fit 'a'") as caught:
        read(path)
    assert "--dt" in caught.value.hint
    assert read(path, dt=1e-6).provenance["dt_s"] == 1e-6


@pytest.mark.parametrize("value", [2.5e-3, "0.0025"])
def test_a_step_in_the_metadata_counts(value, tmp_path):
    path = write(tmp_path / "net.nir", {"n": integrate(r=0.3)}, chain("n"), metadata={"dt": value})
    graph = read(path)
    assert graph.provenance["dt_s"] == 2.5e-3
    assert told(graph, "from the file's metadata")


def test_what_is_assumed_is_said(tmp_path):
    path = write(tmp_path / "net.nir", {"conv": conv(), "n": integrate(r=1.0)}, chain("conv", "n"))
    graph = import_nir(path)
    assert told(graph, "as NIR defines them: reset to v_reset, one spike per step, firing above the threshold")
    assert told(graph, "sinabs, norse and Spyx write")
    assert told(graph, "not in the file, assumed: 4 time steps, one image shown at every step")
    known = read(path, preset="spikingjelly", dt=1.0)
    assert told(
        known, "as SpikingJelly runs them: reset to v_reset, one spike per step, firing at the threshold, dt = 1 s"
    )
    assert not told(known, "assumed")


def test_a_file_older_than_v_reset_says_so(tmp_path):
    path = write(tmp_path / "net.nir", {"n": integrate(r=1.0)}, chain("n"))
    with h5py.File(path, "r+") as file:
        del file["node/nodes/n/v_reset"], file["version"]
        file["version"] = "0.2.0"
    assert told(read(path), "v_reset is not in the file (nir 0.2.0)")
    assert read(path).provenance["nir"] == "0.2.0"
    assert not told(read(path, reset="subtract"), "v_reset is not in the file")


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "brian"},
        {"dt": 0.0},
        {"dt": float("nan")},
        {"dt": "soon"},
        {"dt": True},
        {"dt": None},
        {"preset": "snntorch", "spikes": "several"},
        {"reset": "soft"},
    ],
)
def test_contradictions(options, tmp_path):
    path = write(tmp_path / "net.nir", {"n": integrate(r=1.0)}, chain("n"))
    with pytest.raises(UsageError):
        read(path, **options)


def test_neurons_that_cannot_fire_are_named(tmp_path):
    nodes = {"conv": conv(), "n": integrate(r=1.0), "conv2": conv(1), "m": integrate(r=1.0)}
    path = write(tmp_path / "net.nir", nodes, chain(*nodes))
    dead = read(path, dt=1e-4)
    assert told(dead, "n, m cannot fire within 4 steps")
    assert not reference.run(dead, frames() / 2).raw_output.any()
    assert not told(read(path), "cannot fire")
    assert reference.run(read(path), frames() / 2).raw_output.any()


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_holds(seed, tmp_path):
    """No neuron that is called silent fires on inputs at the bound; and a threshold well below it is not called so."""
    rng = np.random.default_rng(seed)
    level = float(rng.choice([2.0, 20.0, 60.0, 1000.0]))
    node = lif(tau=3e-4, v_threshold=level, r=float(rng.choice([1.0, 3.0])), v_leak=float(rng.choice([0.0, 0.5])))
    graph = read(write(tmp_path / "net.nir", {"conv": conv(seed), "n": node}, chain("conv", "n")))
    signs = np.sign(conv(seed).weight.astype(np.float64)).sum(axis=0).max(axis=(1, 2))
    for x in (np.sign(signs)[:, None, None] * np.ones((4, 2, *SHAPE)), rng.choice([-1.0, 1.0], (4, 2, *SHAPE))):
        fired = reference.run(graph, x).raw_output.any()
        assert not (fired and told(graph, "cannot fire"))
    assert told(graph, "cannot fire") == (level == 1000.0) or 2.0 < level < 1000.0


def dense_operations(graph: Graph) -> int:
    """Multiplications that are no synapse of the file."""
    return sum(node.op.kind in ("scale", "batch_norm") or node.name.endswith(".gain") for node in fold(graph))


def per_channel(values):
    return np.broadcast_to(np.asarray(values, np.float32)[:, None, None], SHAPE).copy()


def test_thresholds_per_channel_cost_nothing(tmp_path):
    rng = np.random.default_rng(1)
    levels = per_channel(rng.uniform(0.5, 3.0, CHANNELS))
    node = nir.IF(np.full(SHAPE, 1e4, np.float32), levels, np.zeros(SHAPE, np.float32))
    graph = read(write(tmp_path / "net.nir", {"conv": conv(), "n": node}, chain("conv", "n")))
    assert dense_operations(graph) == 0
    assert graph["n"].params["v_threshold"].size == CHANNELS
    run = reference.run(graph, frames(), Record.of(graph, "all"))
    state, want = np.zeros(SHAPE), []
    for drive in run.values["conv"]:
        state = state + drive
        want.append(state > levels)
        state = np.where(want[-1], 0.0, state)
    np.testing.assert_array_equal(run.raw_output, want)
    assert 0 < np.mean(want) < 1


def test_time_constants_and_resets_per_neuron(tmp_path):
    rng = np.random.default_rng(2)
    tau, reset = rng.choice([2.0, 4.0], SHAPE), rng.choice([0.0, -0.5], SHAPE)
    node = nir.LIF(
        tau=tau * 1e-4, r=np.ones(SHAPE), v_leak=reset, v_threshold=np.full(SHAPE, 0.5), v_reset=reset
    )  # fmt: skip
    graph = read(write(tmp_path / "net.nir", {"conv": conv(), "n": node}, chain("conv", "n")))
    run = reference.run(graph, frames(), Record.of(graph, "all"))
    state, want = np.broadcast_to(reset, (2, *SHAPE)), []
    for drive in run.values["conv"]:
        state = state + (drive + reset - state) / tau
        want.append(state > 0.5)
        state = np.where(want[-1], reset, state)
    np.testing.assert_array_equal(run.raw_output, want)
    assert 0 < np.mean(want) < 1


def test_a_leak_towards_another_voltage(tmp_path):
    graph = read(write(tmp_path / "net.nir", {"conv": conv(), "n": lif(tau=2e-4, v_leak=0.75)}, chain("conv", "n")))
    assert told(graph, "n: leaks towards another voltage than it is reset to; it starts at the reset voltage")
    assert dense_operations(graph) == 0
    plain = read(write(tmp_path / "plain.nir", {"conv": conv()}, chain("conv")))
    state, want = np.zeros(SHAPE), []
    for drive in reference.run(plain, frames()).raw_output:
        state = state + (0.75 - state + drive) / 2
        want.append(state > 1)
        state = np.where(want[-1], 0.0, state)
    np.testing.assert_array_equal(reference.run(graph, frames()).raw_output, want)
    assert 0 < np.mean(want) < 1


SCALES = per_channel(2.0 ** np.arange(-4, 4))


@pytest.mark.parametrize("order", ["behind", "before", "before a grouped", "through flatten"])
def test_scales_go_into_the_synapse(order, tmp_path):
    flat = nir.Flatten({"input": np.array(SHAPE)}, 0, -1)
    rows = np.round(np.random.default_rng(3).normal(size=(5, CHANNELS * 36)) * 8).astype(np.float32) / 8
    nodes = {
        "behind": {"conv": conv(), "scale": nir.Scale(SCALES)},
        "before": {"scale": nir.Scale(SCALES), "conv": conv()},
        "before a grouped": {"scale": nir.Scale(SCALES), "conv": conv()},
        "through flatten": {"scale": nir.Scale(SCALES), "flat": flat, "linear": nir.Linear(rows)},
    }[order]
    without = {n: node for n, node in nodes.items() if n != "scale"}
    paths = [write(tmp_path / f"{len(part)}.nir", part, chain(*part)) for part in (nodes, without)]
    if order == "before a grouped":  # stock nir cannot write what it cannot type
        for path in paths:
            change(path, "conv", groups=CHANNELS // 2, weight=conv().weight[:, :2])
    graph, bare = (read(path) for path in paths)
    assert [type(n.op) for n in graph if n.params] == [Linear if "linear" in nodes else Conv]
    x = frames()
    want = (
        reference.run(bare, x).raw_output * SCALES if order == "behind" else reference.run(bare, x * SCALES).raw_output
    )
    np.testing.assert_array_equal(reference.run(graph, x).raw_output, want)


def test_a_scale_of_a_value_that_others_read_stays(tmp_path):
    nodes = {"conv": conv(), "scale": nir.Scale(SCALES), "a": integrate(r=1e4), "b": integrate(r=1e4)}
    edges = [("input", "conv"), ("conv", "scale"), ("conv", "a"), ("scale", "b"), ("a", "output"), ("b", "output")]
    graph = read(write(tmp_path / "net.nir", nodes, edges))
    run = reference.run(graph, frames(), Record.of(graph, "all"))
    np.testing.assert_array_equal(run.values["scale"], run.values["conv"] * SCALES)
    assert dense_operations(graph) == 0  # the scale itself, as a node of its own


@pytest.mark.parametrize(("start", "shape"), [(1, SHAPE), (1, (1, *SHAPE)), (0, SHAPE)])
def test_flatten_that_counts_a_batch_axis(start, shape, tmp_path):
    flat = nir.Flatten({"input": np.array(SHAPE)}, 0, -1)
    nodes = {"flat": flat, "linear": nir.Linear(np.eye(CHANNELS * 36, dtype=np.float32))}
    path = write(tmp_path / "net.nir", nodes, chain("flat", "linear"))
    change(path, "flat", start_dim=start, input_type=np.array(shape))
    graph, x = read(path), frames()
    np.testing.assert_array_equal(reference.run(graph, x).raw_output, x.reshape(4, 2, -1))
    assert bool(start) == (told(graph, "batch axis") or told(graph, "flattened"))


def test_an_input_with_a_batch_of_one(tmp_path):
    path = write(tmp_path / "net.nir", {"conv": conv(), "n": lif(tau=2e-4)}, chain("conv", "n"))
    bare = read(path)
    change(path, "input", shape=np.array((1, *SHAPE)))
    graph, x = read(path), frames()
    assert told(graph, "conv: reads a value of shape (1, 8, 6, 6) without its first axis")
    np.testing.assert_array_equal(reference.run(graph, x[:, :, None]).raw_output, reference.run(bare, x).raw_output)


def test_a_mean_that_counts_padding(tmp_path):
    pool = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    path = write(tmp_path / "net.nir", {"pool": pool}, chain("pool"))
    assert not told(read(path), "padding")
    change(path, "pool", padding=np.array([1, 1]))
    graph = read(path)
    assert told(graph, "pool: the mean counts the padding")
    padded = np.pad(frames(), [(0, 0)] * 3 + [(1, 1)] * 2).reshape(4, 2, CHANNELS, 4, 2, 4, 2)
    np.testing.assert_array_equal(reference.run(graph, frames()).raw_output, padded.mean(axis=(4, 6)))


def test_branches_of_different_depth_where_spikes_are_late(tmp_path):
    nodes = {"conv": conv(), "a": integrate(r=1.0), "b": integrate(r=1.0)}
    edges = [("input", "conv"), ("conv", "a"), ("a", "b"), ("a", "output"), ("b", "output")]
    path = write(tmp_path / "net.nir", nodes, edges)
    with pytest.raises(UnsupportedError, match="branches of different depth"):
        read(path, preset="spyx")
    assert read(path, preset="sinabs").nodes


def test_a_pool_whose_padding_is_that_of_both_sides(tmp_path):
    pool = nir.SumPool2d(np.array([3, 3]), np.array([2, 2]), np.array([0, 0]))
    path = write(tmp_path / "net.nir", {"pool": pool}, chain("pool"))
    assert read(path, preset="spyx").nodes
    change(path, "pool", padding=np.array([1, 1]))
    with pytest.raises(UnsupportedError, match="both sides' padding"):
        read(path, preset="spyx")
    assert read(path, preset="sinabs").nodes


def test_the_command_takes_every_preset(tmp_path, capsys):
    path = write(tmp_path / "net.nir", {"conv": conv(), "n": integrate(r=1.0)}, chain("conv", "n"))
    for preset in PRESETS:
        assert cli(["import", str(path), "--preset", preset, "-o", str(tmp_path / f"{preset}.qkf")]) == 0
        assert "neurons are read as" in capsys.readouterr().err
    assert cli(["import", str(path), "--dt", "1e-4", "-o", str(tmp_path / "dt.qkf")]) == 0
    assert "n cannot fire" in capsys.readouterr().err
    assert cli(["import", str(path), "--dt", "soon", "-o", str(tmp_path / "no.qkf")]) == 2
    assert cli(["import", str(path), "--preset", "brian", "-o", str(tmp_path / "no.qkf")]) == 2
    assert not (tmp_path / "no.qkf").exists()
