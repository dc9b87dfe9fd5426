"""Widths are proven again on load; what could overflow a narrow type takes a wider one; closed gates cost nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from event_cases import ISAS, check

from qkf_deploy.errors import ProofError
from qkf_deploy.ir import Graph, GraphBuilder, Operand, View, Widths
from qkf_deploy.ops import Conv, Input, IntegerNeuron, Mask, Output, Sum
from qkf_deploy.passes.widths import attach
from qkf_deploy.simulators.event import cpu, proofs
from qkf_deploy.simulators.event.engine import Engine
from qkf_deploy.simulators.event.layers import NeuronForm, SynapseLayer
from qkf_deploy.simulators.event.steps import GeneralStep, SynapseStep
from qkf_deploy.simulators.event.values import to_stream

POINT = dict(stride=(1, 1), padding=(0, 0), dilation=(1, 1))


@pytest.mark.parametrize("what", ["value", "partial", "membrane"])
@pytest.mark.parametrize("node", ["patch_embed1.proj1_lif", "stage1.0.mlp.mlp1_lif"])
def test_a_tampered_narrow_bound_is_refused(digits_int8: Graph, what: str, node: str) -> None:
    target = node if what == "membrane" else node.replace("_lif", "_conv")
    widths = digits_int8.widths[target]
    low, high = getattr(widths, what)
    for tampered in ((low + 1, high), (low, high - 1)):
        forged = {**digits_int8.widths, target: replace(widths, **{what: tampered})}
        with pytest.raises(ProofError, match="narrower"):
            Engine(replace(digits_int8, widths=forged))


def test_a_missing_proof_is_refused(digits_int8: Graph) -> None:
    some = {k: v for k, v in digits_int8.widths.items() if k != "stage1.0.mlp.mlp1_conv"}
    with pytest.raises(ProofError, match="no width proof"):
        Engine(replace(digits_int8, widths=some))


def test_a_wider_bound_only_costs_speed(digits_int8: Graph, digits_data) -> None:
    wide = {k: replace(v, partial=(-(2**40), 2**40)) for k, v in digits_int8.widths.items()}
    graph = replace(digits_int8, widths=wide)
    general = [s for s in Engine(graph).plan.steps if isinstance(s, GeneralStep)]
    assert sum(s.node.op.kind == "conv" for s in general) == sum(n.op.kind == "conv" for n in graph)
    from qkf_deploy.simulators import event, reference

    x = digits_data.test_images[None, :1].astype(np.int64)
    assert np.array_equal(event.run(graph, x).raw_output, reference.run(digits_int8, x).raw_output)


def _layer(weight: int, channels: int, high: int, soft: bool = False, theta: int = 1000, steps: int = 3) -> Graph:
    b = GraphBuilder()
    b.add("input", Input((channels, 2, 3), "frames", high=high))
    w = np.full((40, channels, 1, 1), weight, np.int8)
    b.add("conv", Conv(**POINT, weight_bits=8), ["input"], {"weight": w})
    b.add("lif", IntegerNeuron(1, 1, 0, soft), ["conv"], {"theta": np.full((40, 1, 1), theta)})
    b.add("output", Output(), ["lif"])
    return attach(b.build(time_steps=steps, input_encoding="frames", arithmetic="integer"))


@pytest.mark.parametrize("weight", [127, -127])
@pytest.mark.parametrize(
    ("channels", "fits"), [(128, True), (129, True), (172, False), (258, False), (259, False), (600, False)]
)
def test_sixteen_bits_only_where_no_input_can_pass_them(weight: int, channels: int, fits: bool) -> None:
    """The largest input drives every sum to its bound; the narrow path is taken exactly where the proof allows."""
    graph = _layer(weight, channels, high=1, theta=40000 if weight > 0 else 1)
    form = NeuronForm.of(graph["lif"], 40)
    layer = SynapseLayer(graph, graph["conv"], None, (graph["lif"], form), cpu.select())
    inputs = np.ones((3, 1, channels, 2, 3), np.int64)
    reach = layer.sums.reach(to_stream(inputs, channels, 1, 3).activity(layer.isa.tag, 1))
    assert layer.neuron_fits16(reach) == (fits and layer.isa.vector_bytes > 0)
    for tier in cpu.available_tiers():
        check(graph, inputs, tier)


@pytest.mark.parametrize("seed", range(20))
def test_the_reach_of_an_image_holds_for_every_part_of_its_inputs(seed: int) -> None:
    """The bound from the activity alone against the sums that the worst part of each row of inputs really gives."""
    rng = np.random.default_rng(seed)
    outputs, channels, high = 7, 40, int(rng.choice([1, 2, 9, 255]))
    weight = rng.integers(-127, 128, (outputs, channels, 1)) * (rng.random((outputs, channels, 1)) < rng.random())
    x = rng.integers(0, high + 1, (3, 1, channels, 1, 11)) * (rng.random((3, 1, channels, 1, 11)) < rng.random())
    sums = proofs.WeightSums.of(weight.astype(np.int8))
    low, top = sums.reach(to_stream(x, channels, high, 3).activity(cpu.select().tag, 1))
    products = weight[None, :, :, 0, None] * x[:, 0, None, :, 0, :]
    assert low <= np.minimum(products, 0).sum(axis=2).min() <= 0
    assert top >= np.maximum(products, 0).sum(axis=2).max() >= 0
    # Tight where all weights are extreme and all values equal.
    extreme = proofs.WeightSums.of(np.full((2, channels, 1), 127, np.int8))
    assert extreme.reach(proofs.Activity(5, 5 * (high - 1), high)) == (0, 127 * 5 * high)


@pytest.mark.parametrize(("soft", "shift"), [(False, 1), (True, 1), (False, 0), (True, 0)])
def test_membranes_of_extreme_drives_stay_in_the_proven_range(soft: bool, shift: int) -> None:
    """Wherever 16 bits are called enough, all sequences of extreme drives stay within them."""
    form, steps = np.array([1, shift, 0, int(soft)]), 4
    refused = 0
    for reach in (100, 8000, 8191, 8192, 16000, 17475, 17477, 30000):
        for theta in (-50, 1, 9000, 40000):
            fits = proofs.neuron_fits16(form, np.array([theta]), (-reach, reach), steps)
            worst = 0
            for signs in product((-1, 1), repeat=steps):
                m = 0
                for sign in signs:
                    u = (m >> shift) + sign * reach
                    m = u if u < theta else (u - theta if soft else 0)
                    worst = max(worst, abs(u), abs(m))
            assert not fits or worst < 2**15
            refused += not fits
    assert 0 < refused < 32


@pytest.mark.parametrize("weight", [127, -127])
@pytest.mark.parametrize("high", [1, 2, 128, 129, 130, 255])
def test_adversarial_inputs_take_a_path_that_holds_them(weight: int, high: int) -> None:
    graph = _layer(weight, 300, high, theta=10**6)
    inputs = np.full((3, 1, 300, 2, 3), high, np.int64)
    inputs[1, :, ::2] = 0
    for isa in ISAS:
        layer = SynapseLayer(graph, graph["conv"], None, None, isa)
        stream = to_stream(inputs, 300, high, 3)
        chosen = layer.kernel_for(stream)
        pair_overflows = 2 * high * 127 > 2**15 - 1
        if pair_overflows and isa.saturating_pairs:
            assert chosen == "words"
        if pair_overflows:
            assert chosen != "event"
    for tier in cpu.available_tiers():
        check(graph, inputs, tier)


def test_sums_beyond_32_bits_take_the_general_path() -> None:
    b = GraphBuilder()
    b.add("input", Input((600, 1, 2), "frames", high=255))
    w = np.full((3, 600, 1, 1), 2**15 - 1, np.int16)
    b.add("conv", Conv(**POINT, weight_bits=16), ["input"], {"weight": w})
    b.add("lif", IntegerNeuron(1, 1), ["conv"], {"theta": np.full((3, 1, 1), 2**33)})
    b.add("output", Output(), ["lif"])
    graph = attach(b.build(time_steps=2, input_encoding="frames", arithmetic="integer"))
    assert not any(isinstance(s, SynapseStep) for s in Engine(graph).plan.steps)
    check(graph, np.full((2, 1, 600, 1, 2), 255, np.int64))


def test_a_forged_proof_cannot_narrow_a_layer() -> None:
    graph = _layer(127, 600, 1)
    forged = {k: Widths((-100, 100), (-100, 100), v.membrane and (-100, 100)) for k, v in graph.widths.items()}
    with pytest.raises(ProofError):
        Engine(replace(graph, widths=forged))


def _gated(heads: int, dim: int, tokens: int) -> Graph:
    """q gates k (Q-K token attention), then a projection; q and k are copies of the input's channels."""
    c = heads * dim
    b = GraphBuilder()
    b.add("input", Input((2 * c, tokens), "frames", high=1))
    one = dict(stride=(1,), padding=(0,), dilation=(1,), weight_bits=8)
    for i, name in enumerate("qk"):
        w = np.eye(2 * c, dtype=np.int8)[i * c : (i + 1) * c, :, None]
        b.add(f"{name}_conv", Conv(**one), ["input"], {"weight": w})
        b.add(name, IntegerNeuron(1, 1), [f"{name}_conv"], {"theta": np.ones((c, 1), np.int64)})
    split = View.of((heads, dim, tokens), (0, 1, 2), (heads, dim, tokens))
    b.add("sum", Sum((1,), keepdims=True), [Operand("q", split)])
    b.add("gate", IntegerNeuron(1, 1), ["sum"], {"theta": np.ones((1, 1, 1), np.int64)})
    b.add("mask", Mask(), ["gate", Operand("k", split)])
    merged = View.of((heads, dim, tokens), (0, 1, 2), (c, tokens))
    weight = np.random.default_rng(0).integers(-9, 9, (c, c, 1)).astype(np.int8)
    b.add("proj", Conv(**one), [Operand("mask", merged)], {"weight": weight})
    b.add("out", IntegerNeuron(1, 1), ["proj"], {"theta": np.full((c, 1), 5)})
    b.add("output", Output(), ["out"])
    return attach(b.build(time_steps=2, input_encoding="frames", arithmetic="integer"))


@pytest.mark.parametrize("tier", [None, "numba"])
def test_closed_gates_cost_no_work_in_the_projection(tier: str | None) -> None:
    """Events of closed tokens are never listed, and so never gathered."""
    heads, dim, tokens = 2, 24, 10
    c = heads * dim
    graph = _gated(heads, dim, tokens)
    engine = Engine(graph, tier=tier)
    assert "tokengate: sum, gate, mask" in engine.plan.explain()
    k = np.ones((2, 1, c, tokens), np.int64)
    for open_tokens in (0, 1, 4):
        q = np.zeros_like(k)
        q[:, :, ::dim, :open_tokens] = 1  # one spike per head opens it
        inputs = np.concatenate([q, k], axis=2)
        image = engine._batch(inputs, range(1), lambda n, task, least=1: [task(0, n)], _Quiet())[0]
        assert image.gathered["proj"] == 2 * c * open_tokens
        assert image.counts["mask"]["events_stopped"] == 2 * c * (tokens - open_tokens)
        check(graph, inputs, tier)


class _Quiet:
    def advance(self, nodes: int) -> None:
        """Progress nobody watches."""
