"""Width proofs. Sound: no input passes a bound. Tight: some input reaches it, so one bit less would not do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netbuild import Net, conv_taps, drive_type, interval, random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.errors import ProofError
from qkf_deploy.ir import Graph, Interval, Widths
from qkf_deploy.ops import Add, Conv, IntegerNeuron, Linear, Mask, MatMul, MaxPool, Output, Readout, Sum, SumPool
from qkf_deploy.ops.exact import signed_bits
from qkf_deploy.passes.widths import UNREACHABLE, check, intervals, prove
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

#: Operator, input shape, kernel, output channels: with borders, without interior, strided, dilated, grouped, 1-d.
CONVS = [
    (Conv((1, 1), (1, 1), (1, 1)), (2, 5, 4), (3, 3), 3),
    (Conv((1, 1), (2, 2), (1, 1)), (1, 2, 2), (5, 5), 2),  # every window hangs over two borders
    (Conv((2, 1), (1, 0), (1, 2)), (2, 6, 6), (3, 2), 2),
    (Conv((2, 2), (0, 0), (1, 1)), (3, 5, 4), (1, 1), 2),
    (Conv((1, 1), (1, 1), (1, 1), 2), (4, 3, 4), (3, 3), 4),
    (Conv((2,), (1,), (2,)), (3, 8), (3,), 2),
    (Conv((1, 1), (2, 1), (1, 1), spread=(2, 2), tail=(1, 0)), (2, 3, 3), (3, 3), 2),  # transposed
]
RANGES = st.tuples(st.integers(-6, 6), st.integers(0, 12)).map(lambda v: (v[0], v[0] + v[1]))


@st.composite
def conv_cases(draw: st.DrawFn) -> tuple[Conv, tuple[int, ...], dict[str, np.ndarray], Interval, np.random.Generator]:
    """A convolution with small integer weights, with a plain, a per-border-case or no bias, and input ranges."""
    op, shape, kernel, out = draw(st.sampled_from(CONVS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.integers(-9, 10, (out, shape[0] // op.groups, *kernel))
    if draw(st.booleans()):
        weight[rng.integers(out)] = 0
    params = {"weight": weight}
    bias = draw(st.sampled_from(["none", "plain", "cases"]))
    if bias == "plain":
        params["bias"] = rng.integers(-300, 300, out)
    if bias == "cases":
        params["bias"] = rng.integers(-300, 300, (out, *(len(a.cases()[0]) for a in op.axes(shape, weight))))
    ranges = [draw(RANGES) for _ in range(shape[0])]
    low, high = zip(*ranges, strict=True)
    return op, shape, params, interval(low, high, len(shape)), rng


def terms_by_output(op: Conv, shape: tuple[int, ...], params: dict) -> dict[tuple, list[tuple[tuple, int]]]:
    """(input index, weight) of every existing tap of every output, by brute force."""
    out: dict[tuple, list[tuple[tuple, int]]] = {}
    for place, source, tap in conv_taps(op, shape, params["weight"]):
        out.setdefault(place, []).append((source, int(params["weight"][tap])))
    return out


def bias_at(op: Conv, shape: tuple[int, ...], params: dict) -> np.ndarray:
    zero = {k: np.zeros_like(v) if k == "weight" else v for k, v in params.items()}
    return op.run([np.zeros((1, 1, *shape), np.int64)], zero, 1)[0, 0]


def random_inputs(rng: np.random.Generator, shape: tuple[int, ...], x: Interval) -> Iterator[np.ndarray]:
    low, high = (np.broadcast_to(v, shape) for v in (x.low, x.high))
    yield low.copy()
    yield high.copy()
    for _ in range(4):
        yield np.where(rng.random(shape) < 0.5, low, high)
        yield rng.integers(low, high + 1)


def extreme_input(terms: list[tuple[tuple, int]], shape: tuple[int, ...], x: Interval, sign: int) -> np.ndarray:
    """The input at its extreme wherever the weight has the matching sign; the others at their low end."""
    low, high = (np.broadcast_to(v, shape) for v in (x.low, x.high))
    out = low.copy()
    for source, weight in terms:
        out[source] = high[source] if weight * sign > 0 else low[source]
    return out


@settings(max_examples=60, deadline=None, derandomize=True)
@given(conv_cases())
def test_conv_bounds_are_sound(case) -> None:
    op, shape, params, x, rng = case
    types = (drive_type(shape),)
    bound, partial = op.interval([x], params, types, 1), op.partial_interval([x], params, types)
    terms, bias = terms_by_output(op, shape, params), bias_at(op, shape, params)
    for value in random_inputs(rng, shape, x):
        y = op.run([value[None, None]], params, 1)[0, 0]
        assert (bound.low <= y).all()
        assert (y <= bound.high).all()
        for place, summands in terms.items():
            channel = (place[0], *[0] * (len(place) - 1))
            products = [w * int(value[s]) for s, w in summands] + [int(bias[place])]
            sums = np.cumsum(rng.permutation(products))
            assert partial.low[channel] <= min(0, sums.min())
            assert max(0, sums.max()) <= partial.high[channel]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(conv_cases())
def test_conv_bounds_are_reached(case) -> None:
    op, shape, params, x, _ = case
    types = (drive_type(shape),)
    bound, partial = op.interval([x], params, types, 1), op.partial_interval([x], params, types)
    terms, bias = terms_by_output(op, shape, params), bias_at(op, shape, params)
    for channel in range(params["weight"].shape[0]):
        here = [p for p in terms if p[0] == channel]
        corner = (channel, *[0] * (len(shape) - 1))
        for sign, edge, partial_edge in ((1, bound.high, partial.high), (-1, bound.low, partial.low)):
            values, sums = [], []
            for place in here:
                value = extreme_input(terms[place], shape, x, sign)
                values.append(sign * int(op.run([value[None, None]], params, 1)[0, 0][place]))
                products = [sign * w * int(value[s]) for s, w in terms[place]] + [sign * int(bias[place])]
                sums.append(sum(p for p in products if p > 0))  # the positive terms first: a partial sum of some order
            assert max(values) == sign * int(edge[corner])
            assert max(0, *sums) == sign * int(partial_edge[corner])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.lists(RANGES, min_size=1, max_size=6), st.booleans())
def test_linear_bounds_are_sound_and_reached(seed: int, ranges: list[tuple[int, int]], bias: bool) -> None:
    rng = np.random.default_rng(seed)
    low, high = (np.array(v) for v in zip(*ranges, strict=True))
    weight = rng.integers(-20, 21, (3, len(ranges)))
    params = {"weight": weight} | ({"bias": rng.integers(-99, 99, 3)} if bias else {})
    types, x = (drive_type((len(ranges),)),), Interval(low, high)
    bound, partial = Linear().interval([x], params, types, 1), Linear().partial_interval([x], params, types)
    for _ in range(20):
        value = rng.integers(low, high + 1)
        y = Linear().run([value[None, None]], params, 1)[0, 0]
        assert ((bound.low <= y) & (y <= bound.high)).all()
    for o in range(3):
        best = np.where(weight[o] > 0, high, low)
        worst = np.where(weight[o] > 0, low, high)
        top, bottom = (Linear().run([v[None, None]], params, 1)[0, 0, o] for v in (best, worst))
        assert (bottom, top) == (bound.low[o], bound.high[o])
        shift = [int(params["bias"][o])] if bias else []
        assert partial.high[o] == sum(p for p in [*(weight[o] * best), *shift] if p > 0)
        assert partial.low[o] == sum(p for p in [*(weight[o] * worst), *shift] if p < 0)


def reachable(op: IntegerNeuron, low: int, high: int, theta: int, steps: int) -> tuple[int, int]:
    """Smallest and largest charged membrane over every sequence of drives, by enumeration."""
    states, seen = {0}, set()
    for _ in range(steps):
        charged = {
            ((m * op.decay_multiplier) >> op.decay_shift) + (x << op.fraction_bits)
            for m in states
            for x in range(low, high + 1)
        }
        seen |= charged
        states = {u if u < theta else (u - theta if op.soft_reset else 0) for u in charged}
    return min(seen), max(seen)


NEURONS = [(m, k, soft) for m, k in [(1, 0), (1, 1), (3, 2), (1, 3), (5, 4), (0, 0)] for soft in (False, True)]


@pytest.mark.parametrize(("m", "k", "soft"), NEURONS)
@pytest.mark.parametrize("fraction", [0, 2])
def test_membrane_bounds(m: int, k: int, soft: bool, fraction: int) -> None:
    """Against every drive sequence there is: sound always; tight always without fraction bits."""
    op = IntegerNeuron(m, k, fraction, soft)
    zero, exact = np.zeros((1, 1), np.int64), 0
    for low, high in [(0, 1), (0, 3), (-2, 5), (-7, -1), (2, 4), (3, 3), (-4, 0), (5, 9)]:
        for theta in (1, 3, 7, 40):
            for steps in (1, 2, 5):
                x, params = Interval(zero + low, zero + high), {"theta": (zero + theta) << fraction}
                bound = op.membrane_interval([x], params, steps)
                least, most = reachable(op, low, high, theta << fraction, steps)
                assert int(bound.low.min()) <= least
                assert most <= int(bound.high.max())
                if fraction == 0:
                    assert (int(bound.low.min()), int(bound.high.max())) == (least, most)
                exact += (int(bound.low.min()), int(bound.high.max())) == (least, most)
    assert exact > 60  # of 96


@pytest.mark.parametrize(("m", "k", "soft"), NEURONS)
def test_carried_membranes(m: int, k: int, soft: bool) -> None:
    """With ``official`` carry a membrane lives on from image to image: the bound holds for any number of them."""
    op = IntegerNeuron(m, k, 0, soft, "official")
    zero = np.zeros((1, 1), np.int64)
    for low, high in [(0, 1), (-2, 5), (3, 3), (7, 7), (5, 9), (2, 4)]:
        for theta in (1, 3, 10, 40):
            x, params = Interval(zero + low, zero + high), {"theta": zero + theta}
            if m == 1 << k and (low < 0 or (soft and high > theta)):  # falls, or rises past every reset, for ever
                with pytest.raises(ProofError, match="no bound when images carry it over"):
                    op.membrane_interval([x], params, 2)
                continue
            bound = op.membrane_interval([x], params, 2)
            least, most = reachable(op, low, high, theta, 40)
            assert int(bound.low.min()) <= least
            assert most <= int(bound.high.max())


def test_a_carried_membrane_that_pauses_before_it_grows() -> None:
    """Drive 7, threshold 10, soft reset: 7, 14, 11, 8, 15. The range stands still at the third step."""
    zero = np.zeros((1, 1), np.int64)
    op = IntegerNeuron(1, 0, 0, True, "official")
    bound = op.membrane_interval([Interval(zero + 7, zero + 7)], {"theta": zero + 10}, 1)
    assert int(bound.high.max()) >= 15


def test_stored_membranes() -> None:
    op = IntegerNeuron(1, 1, 0, False, "stored")
    leftover = np.array([[-9, 4], [8, 0], [3, 3]])
    x = Interval(np.array([-1]), np.array([2]))
    bound = op.membrane_interval([x], {"theta": np.array([6]), "leftover": leftover}, 3)
    assert bound.low.tolist() == [-6, -1]
    assert bound.high.tolist() == [6, 4]


def test_membranes_beyond_62_bits_are_refused() -> None:
    zero, params = np.zeros((1, 1), np.int64), {"theta": np.array([[5]])}
    with pytest.raises(ProofError, match="a membrane can reach"):
        IntegerNeuron(1, 1, 32).membrane_interval([Interval(zero, zero + 2**31)], params, 4)
    with pytest.raises(ProofError, match="a membrane can reach"):
        IntegerNeuron(4000, 12).membrane_interval([Interval(zero - 2**52, zero)], params, 4)
    assert IntegerNeuron(1, 1, 8).membrane_interval([Interval(zero, zero + 2**31)], params, 4).high.max() == 2**39 + 2


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.lists(RANGES, min_size=2, max_size=4))
def test_sums_and_pools_are_sound_and_reached(seed: int, ranges: list[tuple[int, int]]) -> None:
    rng, shape = np.random.default_rng(seed), (len(ranges), 4, 3)
    x = interval(*zip(*ranges, strict=True), 3)
    types, ends = (drive_type(shape),), list(random_inputs(rng, shape, x))
    for op in (
        Sum((0,)), Sum((1, 2), True), Sum((0, 1, 2)), MaxPool((3, 3), (2, 2), (1, 1)),
        SumPool((3, 2), (2, 1), (1, 1)), SumPool((2, 2), (2, 2), (0, 0)), Readout(),
    ):  # fmt: skip
        bound = op.interval([x], {}, types, 3)
        values = [op.run([e[None, None]], {}, 3) for e in ends]
        shape_out = values[0].shape[2:]
        low, high = (np.broadcast_to(v, shape_out) for v in (bound.low, bound.high))
        assert all((low <= v[0, 0]).all() and (v[0, 0] <= high).all() for v in values)
        if not isinstance(op, SumPool):  # a pool's border windows have fewer taps, one bound serves the channel
            assert np.array_equal(values[0][0, 0], low)
            assert np.array_equal(values[1][0, 0], high)
        else:
            extremes = [f(np.stack(values)) for f in (np.min, np.max)]
            assert extremes == [low.min(), high.max()]
    a, b = ends[2][None, None], ends[3][None, None]
    both = Add().interval([x, x], {}, types * 2, 1)
    assert ((both.low <= (a + b)[0, 0]) & ((a + b)[0, 0] <= both.high)).all()
    gate = Interval(np.zeros((1, 1, 1), np.int64), np.ones((1, 1, 1), np.int64))
    masked = Mask().interval([gate, x], {}, types * 2, 1)
    assert np.array_equal(masked.low, np.minimum(x.low, 0))
    assert np.array_equal(masked.high, np.maximum(x.high, 0))


def test_products_of_activations() -> None:
    zero = np.zeros((1, 1), np.int64)
    types = (drive_type((3, 5)), drive_type((5, 2)))
    for (a, b), (c, d) in [((0, 1), (0, 3)), ((-2, 1), (0, 3)), ((-2, -1), (-4, 5)), ((0, 0), (1, 1))]:
        bound = MatMul().interval([Interval(zero + a, zero + b), Interval(zero + c, zero + d)], {}, types, 1)
        corners = [x * y for x in (a, b) for y in (c, d)]
        reached = [
            int(MatMul().run([np.full((1, 1, 3, 5), x), np.full((1, 1, 5, 2), y)], {}, 1)[0, 0, 0, 0])
            for x in (a, b)
            for y in (c, d)
        ]
        assert (min(reached), max(reached)) == (int(bound.low.min()), int(bound.high.max()))
        assert min(corners) * 5 == min(reached)


def test_partial_sums_of_a_sum_of_either_sign() -> None:
    """Channels 2..3 and -3..-2: the total stays within -1..1, a partial sum reaches 3."""
    net = Net(0, (1, 1, 1))
    ones = np.ones((2, 1, 1, 1))
    net.add("conv", Conv((1, 1), (0, 0), (1, 1)), "input", weight=ones, bias=np.zeros(2))
    net.lif("lif", net.add("total", Sum((0,), True), "conv"))
    net.add("output", Output(), "lif")
    graph = qd.quantize(net.build(), 8)
    conv = graph["conv"]
    params = {"weight": np.array([1, 1], np.int8).reshape(2, 1, 1, 1), "bias": np.array([2, -258])}
    graph = replace(graph, nodes={**graph.nodes, "conv": replace(conv, params=params)})
    proof = prove(graph)["total"]
    assert proof.value == (2 - 258, 257 - 3)
    assert proof.partial == (-258, 257)


def recorded(graph: Graph, images: np.ndarray) -> tuple[dict, dict]:
    run = reference.run(graph, encode(graph, images)[0], Record.of(graph, "all", "all"))
    return dict(run.values), dict(run.membranes)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bits", [2, 8, 24])
def test_whole_networks_stay_within_their_widths(seed: int, bits: int) -> None:
    graph = qd.quantize(small_transformer(seed), bits)
    values, membranes = recorded(graph, random_pixels(seed, (3, 9, 7), 6))
    bounds = intervals(graph)
    for name, value in values.items():
        low, high = graph.widths[name].value
        assert low <= value.min()
        assert value.max() <= high
        assert (bounds[name].low <= value).all()
        assert (value <= bounds[name].high).all()
    for name, value in membranes.items():
        low, high = graph.widths[name].membrane or (0, 0)
        assert low <= value.min()
        assert value.max() <= high


def test_the_first_layer_reaches_its_bits() -> None:
    """One bit less than proven overflows: pixels exist that reach the bound of the first accumulator and membrane."""
    graph = qd.quantize(small_transformer(0), 8)
    node, type_ = graph["embed_conv"], graph["input"].type
    op = node.op
    assert isinstance(op, Conv)
    widths = graph.widths["embed_conv"]
    params = dict(node.params)
    terms, x = terms_by_output(op, type_.shape, params), interval(0, 255, 3)
    reach = {}
    for sign, edge in ((1, widths.value[1]), (-1, widths.value[0])):
        best = max(
            (extreme_input(t, type_.shape, x, sign) for t in terms.values()),
            key=lambda v: (sign * op.run([v[None, None]], params, 1)).max(),
        )
        values, _ = recorded(graph, best[None].astype(np.uint8))
        reach[sign] = int((sign * values["embed_conv"]).max()) * sign
        assert reach[sign] == edge
    bits = signed_bits(*widths.value)
    fits = [-(2 ** (b - 1)) <= reach[-1] and reach[1] < 2 ** (b - 1) for b in (bits - 1, bits)]
    assert fits == [False, True]


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(0, 0, 1), (0, 1, 2), (-1, 0, 1), (-128, 127, 8), (-129, 0, 9), (0, 128, 9), (-1, 2**31, 33), (-(2**31), 0, 32)],
)
def test_signed_bits(low: int, high: int, bits: int) -> None:
    assert signed_bits(low, high) == bits


def narrowed(widths: Widths) -> Iterator[Widths]:
    """Every way to claim one less."""
    yield replace(widths, value=(widths.value[0] + 1, widths.value[1]))
    yield replace(widths, value=(widths.value[0], widths.value[1] - 1))
    yield replace(widths, partial=(widths.partial[0] + 1, widths.partial[1]))
    yield replace(widths, partial=(widths.partial[0], widths.partial[1] - 1))
    if widths.membrane is not None:
        yield replace(widths, membrane=(widths.membrane[0] + 1, widths.membrane[1]))
        yield replace(widths, membrane=(widths.membrane[0], widths.membrane[1] - 1))
        yield replace(widths, membrane=None)


def test_tampered_widths_are_refused() -> None:
    net = Net(1, (2, 5, 5))
    net.lif("lif", net.conv("conv", "input", 3))
    net.head("lif")
    graph = qd.quantize(net.build(), 8)
    check(graph)
    for name, widths in graph.widths.items():
        for claim in narrowed(widths):
            with pytest.raises(ProofError, match=f"{name}: the stored widths .* are narrower than the proven"):
                check(replace(graph, widths={**graph.widths, name: claim}))
        with pytest.raises(ProofError, match=f"{name}: the file carries no width proof for this node"):
            check(replace(graph, widths={k: v for k, v in graph.widths.items() if k != name}))
    wider = {n: replace(w, value=(w.value[0] - 5, w.value[1] + 5)) for n, w in graph.widths.items()}
    check(replace(graph, widths=wider))  # saying more than proven is allowed


def test_loading_checks_the_proofs(tmp_path: Path) -> None:
    graph = qd.quantize(small_transformer(0), 8)
    qd.save(graph, tmp_path / "good.qkf")
    assert qd.load(tmp_path / "good.qkf").widths == graph.widths
    widths = graph.widths["mlp1_conv"]
    claim = replace(widths, partial=(widths.partial[0], widths.partial[1] // 2))
    qd.save(replace(graph, widths={**graph.widths, "mlp1_conv": claim}), tmp_path / "bad.qkf")
    with pytest.raises(ProofError, match="mlp1_conv: the stored widths"):
        qd.load(tmp_path / "bad.qkf")
    qd.save(replace(graph, widths={}), tmp_path / "none.qkf")
    with pytest.raises(ProofError, match="carries no width proof"):
        qd.load(tmp_path / "none.qkf")


def test_larger_weights_than_proven_are_refused(tmp_path: Path) -> None:
    graph = qd.quantize(small_transformer(0), 4)
    node = graph["pool_conv"]
    weight = np.full_like(node.params["weight"], 7)
    louder = replace(graph, nodes={**graph.nodes, "pool_conv": replace(node, params={**node.params, "weight": weight})})
    qd.save(louder, tmp_path / "louder.qkf")
    with pytest.raises(ProofError, match="pool_conv: the stored widths"):
        qd.load(tmp_path / "louder.qkf")


def test_unreachable_thresholds_are_lowered() -> None:
    net = Net(2, (2, 5, 5))
    net.lif("lif", net.conv("conv", "input", 3))
    net.conv("faint", "lif", 2, bias=False)
    net.builder.nodes["faint"] = replace(
        net.builder.nodes["faint"], params={"weight": net.builder.nodes["faint"].params["weight"] * 1e-40}
    )
    net.lif("lif2", "faint")
    net.head("lif2")
    graph = qd.quantize(net.build(), 8)
    theta = graph["lif2"].params["theta"]
    assert theta.max() < 2**20 < UNREACHABLE
    assert graph.widths["lif2"].membrane is not None
    assert theta.max() == graph.widths["lif2"].membrane[1] + 1
