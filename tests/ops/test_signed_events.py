"""Spikes of either polarity: neurons by plain loops, ranges, counts by sign and energy by brute force."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from netbuild import conv_taps, drive_type, interval, random_pixels, signed_network

import qkf_deploy as qd
from qkf_deploy import ops
from qkf_deploy.errors import GraphError
from qkf_deploy.ir import Interval
from qkf_deploy.ir.values import Kind, Timing, ValueType
from qkf_deploy.simulators import engines, reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

QUARTERS = np.arange(-12, 13) / 4
DRIVES = np.stack(np.meshgrid(QUARTERS, QUARTERS, QUARTERS[::3], indexing="ij")).reshape(3, 1, -1)


def ternary(membrane: np.ndarray, threshold: float, strict: bool) -> np.ndarray:
    """As the code of ternary spikes has it: a comparison in each direction."""
    if strict:
        return (membrane > threshold).astype(float) - (membrane < -threshold)
    return (membrane >= threshold).astype(float) - (membrane <= -threshold)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_ternary_spikes_of_published_code(strict: bool, soft: bool) -> None:
    """arXiv 2312.06372, Eq. 8-9: the membrane decays and is cleared where it fired, whichever way."""
    op = ops.Neuron(None, 0.75, None if soft else 0.0, strict=strict, decay=0.25, signed=True)
    membrane, spikes, out = np.zeros(DRIVES.shape[1:]), np.zeros(DRIVES.shape[1:]), []
    for drive in DRIVES:
        kept = membrane - 0.75 * spikes if soft else membrane * (1 - np.abs(spikes))
        membrane = 0.25 * kept + drive
        spikes = ternary(membrane, 0.75, strict)
        out.append(spikes)
    assert np.array_equal(op.run([DRIVES], {}, 3), np.stack(out))
    assert {-1, 0, 1} == set(np.unique(out))


def test_counts_of_either_polarity() -> None:
    """Several and rounded spikes: the number that the magnitude is worth, with the membrane's sign."""
    x = np.array([2.5, -2.5, 0.5, -0.5, -1.5, 9.0, -9.0, -0.25]).reshape(1, 1, -1)
    even = ops.Neuron(None, 1.0, None, max_spikes=4, rounding="half_even", signed=True)
    whole = ops.Neuron(None, 1.0, None, max_spikes=2, signed=True)
    assert even.run([x], {}, 1).ravel().tolist() == [2, -2, 0, 0, -2, 4, -4, 0]
    assert whole.run([x], {}, 1).ravel().tolist() == [2, -2, 0, 0, -1, 2, -2, 0]


@pytest.mark.parametrize(
    "fields",
    [{"v_min": -1.0}, {"v_reset": -0.5}, {"reset_delay": True, "v_reset": None}, {"strict": True, "max_spikes": 2}],
)
def test_what_signed_neurons_cannot_be(fields: dict) -> None:
    op = ops.Neuron(**{"tau": None, "v_threshold": 1.0, "v_reset": 0.0, "signed": True, **fields})
    with pytest.raises(GraphError):
        op.infer([drive_type((2,))], {})


SETTINGS = [
    dict(soft_reset=False), dict(soft_reset=True), dict(soft_reset=True, strict=True),
    dict(soft_reset=True, max_spikes=3), dict(soft_reset=True, max_spikes=5, rounding="half_even"),
    dict(soft_reset=False, max_spikes=2, rounding="half_up"),
]  # fmt: skip


@pytest.mark.parametrize("fields", SETTINGS, ids=str)
@pytest.mark.parametrize(("low", "high"), [(-7, 7), (-9, 2), (1, 9), (-9, -1), (0, 0)])
def test_no_drive_leaves_the_proven_range(fields: dict, low: int, high: int) -> None:
    """Every sequence of three drives; the range is reached at the first step."""
    op = ops.IntegerNeuron(1, 1, signed=True, **fields)
    theta = np.array([3, 4])
    ends = np.unique([low, high, 0 if low <= 0 <= high else low, (low + high) // 2, *range(low, high + 1, 2)])
    drives = np.array(list(itertools.product(ends, repeat=3))).T[:, :, None] * np.ones(2, np.int64)
    given = Interval(np.full(1, low), np.full(1, high))
    reach = op.membrane_interval([given], {"theta": theta}, 3)
    membranes = op.membranes([drives], {"theta": theta}, 3)
    assert (membranes >= reach.low).all()
    assert (membranes <= reach.high).all()
    spikes, proven = (
        op.run([drives], {"theta": theta}, 3),
        op.interval([given], {"theta": theta}, [drive_type((2,))], 3),
    )
    assert (spikes >= proven.low).all()
    assert (spikes <= proven.high).all()
    first = op.run([drives[:1]], {"theta": theta}, 1)
    assert np.array_equal(op.run([-drives[:1]], {"theta": theta}, 1), -first)  # later, floors are no mirror


def signed_type(shape: tuple[int, ...], high: int | None = 1) -> ValueType:
    return ValueType.events(shape, high, Timing.STEP, signed=True)


def test_what_comes_of_signed_events_is_signed() -> None:
    """Sums, products and gates of signed events are whole numbers of either sign, with their own ranges."""
    a, b = signed_type((2, 3)), ValueType.spikes((3, 4))
    assert ops.MatMul().infer([a, b], {}) == signed_type((2, 4), 3)
    assert ops.Add().infer([a, ValueType.spikes((2, 3))], {}) == signed_type((2, 3), 2)
    assert ops.Sum((1,)).infer([a], {}) == signed_type((2,), 3)
    assert ops.MaxPool((2,), (1,), (0,)).infer([a], {}) == signed_type((2, 2))
    assert ops.SumPool((2,), (1,), (0,)).infer([a], {}) == signed_type((2, 2), 2)
    assert ops.Readout().infer([a], {}).kind is Kind.SIGNED
    assert ops.Mask().infer([a, ValueType.spikes((2, 3))], {}) == a
    assert ops.Mask().infer([a, drive_type((2, 3))], {}).kind is Kind.DRIVE
    assert ops.Mask().infer([ValueType.spikes((2, 3)), a], {}) == a
    with pytest.raises(GraphError, match="a gate must be spikes"):
        ops.Mask().infer([signed_type((2, 3), 2), a], {})
    with pytest.raises(GraphError, match="a gate must be spikes"):
        ops.Mask(invert=True).infer([a, a], {})
    turned = ops.Mask().interval([interval(-1, 1, 2), interval(-2, 5, 2)], {}, [a, drive_type((2, 3))], 1)
    assert (int(turned.low.min()), int(turned.high.max())) == (-5, 5)


CHANNELS, SIZE = 4, 3


def test_counts_by_sign_by_brute_force() -> None:
    """Every spike through every tap that exists, in plain loops; products pair by pair."""
    graph = qd.quantize(signed_network(4), 8)
    images = np.random.default_rng(1).integers(0, 256, (3, 2, SIZE, SIZE)).astype(np.uint8)
    run = reference.run(graph, encode(graph, images)[0], Record.of(graph, "all"))
    v, ledger = {k: a.astype(int) for k, a in run.values.items()}, run.ledger
    each = (0, 2, 3, 4)
    x, y = v["x"], v["y"]
    assert x.min() < 0 < x.max()
    for name in ("x", "y"):
        counts = ledger[name].counts
        assert counts["events_out_unary"].tolist() == np.abs(v[name]).sum(each).tolist() == counts["resets"].tolist()
        assert counts["events_out_negative"].tolist() == np.maximum(-v[name], 0).sum(each).tolist()
        assert counts["events_out_graded"].tolist() == (v[name] != 0).sum(each).tolist()
        assert np.array_equal(ledger[name].spikes_per_step, np.abs(v[name]).sum((2, 3, 4)))
    adds, takes = np.zeros(3, int), np.zeros(3, int)
    for _, source, _ in conv_taps(graph["conv"].op, (CHANNELS, SIZE, SIZE), graph["conv"].params["weight"]):
        adds += np.abs(x[(..., *source)]).sum(0)
        takes += np.maximum(-x[(..., *source)], 0).sum(0)
    counts = ledger["conv"].counts
    assert counts["ac_unary"].tolist() == adds.tolist()
    assert counts["ac_negative"].tolist() == takes.tolist()
    assert counts["events_in_negative"].tolist() == np.maximum(-x, 0).sum(each).tolist()
    assert "mac" not in counts
    pairs, apart, work = np.zeros(3, int), np.zeros(3, int), np.zeros(3, int)
    a, b = x.reshape(4, 3, CHANNELS, -1), y.reshape(4, 3, CHANNELS, -1)
    for i, j, n in itertools.product(range(CHANNELS), range(CHANNELS), range(SIZE * SIZE)):
        product = a[:, :, i, n] * b[:, :, j, n]
        pairs, apart, work = pairs + (product != 0).sum(0), apart + (product < 0).sum(0), work + np.abs(product).sum(0)
    counts = ledger["kv"].counts
    assert counts["coincidences"].tolist() == pairs.tolist()
    assert counts["coincidences_negative"].tolist() == apart.tolist()
    assert counts["coincidences_unary"].tolist() == work.tolist()
    assert apart.any()
    assert ledger["total"].counts["attention_sum_adds_unary"].tolist() == np.abs(v["z"]).sum((0, 2, 3)).tolist()
    windows = np.zeros((SIZE, SIZE), int)
    for row, column, i, j in itertools.product(range(4), range(2), range(2), range(2)):
        if 0 <= row - 1 + i < SIZE:
            windows[row - 1 + i, column + j] += 1
    assert ledger["pool"].counts["pool_adds_unary"].tolist() == (np.abs(v["add"]) * windows).sum(each).tolist()
    assert ledger["readout"].counts["head_adds_unary"].tolist() == np.abs(v["head_sum"]).sum((0, 2)).tolist()
    report = {row.layer: row.energy_pj for row in qd.price(ledger, "exact-fp32").layers}
    assert Fraction(report["kv"]) == Fraction(9, 10) * int(work.sum())
    assert Fraction(report["conv"]) == Fraction(9, 10) * int(adds.sum())


@pytest.mark.parametrize("seed", range(3))
def test_integers_give_the_float_spikes(seed: int) -> None:
    """Many bits lose no spike of either polarity."""
    graph = signed_network(seed)
    integer = qd.quantize(graph, 24, scales="max", fraction_bits=10)
    images = np.random.default_rng(seed).integers(0, 256, (3, 2, SIZE, SIZE)).astype(np.uint8)
    names = ["x", "y", "z", "gate"]
    runs = [reference.run(g, encode(g, images)[0], Record.of(g, names)) for g in (graph, integer)]
    for name in names:
        assert np.array_equal(runs[0].spikes[name], runs[1].spikes[name]), name
        assert runs[0].spikes[name].min() < 0 or name == "gate"


@pytest.mark.parametrize(("seed", "bits"), [(0, 8), (1, 2), (2, 4), (3, 16), (4, 24)])
def test_random_networks_in_every_engine(seed: int, bits: int) -> None:
    """Every value, membrane and count; black and white images among them."""
    graph = qd.quantize(signed_network(seed), bits)
    x = encode(graph, random_pixels(seed, (2, SIZE, SIZE), 5))[0]
    record = Record.of(graph, "all", "all")
    wanted = reference.run(graph, x, record)
    for engine in ("event", "torch", "onnx"):
        for form in ("step", "sequence") if engine == "onnx" else ("",):
            found = engines.get(engine, graph, {"form": form} if form else {})(graph, x, record, None)
            assert found.ledger == wanted.ledger, engine
            for kept, expected in ((found.values, wanted.values), (found.membranes, wanted.membranes)):
                assert all(np.array_equal(kept[name], value) for name, value in expected.items()), engine
