"""Rules of cores: outputs, destinations, biases, kinds; operations done with neurons, exactly and at a cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from digits_network import DigitsNetwork
from netbuild import Net
from timed import LOIHI, frames, three_layers

import qkf_deploy as qd
from qkf_deploy.hw_models.architecture.chip import Chip
from qkf_deploy.hw_models.mapping import Placement, map_network, most_targets
from qkf_deploy.hw_models.reach import connections
from qkf_deploy.hw_models.timing.traffic import measured_traffic, pieces
from qkf_deploy.ir import Graph, Operand, View
from qkf_deploy.ops import Add, IntegerNeuron, MatMul, MaxPool
from qkf_deploy.report.mapping_table import render_mapping


def on(chip: Chip, **limits: object) -> Chip:
    return replace(chip, cores=(replace(chip.cores[0], **limits),))


def by_name(graph: Graph, chip: Chip) -> dict[str, Placement]:
    return {p.unit.name: p for p in map_network(graph, chip).placements}


def test_pairs_of_neuron_and_core_limit_a_core() -> None:
    """144 neurons whose events go to both cores of the next layer are 288 pairs."""
    graph = three_layers()
    small = {"axons_in_max": None, "neurons_max": 1000}
    two = by_name(graph, on(LOIHI, **small, synapses_max=72))["b"]  # 4 x 36 weights
    assert (two.channel_groups, most_targets(two)) == (2, 2)
    for pairs, cores in ((288, 1), (287, 2), (144, 2), (143, 3), (72, 4)):
        found = by_name(graph, on(LOIHI, **small, synapses_max=72, axons_out_max=pairs))
        assert found["a"].neurons_per_core * 2 <= pairs
        assert found["a"].cores == cores, pairs
    none = by_name(graph, on(LOIHI, **small, synapses_max=72, axons_out_max=1))["a"]
    assert none.limits_broken[0].startswith("one neuron sends to ")
    assert none.limits_broken[0].endswith(" cores, at most 1 (neuron, core) pairs per core")


@pytest.mark.parametrize("neurons", [20, 48, 72, 1000])
def test_targets_of_an_event_are_not_more_than_said(neurons: int) -> None:
    """The bound that the rule of outputs uses, against connections followed one by one."""
    for shape, kernel in (((2, 6, 6), 3), ((2, 6, 6), 1), ((1, 8, 5), 5)):
        graph = three_layers(shape, (4, 4), kernel)
        for placement in map_network(graph, on(LOIHI, neurons_max=neurons)).placements:
            held = pieces(placement)
            reached = [
                [counts > 0 for _, _, counts in connections(graph, placement.unit, held == core)]
                for core in range(held.min(), held.max() + 1)
            ]
            for masks in zip(*reached, strict=True):
                assert np.sum(masks, axis=0).max() <= most_targets(placement)


def test_destinations_and_biases() -> None:
    net = Net(0, (2, 4, 4), frames=True)
    spikes = net.lif("a", net.conv("first", "input", 3))
    branches = [net.lif(f"b{i}", net.conv(f"conv{i}", spikes, 2)) for i in range(3)]
    joined = net.add("ab", Add(), branches[0], branches[1])
    net.head(net.add("abc", Add(), joined, branches[2]))
    graph = qd.quantize(net.build())
    assert by_name(graph, on(LOIHI, destinations_max=3))["a"].limits_broken == ()
    assert by_name(graph, on(LOIHI, destinations_max=2))["a"].limits_broken == ("sends to 3 layers, at most 2",)
    cut = by_name(graph, on(LOIHI, biases_max=1))
    assert (cut["a"].channel_groups, cut["b0"].channel_groups) == (3, 2)


def test_each_layer_takes_the_kind_of_core_that_holds_it() -> None:
    """144, 144 and 4 neurons: two large cores per chip and four small ones, numbered kind by kind on every chip."""
    graph = three_layers()
    large = replace(LOIHI.cores[0], kind="large", count=1, neurons_max=144)
    small = replace(LOIHI.cores[0], kind="small", count=4, neurons_max=4)
    chip = replace(LOIHI, cores=(small, large))
    found = map_network(graph, chip)
    kinds = {p.unit.name: (p.core.kind, p.first_core, p.cores) for p in found.placements}
    assert kinds == {"a": ("large", 4, 1), "b": ("large", 9, 1), "head": ("small", 0, 1)}
    assert (found.cores, found.chips, found.end) == (3, 2, 10)
    assert chip.core_at(9).kind == "large"
    only_small = map_network(graph, replace(LOIHI, cores=(small, replace(large, neurons_max=3))))
    assert "36 cores of kind small, a chip has 4" in str([p.limits_broken for p in only_small.infeasible])


#: (head, channels, positions) of three channels of 4 x 4, and the same with positions first.
ROWS = View.of((1, 3, 16), (0, 1, 2), (1, 3, 16))
COLUMNS = View.of((1, 3, 16), (0, 2, 1), (1, 16, 3))


def attention(pool: bool = False) -> Graph:
    """k^T v of two spiking branches, a neuron on the counts; or max pooling of spikes."""
    net = Net(1, (2, 4, 4), frames=True)
    left = net.lif("k", net.conv("conv_k", "input", 3))
    if pool:
        left = net.add("pool", MaxPool((2, 2), (2, 2), (0, 0)), left)
        net.head(net.lif("after", net.conv("conv_p", left, 3)))
        return qd.quantize(net.build())
    right = net.lif("v", net.conv("conv_v", "input", 3))
    product = net.add("kv", MatMul(), Operand(left, ROWS), Operand(right, COLUMNS))
    net.head(net.lif("fires", product, v_threshold=3.0))
    return qd.quantize(net.build())


def test_a_product_of_spikes_is_ands_and_their_sum() -> None:
    """What the neurons compute is the product: threshold 2, no membrane; then a population count."""
    rng = np.random.default_rng(0)
    k, v = (rng.integers(0, 2, shape).astype(np.int64) for shape in ((4, 1, 6, 16), (4, 1, 16, 5)))
    pairs = k[..., :, :, None] + v[..., None, :, :]  # both events reach the neuron of (row, inner, column)
    no_membrane = IntegerNeuron(decay_multiplier=0, decay_shift=0)
    theta = np.array(2, np.int64)
    ands = no_membrane.run([pairs], {"theta": theta}, 4)
    assert (ands.sum(axis=-2) == k @ v).all()
    spikes = rng.integers(0, 2, (4, 1, 3, 4, 4)).astype(np.int64)
    pool = MaxPool((2, 2), (2, 2), (0, 0))
    windows = spikes.reshape(4, 1, 3, 2, 2, 2, 2).sum(axis=(-3, -1))
    ors = no_membrane.run([windows], {"theta": np.array(1, np.int64)}, 4)
    assert (ors == pool.run([spikes], {}, 4)).all()


def test_lowered_units_have_their_cost() -> None:
    graph = attention()
    without = on(LOIHI, supports=LOIHI.cores[0].supports - {"matmul", "max_pool"})
    images = frames(graph)
    run = qd.simulate(graph, images, engine="reference", record=["events", "input"])
    found = by_name(graph, without)["kv"]
    assert found.limits_broken == ()
    assert found.lowered == ("kv: product of spikes as 144 AND neurons and their sums",)
    assert found.unit.neurons_per_output == 17
    assert found.neurons_per_core == 9 * 17
    mapping = map_network(graph, without)
    traffic = measured_traffic(graph, mapping, run.values)
    core = traffic.unit.index("kv")
    value = run.values["kv"][:, 0].reshape(4, -1)
    assert traffic.neurons[core] == 153
    assert (traffic.fired[:, core] == value.sum(axis=1) + (value != 0).sum(axis=1)).all()
    assert traffic.operations("and").sum() == 0  # neurons add what comes
    k, v = ((run.values[n] != 0).sum(axis=(1, 2, 3, 4)) for n in ("k", "v"))
    assert (traffic.operations("")[:, core] == 3 * (k + v)).all()
    text = render_mapping(mapping, "table")
    assert "done with neurons: kv: product of spikes as 144 AND neurons" in text
    few = by_name(graph, on(without, neurons_max=16))["kv"]
    assert few.limits_broken == ("one product needs 17 neurons, at most 16 per core",)


def test_pooling_of_spikes_is_an_or_and_of_drives_is_not(network: DigitsNetwork) -> None:
    without = on(LOIHI, supports=LOIHI.cores[0].supports - {"matmul", "max_pool"})
    assert by_name(attention(pool=True), without)["pool"].lowered == (
        "pool: max pooling of spikes as an OR, 12 neurons",
    )
    whole = by_name(network.integer_graph, without)
    assert whole["patch_embed2.proj4_lif"].limits_broken[0] == (
        "not supported: max_pool (a maximum of drives is no OR)"
    )
    assert whole["stage3.0.ssa.matmul#2"].limits_broken == ("not supported: matmul (of counts: no AND)",)
    assert whole["stage3.0.ssa.matmul"].lowered
    bare = on(LOIHI, supports=frozenset({"conv", "integer_neuron"}))
    assert by_name(attention(), bare)["kv"].limits_broken == ("not supported: matmul",)
