"""Widths are proven again on load; what could overflow a narrow type takes a wider one; closed gates cost nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from event_cases import ISAS, check, check_isa, gated
from numba import njit

from qkf_deploy.errors import ProofError
from qkf_deploy.ir import Graph, GraphBuilder, Widths
from qkf_deploy.ops import Conv, Input, IntegerNeuron, MaxPool, Output
from qkf_deploy.passes.widths import attach
from qkf_deploy.simulators.event import cpu, proofs
from qkf_deploy.simulators.event.engine import Engine, _Given
from qkf_deploy.simulators.event.kernels.arguments import Events
from qkf_deploy.simulators.event.kernels.fire import SPOILT
from qkf_deploy.simulators.event.kernels.segments import checked_segments
from qkf_deploy.simulators.event.kernels.streams import pool_fire
from qkf_deploy.simulators.event.layers import SynapseLayer
from qkf_deploy.simulators.event.steps import GeneralStep, SynapseStep
from qkf_deploy.simulators.event.values import to_stream
from qkf_deploy.simulators.event.windows import pointwise

#: Instruction sets, none of which takes dense kernels where events will do.
GATHERING = [replace(isa, dense_crossover=2.0) for isa in ISAS if isa.dense_crossover < 2]
POINT = dict(stride=(1, 1), padding=(0, 0), dilation=(1, 1))


@njit
def _checked_segments(events, rows, segments, strip_sums, sums, starts):  # type: ignore[no-untyped-def]
    return checked_segments(events, rows, segments, strip_sums, sums, starts)


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


def _layer(
    weight: int, channels: int, high: int, soft: bool = False, theta: int = 1000, steps: int = 3, shift: int = 1
) -> Graph:
    b = GraphBuilder()
    b.add("input", Input((channels, 2, 3), "frames", high=high))
    w = np.full((40, channels, 1, 1), weight, np.int8)
    b.add("conv", Conv(**POINT, weight_bits=8), ["input"], {"weight": w})
    b.add("lif", IntegerNeuron(1, shift, 0, soft), ["conv"], {"theta": np.full((40, 1, 1), theta)})
    b.add("output", Output(), ["lif"])
    return attach(b.build(time_steps=steps, input_encoding="frames", arithmetic="integer"))


@pytest.mark.parametrize("magnitude", [1, 3, 127])
@pytest.mark.parametrize("bias", [0, 1, 900, 32767, 40000])
def test_the_largest_sum_of_inputs_is_exact(magnitude: int, bias: int) -> None:
    largest = proofs.largest_sum(magnitude, bias)
    assert largest == 0 or magnitude * largest + bias < 2**15
    assert magnitude * (largest + 1) + bias >= 2**15


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 4])
@pytest.mark.parametrize("weight", [127, -127])
@pytest.mark.parametrize("channels", [20, 64, 129, 172, 258, 259, 600])
def test_drives_and_membranes_around_sixteen_bits(weight: int, channels: int, shift: int, soft: bool) -> None:
    """Every sum at its bound, for charges that stay in 16 bits, pass them at some step, or never fit."""
    inputs = np.ones((16, 1, channels, 2, 3), np.int64)
    inputs[::3, :, 5:] = 0
    for theta in (1, 32767, 40000):
        graph = _layer(weight, channels, high=1, theta=theta, soft=soft, steps=16, shift=shift)
        check_isa(graph, inputs, *ISAS, *GATHERING)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("pooled", [False, True])
def test_long_rows_that_cancel(seed: int, pooled: bool) -> None:
    """Sums far beyond 16 bits on the way; what is left of them at the end fits, or does not."""
    rng = np.random.default_rng(seed)
    channels, high = 700, int(rng.choice([1, 2, 9, 60]))
    signs = np.where(np.arange(channels) < channels // 2 + int(rng.choice([0, 1, 40])), 127, -127)
    weight = np.broadcast_to(signs[:, None, None], (40, channels, 3, 3)) * rng.choice([1, -1], (40, 1, 1, 1))
    b = GraphBuilder()
    b.add("input", Input((channels, 4, 5), "frames", high=high))
    arrays = {"weight": weight.astype(np.int8), "bias": rng.integers(-3000, 3000, 40)}
    b.add("conv", Conv((1, 1), (1, 1), (1, 1), weight_bits=8), ["input"], arrays)
    if pooled:
        b.add("pool", MaxPool((2, 2), (2, 2), (0, 0)), ["conv"])
    theta = rng.integers(1, 5000, (40, 1, 1))
    b.add("lif", IntegerNeuron(1, 1, 0, bool(seed % 2)), ["pool" if pooled else "conv"], {"theta": theta})
    b.add("output", Output(), ["lif"])
    graph = attach(b.build(time_steps=3, input_encoding="frames", arithmetic="integer"))
    shape = (3, 1, channels, 4, 5)
    inputs = rng.integers(0, high + 1, shape) * (rng.random(shape) < 0.7)
    check_isa(graph, inputs, *ISAS, *GATHERING)


@pytest.mark.parametrize("theta", [20000, 35000])
@pytest.mark.parametrize("line", [0, 14, 15, 16, 31, 32, 39])
def test_pooling_bands_that_share_a_line(line: int, theta: int) -> None:
    """A band takes over the last line of the one before, but not drives that did not fit 16 bits there."""
    b = GraphBuilder()
    b.add("input", Input((300, 40, 3), "frames", high=1))
    b.add("conv", Conv(**POINT, weight_bits=8), ["input"], {"weight": np.full((33, 300, 1, 1), 127, np.int8)})
    b.add("pool", MaxPool((3, 3), (2, 2), (1, 1)), ["conv"])
    b.add("lif", IntegerNeuron(1, 1), ["pool"], {"theta": np.full((33, 1, 1), theta)})
    b.add("output", Output(), ["lif"])
    graph = attach(b.build(time_steps=2, input_encoding="frames", arithmetic="integer"))
    inputs = (np.random.default_rng(line).random((2, 1, 300, 40, 3)) < 0.05).astype(np.int64)
    inputs[:, :, :, line] = 1
    check_isa(graph, inputs, *ISAS, *GATHERING)


@pytest.mark.parametrize("bias", [32766, 32767, 32768, 40000, -32768, -40000])
@pytest.mark.parametrize("high", [1, 3])
@pytest.mark.parametrize("pooled", [False, True])
def test_biases_around_sixteen_bits(bias: int, high: int, pooled: bool) -> None:
    """Where no input is active, the bias alone must fit."""
    b = GraphBuilder()
    b.add("input", Input((9, 2, 4), "frames", high=high))
    arrays = {"weight": np.full((40, 9, 1, 1), -1, np.int8), "bias": np.full(40, bias)}
    b.add("conv", Conv(**POINT, weight_bits=8), ["input"], arrays)
    if pooled:
        b.add("pool", MaxPool((2, 2), (2, 2), (0, 0)), ["conv"])
    neuron = IntegerNeuron(1, 0, 0, soft_reset=True)
    b.add("lif", neuron, ["pool" if pooled else "conv"], {"theta": np.full((40, 1, 1), 39999)})
    b.add("output", Output(), ["lif"])
    graph = attach(b.build(time_steps=16, input_encoding="frames", arithmetic="integer"))
    for inputs in (np.zeros((16, 1, 9, 2, 4), np.int64), np.full((16, 1, 9, 2, 4), high)):
        check_isa(graph, inputs, *ISAS, *GATHERING)


def test_sixteen_bits_own_up_where_they_are_not_enough() -> None:
    """Pooling and neuron on 16-bit drives: right, or at least :data:`SPOILT` non-zero drives; never wrong silently."""
    rng = np.random.default_rng(5)
    window, steps, form = pointwise(1, 1), 6, np.array([1, 0, 0, 0])
    spoilt = 0
    for _ in range(300):
        reach = int(rng.choice([100, 5000, 9000, 32767]))
        x = rng.integers(-reach - 1, reach + 1, (steps, 32)).astype(np.int16)
        theta = rng.integers(-20, 32768, 32)
        spikes, none = np.empty((steps, 1), np.uint32), np.empty((0, 0), np.int32)
        fired = np.zeros(steps, np.int64)
        driven = pool_fire(
            cpu.select("vector").tag, x, 0, window.ypos, window.xpos, 1, 1, steps, steps, theta.astype(np.int32),
            theta.astype(np.int16), form, spikes, fired, none, 0, 1,
        )  # fmt: skip
        m, lowest, wanted = np.zeros(32, np.int64), 0, np.empty((steps, 1), np.uint32)
        for t in range(steps):
            u = m + x[t]
            m, lowest = np.where(u >= theta, 0, u), min(lowest, u.min())
            wanted[t] = np.packbits(u >= theta, bitorder="little").view(np.uint32)
        assert (driven >= SPOILT) == (lowest <= -(2**15))
        spoilt += driven >= SPOILT
        if driven < SPOILT:
            assert np.array_equal(spikes, wanted)
            assert np.array_equal(fired, np.unpackbits(wanted.view(np.uint8), axis=1).sum(axis=1))
            assert driven == np.count_nonzero(x)
    assert 50 < spoilt < 250


@pytest.mark.parametrize("seed", range(30))
def test_sums_are_looked_at_before_they_can_pass_the_limit(seed: int) -> None:
    """Whatever the events, pieces cover all pairs in order, and what is added unseen always has room."""
    rng = np.random.default_rng(seed)
    rows, strips, largest = 5 if seed % 3 else 1, int(rng.choice([1, 3])), int(rng.choice([1, 2, 9, 100]))
    magnitude, offset = int(rng.choice([1, 31, 127])), int(rng.choice([0, 40]))
    stride = 2 * largest + int(rng.choice([0, 1, 50]))
    limit = max(stride, int(rng.choice([stride, 2 * stride, (2**15 - 1 - offset) // magnitude])))
    pairs = rng.integers(0, 80, rows * strips)
    ends = 2 * np.cumsum(pairs)
    val = rng.integers(1, largest + 1, max(ends[-1], 1)).astype(np.uint8)
    val[1::2] *= rng.random(val[1::2].shape) < 0.8  # rows of odd length are padded
    start = ends - 2 * pairs
    strip_sums = np.array([val[a:b].sum(dtype=np.int64) for a, b in zip(start, ends, strict=True)], np.int32)
    sums = strip_sums.reshape(rows, strips).sum(axis=1).astype(np.int32)
    if seed % 2:
        strip_sums[:] = -1  # parts of a line: not known
    segments = np.stack([start, pairs, 7 * np.arange(rows * strips), 0 * pairs], axis=1).astype(np.int32)
    nothing = np.zeros(0, np.int64)
    events = Events(
        nothing, nothing, nothing.astype(np.uint16), val, largest, True, magnitude, offset, limit, stride, True
    )  # fmt: skip
    starts = np.full(rows * strips + 2, -5)
    out = _checked_segments(events, rows, segments, strip_sums, sums, starts[:-1])
    assert starts[-1] == -5  # not one too many
    for r in range(rows):
        room = limit
        for s in range(r * strips, (r + 1) * strips):
            pieces = out[starts[s] : starts[s + 1]]
            covered = [e for a, n, _, _ in pieces for e in range(a, a + 2 * n)]
            assert covered == list(range(start[s], ends[s]))
            assert (pieces[:, 2] == 7 * s).all()
            for a, n, _, least in pieces:
                if least:
                    assert sums[r] > limit
                    assert least - 1 + magnitude * stride <= 2**15 - 1  # a sum that stays has room for the stride
                    room = stride
                room -= int(val[a : a + 2 * n].sum())
                assert room >= 0


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


@pytest.mark.parametrize("tier", [None, "numba"])
def test_closed_gates_cost_no_work_in_the_projection(tier: str | None) -> None:
    """Events of closed tokens are never listed, and so never gathered."""
    heads, dim, tokens = 2, 24, 10
    c = heads * dim
    graph = gated(heads, dim, tokens)
    # However many tokens are open: the dense kernels would read them all.
    engine = Engine(graph, tier=replace(cpu.select(tier), dense_crossover=2.0))
    assert "tokengate: sum, gate, mask" in engine.plan.explain()
    k = np.ones((2, 1, c, tokens), np.int64)
    for open_tokens in (0, 1, 4):
        q = np.zeros_like(k)
        q[:, :, ::dim, :open_tokens] = 1  # one spike per head opens it
        inputs = np.concatenate([q, k], axis=2)
        image = engine._batch(_Given.of(inputs, None), range(1), lambda n, task, least=1: [task(0, n)], _Quiet())[0]
        assert image.gathered["proj"] == 2 * c * open_tokens
        assert image.counts["mask"]["events_stopped"] == 2 * c * (tokens - open_tokens)
        check(graph, inputs, tier)


class _Quiet:
    def advance(self, nodes: int) -> None:
        """Progress nobody watches."""
