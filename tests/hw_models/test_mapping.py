"""Mapping: pieces fit, everything is covered, what cannot be placed is named with the limit it breaks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digits_network import DigitsNetwork
from hypothesis import given, settings
from hypothesis import strategies as st
from netbuild import Net, small_transformer

import qkf_deploy as qd
from qkf_deploy.errors import ProfileError, UsageError
from qkf_deploy.hw_models.architecture.chip import Chip, Core
from qkf_deploy.hw_models.architecture.reading import chip_names, load_chip
from qkf_deploy.hw_models.mapping import map_network, most_inputs, place, tiles_reached
from qkf_deploy.hw_models.reach import distinct_inputs
from qkf_deploy.hw_models.units import Unit, unit_of, units
from qkf_deploy.ir import Graph
from qkf_deploy.ops import Add, MaxPool, SumPool
from qkf_deploy.report.mapping_table import render_mapping

CHIP = load_chip("generic-digital")
(CORE,) = CHIP.cores


def with_memory(core: Core, size: int) -> Core:
    """The same core, its one memory of another size."""
    return replace(core, buffers=(replace(core.buffers[0], bytes=size),))


def unit(**fields: object) -> Unit:
    base = Unit("u", (), 32, 64, 144, 144, 8, 40, 14, ((8, 8, 3, 1), (8, 8, 3, 1)))
    return replace(base, **fields)  # type: ignore[arg-type]


def test_every_weight_and_neuron_belongs_to_one_unit(network: DigitsNetwork) -> None:
    graph = network.integer_graph
    found = units(graph)
    owner = unit_of(found)
    assert sum(len(u.nodes) for u in found) == len(owner)
    for node in graph:
        if node.op.kind in ("conv", "linear", "integer_neuron", "matmul"):
            assert node.name in owner
    weights = sum(n.params["weight"].size for n in graph if "weight" in n.params)
    assert sum(u.channels * u.weights_per_channel for u in found) == weights
    neurons = sum(n.type.size for n in graph if n.op.kind == "integer_neuron")
    assert sum(u.channels * u.positions for u in found if graph[u.name].op.kind == "integer_neuron") == neurons


def test_generic_chip_takes_the_whole_network(network: DigitsNetwork) -> None:
    mapping = map_network(network.integer_graph, CHIP, network.ledger)
    assert mapping.infeasible == ()
    assert mapping.cores == sum(p.cores for p in mapping.placements)
    assert mapping.chips == -(-mapping.cores // CHIP.cores_per_chip)
    firsts = [p.first_core for p in mapping.placements]
    assert firsts == sorted(firsts)


def test_loihi2_names_what_it_cannot_do(network: DigitsNetwork) -> None:
    mapping = map_network(network.integer_graph, load_chip("loihi2"), network.ledger)
    problems = {p.unit.name: p.limits_broken for p in mapping.infeasible}
    assert problems["stage3.0.ssa.matmul#2"] == ("not supported: matmul (of counts: no AND)",)
    assert problems["patch_embed2.proj4_lif"] == ("not supported: max_pool (a maximum of drives is no OR)",)
    assert len(problems) == 3
    text = render_mapping(mapping, "table")
    assert "not mappable: patch_embed2.proj4_lif" in text
    assert "192 KiB" in text


@pytest.mark.parametrize("name", chip_names())
def test_every_limit_of_a_chip_can_be_reached(name: str) -> None:
    """A limit on stored weights that the memory of a core cannot even hold at 2 bits each says nothing."""
    for core in load_chip(name).cores:
        bits = 8 * core.memory_bytes
        assert core.synapses_max is None or 2 * core.synapses_max <= bits
        assert core.neurons_max <= bits


def test_traffic_is_the_measured_events(network: DigitsNetwork) -> None:
    graph, ledger = network.integer_graph, network.ledger
    mapping = map_network(graph, CHIP, ledger)
    flows = {(t.source, t.target): t for t in mapping.traffic}

    def events(node: str) -> Fraction:
        return Fraction(ledger[node].total("events_out_graded"), ledger.images)

    assert flows["stage1.0.tssa.q_lif", "stage1.0.tssa.attn_lif"].events == events("stage1.0.tssa.q_lif")
    assert flows["stage1.0.tssa.k_lif", "stage1.0.tssa.proj_lif"].events == events("stage1.0.tssa.mask")
    assert flows["stage1.0.tssa.attn_lif", "stage1.0.tssa.k_lif"].events == events("stage1.0.tssa.attn_lif")
    assert flows["stage3.0.ssa.k_lif", "stage3.0.ssa.matmul"].events == events("stage3.0.ssa.k_lif")
    assert flows["input", "patch_embed1.proj_lif"].events == 256
    into = sum(t.events for (_, b), t in flows.items() if b == "stage1.0.mlp.mlp1_lif")
    parts = ("patch_embed1.proj1_lif", "patch_embed1.proj_res_lif", "stage1.0.tssa.proj_lif")
    assert into == sum(events(p) for p in parts)
    assert all(t.messages >= t.events >= 0 for t in mapping.traffic)


def test_chips_are_filled_in_order(network: DigitsNetwork) -> None:
    small = replace(CHIP, cores=(replace(CORE, count=2),))
    mapping = map_network(network.integer_graph, small, network.ledger)
    assert mapping.chips == -(-mapping.cores // 2) > 5
    assert any(t.between_chips > 0 for t in mapping.traffic)
    assert all(t.between_chips <= t.messages for t in mapping.traffic)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 70),
    positions=st.integers(1, 300),
    neurons=st.integers(1, 5000),
    memory=st.integers(1, 20_000),
    share=st.booleans(),
)
def test_pieces_fit_and_cover(
    network: DigitsNetwork, channels: int, positions: int, neurons: int, memory: int, share: bool
) -> None:
    core = replace(
        with_memory(CORE, memory),
        neurons_max=neurons,
        share_convolution_weights=share,
        synapses_max=999,
    )
    found = place(network.integer_graph, unit(channels=channels, positions=positions), core)
    if found.limits_broken:
        one = place(network.integer_graph, unit(channels=1, positions=1), core)
        assert one.limits_broken == found.limits_broken
        assert found.cores == 0
        return
    assert found.neurons_per_core <= neurons
    assert found.memory_per_core_bytes <= memory
    assert found.synapses_per_core <= 999
    assert found.cores * found.neurons_per_core >= channels * positions
    assert found.channel_groups <= channels
    assert found.tiles <= positions


def test_one_byte_less_needs_another_cut(network: DigitsNetwork) -> None:
    whole = place(network.integer_graph, unit(), CORE)
    assert whole.cores == 1
    exact = with_memory(CORE, whole.memory_per_core_bytes)
    assert place(network.integer_graph, unit(), exact).cores == 1
    less = with_memory(CORE, whole.memory_per_core_bytes - 1)
    assert place(network.integer_graph, unit(), less).cores == 2


def test_unshared_convolutions_store_every_connection(network: DigitsNetwork) -> None:
    unshared = place(network.integer_graph, unit(), replace(CORE, share_convolution_weights=False))
    shared = place(network.integer_graph, unit(), CORE)
    assert shared.synapses_per_core == 32 * 144
    assert unshared.cores * unshared.synapses_per_core >= 32 * 64 * 144
    assert unshared.cores > shared.cores


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fan_in_max": 100}, "fan-in 144, at most 100"),
        ({"weight_bits_max": 4}, "8-bit weights, at most 4"),
        ({"state_bits_max": 8}, "14-bit state, at most 8"),
        ({"buffers": with_memory(CORE, 100).buffers}, "bytes, a core has 100"),
        ({"synapses_max": 100}, "one neuron needs 144 synapses"),
        ({"synapse_bits_max": 1151}, "one neuron needs 1152 synapse bits, at most 1151 per core"),
    ],
)
def test_limits_are_named(network: DigitsNetwork, change: dict[str, Any], text: str) -> None:
    found = place(network.integer_graph, unit(), replace(CORE, **change))
    assert found.cores == 0
    assert text in "; ".join(found.limits_broken)


def perturbed_inputs(graph: Graph, unit: Unit, piece: np.ndarray) -> int:
    """Distinct inputs found by running the unit: every outside element that changes some output of the piece.

    Weights are made 1, neurons the identity, maxima sums, so that nothing cancels or hides.
    """
    shapes = {n: graph[n].type.shape for n in unit.sources}

    def run(values: dict[str, np.ndarray]) -> np.ndarray:
        for name in unit.nodes:
            node = graph[name]
            x = [values[o.node] if o.view is None else o.view.apply(values[o.node]) for o in node.inputs]
            op = SumPool(node.op.kernel, node.op.stride, node.op.padding) if isinstance(node.op, MaxPool) else node.op
            weights = {"weight": np.ones_like(node.params["weight"])} if "weight" in node.params else {}
            values[name] = x[0] if node.op.kind in ("integer_neuron", "readout", "shift") else op.run(x, weights, 1)
        return values[unit.name][0, 0]

    base = run({n: np.ones((1, 1, *s), np.int64) for n, s in shapes.items()})
    found = 0
    for name, shape in shapes.items():
        for index in np.ndindex(shape):
            values = {n: np.ones((1, 1, *s), np.int64) for n, s in shapes.items()}
            values[name][(0, 0, *index)] = 2
            found += bool((run(values) != base)[piece].any())
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_inputs_of_a_core_are_those_that_change_its_outputs(seed: int) -> None:
    graph = qd.quantize(small_transformer(seed))
    rng = np.random.default_rng(seed)
    checked = set()
    for unit in units(graph):
        if any(graph[s].op.kind in ("add", "mask") for s in unit.sources):
            continue  # routing: below
        channels = slice(int(rng.integers(unit.channels)), None)
        positions = slice(int(rng.integers(unit.positions)), int(rng.integers(unit.positions)) + 1)
        piece = np.zeros((unit.channels, unit.positions), bool)
        piece[channels, positions] = True
        wanted = perturbed_inputs(graph, unit, piece.reshape(graph[unit.name].type.shape))
        assert distinct_inputs(graph, unit, channels, positions) == wanted, unit.name
        checked |= {graph[n].op.kind for n in unit.nodes}
    assert {"conv", "max_pool", "sum", "matmul"} <= checked


def test_both_operands_of_a_residual_addition_are_inputs() -> None:
    """A core with every neuron of a 1x1 convolution behind spikes + spikes reads both tensors, each element once."""
    net = Net(0, (2, 4, 4))
    a, b = net.lif("a", net.conv("conv_a", "input", 3)), net.lif("b", net.conv("conv_b", "input", 3))
    net.head(net.lif("c", net.conv("conv_c", net.add("add", Add(), a, b), 5, kernel=1, padding=0)))
    graph = qd.quantize(net.build())
    (unit,) = (u for u in units(graph) if u.name == "c")
    assert distinct_inputs(graph, unit, slice(None), slice(None)) == 2 * 3 * 16
    assert distinct_inputs(graph, unit, slice(0, 1), slice(3, 4)) == 2 * 3


def test_input_axons_are_counted_for_the_whole_core() -> None:
    """A 3x3 convolution on 2 x 8 x 8 inputs: 18 for one neuron, 128 for a core that holds all of them.

    Half of the rows read one more at the cut: 5 x 8 x 2; two rows in the middle read four: 64. Three tiles of 22
    positions cut through rows and read more than 79.
    """
    net = Net(0, (4, 8, 8))
    spikes = net.lif("a", net.conv("first", "input", 2))
    net.head(net.lif("b", net.conv("second", spikes, 4)))
    graph = qd.quantize(net.build())
    (unit,) = (u for u in units(graph) if u.name == "b")
    for limit, tiles in ((128, 1), (127, 2), (96, 2), (80, 2), (79, 4), (64, 4), (18, 64)):
        found = place(graph, unit, replace(CORE, axons_in_max=limit))
        assert found.limits_broken == ()
        assert most_inputs(graph, found) <= limit
        assert (found.channel_groups, found.tiles) == (1, tiles), limit
    refused = place(graph, unit, replace(CORE, axons_in_max=17))
    assert refused.limits_broken == ("one neuron reads 18 distinct inputs, at most 17 per core",)


def test_halo_of_a_window() -> None:
    base = place(None, unit(), CORE)  # type: ignore[arg-type]  # no node is looked up
    two = replace(base, tiles=2)
    assert tiles_reached(base) == 1
    assert tiles_reached(two) == Fraction(6 + 6, 8)  # 4 rows of 8 read 6 rows with a 3-wide window
    pointwise = replace(two, unit=unit(halo=((64, 64, 1, 1),)))
    assert tiles_reached(pointwise) == 1


def test_float_networks_are_refused(network: DigitsNetwork) -> None:
    with pytest.raises(UsageError, match="only integer networks"):
        map_network(network.float_graph, CHIP)


def test_chip_files(tmp_path: Path) -> None:
    assert {"generic-digital", "loihi2", "fpga-array"} <= set(chip_names())
    assert isinstance(CHIP, Chip)
    with pytest.raises(UsageError, match="did you mean 'loihi2'"):
        load_chip("loihi-2")
    from importlib import resources

    text = (resources.files("qkf_deploy.hw_models") / "chips" / "loihi2.toml").read_text()
    path = tmp_path / "mine.toml"
    for before, after, line, message in (
        ("neurons_max = 8192", "neurons_max = 0", 19, "at least 1"),
        ('"conv", "linear"', '"conv", "lineal"', 23, "unknown operator 'lineal'"),
        ("count = 128\n", "", 17, "missing in [core.neuro]: count"),
        ("share_convolution_weights = true\n", "share_convolution_weights = 1\n", 22, "true or false"),
    ):
        path.write_text(text.replace(before, after))
        with pytest.raises(ProfileError) as caught:
            load_chip(path)
        assert caught.value.where == f"{path}:{line}"
        assert message in caught.value.message


def test_membrane_shortcuts_send_whole_drives() -> None:
    """Pre-activation shortcuts (Eq. 11): a drive read by several units is sent whole, it has no events to count."""
    import numpy as np
    import torch

    from qkf_deploy import api
    from qkf_deploy.ir.values import Kind
    from qkf_deploy.models.config import QKFormerConfig
    from qkf_deploy.models.qkformer import QKFormer

    torch.manual_seed(0)
    config = QKFormerConfig(
        layout="cifar", in_channels=1, num_classes=2, image_size=8, embed_dim=32, depths=(1, 1, 1), heads=(2, 2, 2),
        attention=("qkta", "qkta", "ssa"), shortcut="pa", time_steps=2,
    )  # fmt: skip
    traced = api.trace(QKFormer(config), time_steps=2, image_size=8, in_channels=1, preset="none")
    graph = api.quantize(traced, 8)
    run = api.simulate(graph, np.zeros((1, 1, 8, 8), np.uint8), engine="reference")
    mapping = map_network(graph, CHIP, run.ledger)
    assert mapping.infeasible == ()
    owner = unit_of(units(graph))
    shared = [
        (node, unit) for unit in units(graph) for node in unit.sources
        if node in owner and graph[node].type.kind is Kind.DRIVE
    ]  # fmt: skip
    assert shared
    flows = {(t.source, t.target): t.events for t in mapping.traffic}
    for node, target in shared:
        assert flows[owner[node], target.name] >= graph[node].type.size * 2


def test_memory_of_a_core_by_hand() -> None:
    """Kernels once, thresholds and biases per channel, a membrane per neuron."""
    found = place(None, unit(), CORE)  # type: ignore[arg-type]  # no node is looked up
    bits = 32 * 144 * 8 + 32 * 40 + 32 * 64 * 14
    assert found.memory_per_core_bytes == bits // 8
    assert bits % 8 == 0
