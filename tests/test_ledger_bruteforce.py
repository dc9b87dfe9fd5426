"""The ledger against a tap-by-tap count in plain loops, for every count class; joining, order, JSON, large totals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from netbuild import Net, conv_taps, random_pixels, signed_network, small_transformer

import qkf_deploy as qd
from qkf_deploy import ops
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph, Node, Operand, ValueType, View
from qkf_deploy.ledger import COUNT_CLASSES, Ledger, concatenate
from qkf_deploy.ops.exact import signed_bits
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

Counts = dict[str, np.ndarray]


class Tally:
    """Counters per image."""

    def __init__(self, images: int) -> None:
        self.counts: Counts = {}
        self.images = images

    def add(self, name: str, amount: np.ndarray | int) -> None:
        """``amount`` per image, or ``(T, B)`` values to add up over time."""
        amount = np.asarray(amount, np.int64)
        per_image = amount.sum(axis=0) if amount.ndim == 2 else amount
        self.counts[name] = self.counts.get(name, np.zeros(self.images, np.int64)) + per_image

    def add_signed(self, name: str, values: np.ndarray, *types: ValueType) -> None:
        """What is negative, where any of the values is of either polarity."""
        if any(type_.is_signed for type_ in types):
            self.add(name, np.maximum(-values, 0))


def synapse_taps(op: ops.Conv | ops.Linear, shape: tuple[int, ...], weight: np.ndarray):
    if isinstance(op, ops.Conv):
        yield from conv_taps(op, shape, weight)
        return
    for row in itertools.product(*map(range, shape[:-1])):
        for o in range(weight.shape[0]):
            for i in range(weight.shape[1]):
                yield (*row, o), (*row, i), (o, i)


def count_synapse(t: Tally, graph: Graph, node: Node, x: np.ndarray, y: np.ndarray) -> None:
    (type_,) = graph.input_types(node)
    weight, repeat = node.params["weight"], graph.time_steps // x.shape[0]
    bits = node.op.weight_bits or 32  # type: ignore[attr-defined]
    word = -(-bits // 8)
    image = type_.timing.value == "image"
    names = ["ac_unary", "ac_graded", "ac_unary_nonzero_weights", "ac_graded_nonzero_weights"]
    if image:
        names = ["head_macs"]
    elif not type_.is_events:
        names = ["mac", "mac_every_step", "mac_nonzero"]
    for name in [*names, "weight_bytes"]:
        t.add(name, 0)
    for _, source, tap in synapse_taps(node.op, type_.shape, weight):  # type: ignore[arg-type]
        value, there = x[(..., *source)], int(weight[tap] != 0)
        if image:
            t.add("head_macs", 1)
            t.add("weight_bytes", word)
        elif type_.is_events:
            t.add("ac_unary", np.abs(value))
            t.add("ac_graded", value != 0)
            t.add("ac_unary_nonzero_weights", np.abs(value) * there)
            t.add_signed("ac_negative", value, type_)
            t.add("ac_graded_nonzero_weights", (value != 0) * there)
            t.add("weight_bytes", (value != 0) * word)
        else:
            t.add("mac", np.ones_like(value))
            t.add("mac_every_step", np.ones_like(value) * repeat)
            t.add("mac_nonzero", (value != 0) * there)
            t.add("weight_bytes", np.ones_like(value) * word)
    if "bias" in node.params:
        for index in np.ndindex(*y.shape[2:]):
            t.add("bias_adds", np.ones_like(y[(..., *index)]))


def count_matmul(t: Tally, graph: Graph, node: Node, a: np.ndarray, b: np.ndarray) -> None:
    events = all(v.is_events for v in graph.input_types(node))
    *lead, n, k = a.shape[2:]
    m = b.shape[-1]
    for head in np.ndindex(*lead):
        for i, j, column in itertools.product(range(n), range(k), range(m)):
            left, right = a[(..., *head, i, j)], b[(..., *head, j, column)]
            if not events:
                t.add("mac", np.ones_like(left))
                continue
            t.add("coincidences", (left != 0) & (right != 0))  # of a chunk: those of all its steps, once each
            t.add("coincidences_unary", np.abs(left * right))
            t.add_signed("coincidences_negative", np.sign(left * right), *graph.input_types(node))
            t.add("fanout_left", left != 0)
            t.add("fanout_right", right != 0)


def count_pool(t: Tally, graph: Graph, node: Node, x: np.ndarray, y: np.ndarray) -> None:
    op, (type_,) = node.op, graph.input_types(node)
    for place in itertools.product(*map(range, node.type.shape[1:])):
        taps = 0
        for tap in itertools.product(*map(range, op.kernel)):  # type: ignore[attr-defined]
            where = [p * s - q + k for p, s, q, k in zip(place, op.stride, op.padding, tap, strict=True)]  # type: ignore[attr-defined]
            if not all(0 <= w < n for w, n in zip(where, type_.shape[1:], strict=True)):
                continue
            taps += 1
            if isinstance(op, ops.SumPool):
                for c in range(type_.shape[0]):
                    value = x[(slice(None), slice(None), c, *where)]
                    t.add("pool_adds_unary", np.abs(value) if type_.is_events else np.ones_like(value))
        if isinstance(op, ops.MaxPool):
            t.add("pool_comparisons", np.full((y.shape[0], t.images), type_.shape[0] * (taps - 1)))


def count_readout(t: Tally, op: ops.Readout, value: np.ndarray, repeat: int, events: bool) -> None:
    """One element, ``(T or 1, B)``."""
    if op.weights and not op.picks:
        t.add("head_macs", np.ones_like(value[0]) * np.count_nonzero(op.weights))
        return
    if op.weights:
        value = value[[op.weights.index(1.0)]]
    t.add("head_adds_unary", (np.abs(value) if events else np.ones_like(value)) * repeat)
    if events:
        t.add("head_adds_graded", (value != 0) * repeat)


def count_rest(t: Tally, graph: Graph, node: Node, operands: list[np.ndarray], y: np.ndarray) -> None:
    """Everything that is counted element by element."""
    op, types, steps = node.op, graph.input_types(node), graph.time_steps
    x, repeat = operands[0], steps // operands[0].shape[0]
    events = all(v.is_events for v in types)
    for index in np.ndindex(*operands[-1].shape[2:]):
        value = operands[-1][(..., *index)]
        if isinstance(op, ops.Sum):
            name = "head_adds" if op.role == "readout" else "attention_sum_adds"
            t.add(f"{name}_unary", np.abs(value) if events else np.ones_like(value))
            if events:
                t.add(f"{name}_graded", value != 0)
        elif isinstance(op, ops.Readout):
            count_readout(t, op, value, repeat, events)
        elif isinstance(op, ops.Scale):
            t.add("scale_multiplies", np.ones_like(value))
        elif isinstance(op, ops.Mask):
            gate = np.broadcast_to(x, operands[1].shape)[(..., *index)]
            opened = gate == 0 if op.invert else gate != 0
            t.add("gate_ands", value != 0)
            t.add("events_stopped", (value != 0) & ~opened)
        elif isinstance(op, ops.Add):
            other = x[(..., *index)]
            t.add("residual_adds", (other != 0) & (value != 0) if events else np.ones_like(other))
        elif isinstance(op, ops.Neuron | ops.IntegerNeuron):
            t.add("neuron_updates_driven", (value != 0) * repeat)
            t.add("neuron_updates_idle", (value == 0) * repeat)
            t.add("resets", np.abs(y[(..., *index)]))


def brute_force(graph: Graph, node: Node, operands: list[np.ndarray], y: np.ndarray) -> Counts:
    t = Tally(y.shape[1])
    op, types = node.op, graph.input_types(node)
    if isinstance(op, ops.Conv | ops.Linear):
        count_synapse(t, graph, node, operands[0], y)
    elif isinstance(op, ops.MatMul):
        count_matmul(t, graph, node, *operands)
    elif isinstance(op, ops.MaxPool | ops.SumPool):
        count_pool(t, graph, node, operands[0], y)
    else:
        count_rest(t, graph, node, operands, y)
    flows = [(x, v, "in") for x, v in zip(operands, types, strict=True)]
    flows += [(y, node.type, "out")] if op.kind != "output" else []
    for value, type_, way in flows:
        if not type_.is_events:
            continue
        repeat = graph.time_steps if type_.timing.value == "constant" else 1
        for index in np.ndindex(*type_.shape):
            t.add(f"events_{way}_unary", np.abs(value[(..., *index)]) * repeat)
            t.add_signed(f"events_{way}_negative", value[(..., *index)] * repeat, type_)
            t.add(f"events_{way}_graded", (value[(..., *index)] != 0) * repeat)
    if isinstance(op, ops.Neuron | ops.IntegerNeuron):
        widths = graph.widths.get(node.name)
        word = 4 if widths is None or widths.membrane is None else -(-signed_bits(*widths.membrane) // 8)
        t.add("state_bytes", 2 * node.type.size * graph.time_steps * word)
    return t.counts


def check_ledger(graph: Graph, images: np.ndarray) -> Ledger:
    """Every count of every layer equals the brute-force count; returns the ledger.

    A float graph is counted as the network it folds to, whichever of the two runs.
    """
    inputs = encode(graph, images)[0]
    given = reference.run(graph, inputs)
    graph = graph if graph.arithmetic == "integer" else qd.fold(graph)
    run = reference.run(graph, inputs, Record.of(graph, "all"))
    assert given.ledger == run.ledger
    values = {"input": inputs, **run.values}
    for node in graph:
        if node.op.kind == "input":
            continue
        operands = [values[o.node] if o.view is None else o.view.apply(values[o.node]) for o in node.inputs]
        whole = [
            v.astype(np.int64) if t.is_events else v for v, t in zip(operands, graph.input_types(node), strict=True)
        ]
        expected = brute_force(graph, node, whole, values[node.name].astype(np.int64))
        record = run.ledger[node.name]
        assert set(record.counts) == set(expected), node.name
        for name, count in expected.items():
            assert np.array_equal(record.counts[name], count), (node.name, name)
            assert record.counts[name].dtype == np.int64
            assert record.total(name) == int(count.sum())
        if record.spikes_per_step is not None:
            spikes = np.abs(values[node.name]).sum(axis=tuple(range(2, values[node.name].ndim)))
            assert np.array_equal(record.spikes_per_step, spikes)
    return run.ledger


def sparse_weights(graph: Graph, seed: int) -> Graph:
    """Some weights set to zero, which the `_nonzero_weights` classes skip."""
    rng, nodes = np.random.default_rng(seed), dict(graph.nodes)
    for node in graph:
        if "weight" in node.params and node.op.kind in ("conv", "linear"):
            weight = node.params["weight"] * (rng.random(node.params["weight"].shape) < 0.7)
            nodes[node.name] = replace(node, params={**node.params, "weight": weight})
    return replace(graph, nodes=nodes)


def odd_sizes() -> Graph:
    """3x3 pad 1 at odd sizes, 1x1 stride 2, grouped and dilated, on counts."""
    net = Net(1, (2, 5, 7))
    a, b = net.lif("a", net.conv("conv", "input", 4)), net.lif("b", net.conv("conv_b", "input", 4))
    x = net.add("add", ops.Add(), net.add("add0", ops.Add(), a, b), b)
    net.lif("s", net.conv("strided", x, 3, kernel=1, stride=2, padding=0))
    net.lif("g", net.conv("grouped", x, 6, groups=2, stride=2))
    net.lif("d", net.conv("dilated", "g", 2, dilation=2, padding=2, bias=False))
    net.add("cat", ops.Add(), "d", net.lif("e", net.conv("wide", "s", 2, kernel=5, padding=2)))
    net.head("cat")
    return net.build(3)


def one_dimensional() -> Graph:
    """1-d convolutions, a linear layer over positions, gates that invert, a token sum."""
    net = Net(2, (3, 4, 4))
    tokens = View.of((3, 4, 4), (0, 1, 2), (3, 16))
    net.lif("q", net.conv("conv", Operand("input", tokens), 4, kernel=3, stride=2))
    net.lif("k", net.conv("conv2", "q", 4, kernel=3, dilation=2, padding=2))
    net.lif("gate", net.add("sum", ops.Sum((1,), True), "q"), v_threshold=0.5)
    net.add("mask", ops.Mask(invert=True), "gate", "k")
    net.add("fc", ops.Linear(), net.add("both", ops.Add(), "mask", "q"), weight=net.rng.normal(0.3, 0.5, (6, 8)))
    net.lif("lif", "fc")
    net.head("lif")
    return net.build(3)


def decoder() -> Graph:
    """Maps side by side and repeated, transposed convolutions: overlapping, with holes, grouped, in one dimension."""
    net = Net(5, (2, 3, 4))
    a, b = net.lif("a", net.conv("conv", "input", 4)), net.lif("b", net.conv("conv_b", "input", 2))
    x = net.add("cat", ops.Concat(0), a, net.add("counts", ops.Add(), b, b))
    net.lif("up", net.conv("transposed", x, 4, spread=(2, 2), tail=(1, 0), padding=1))
    net.lif("apart", net.conv("holes", "up", 4, kernel=2, groups=2, spread=(3, 1), padding=1))
    net.add("twice", ops.Concat(2), "apart", "apart")
    rows = View.of((4, 17, 16), (0, 1, 2), (4, 272))
    net.lif("line", net.conv("flat", Operand("twice", rows), 3, kernel=4, stride=3, spread=(2,), tail=(1,), padding=2))
    net.head("line")
    return net.build(2)


def counting() -> Graph:
    """Integer-valued neurons, of which strided, grouped and dilated convolutions, pools and joined maps read."""
    net = Net(7, (2, 6, 5))
    several = {"tau": None, "v_reset": None, "max_spikes": 4, "rounding": "half_even"}
    a = net.add("a", ops.Neuron(v_threshold=0.4, **several), net.conv("conv", "input", 4))  # type: ignore[arg-type]
    b = net.add("pool", ops.MaxPool((3, 3), (1, 1), (1, 1)), a)
    x = net.conv("grouped", net.add("cat", ops.Concat(0), a, b), 4, groups=2, stride=2)
    c = net.add("c", ops.Neuron(v_threshold=0.3, **several), x)  # type: ignore[arg-type]
    d = net.add("few", ops.SumPool((2, 2), (1, 1), (1, 1)), c)
    net.lif("d", net.conv("dilated", d, 3, dilation=2, padding=2))
    net.head("d")
    return net.build(3)


def drives_and_scales() -> Graph:
    """What spiking networks avoid: pools and additions of drives, scales that stay, products of drives."""
    net = Net(3, (2, 6, 6))
    a, b = net.conv("a", "input", 3), net.conv("b", "input", 3)
    x = net.add("pool", ops.SumPool((2, 2), (2, 2), (1, 1)), net.add("add", ops.Add(), a, b))
    net.add("product", ops.MatMul(), x, x)
    net.lif("lif", net.add("half", ops.Scale(0.5), "product"))
    net.add("largest", ops.MaxPool((3, 3), (2, 2), (1, 1)), "lif")
    net.add("few", ops.SumPool((2, 1), (1, 1), (1, 0)), "largest")
    net.conv("late", "few", 3)
    net.add("total", ops.Sum((1, 2), role="readout"), "late")
    net.add("readout", ops.Readout(), "total")
    net.add("output", ops.Output(), "readout")
    return net.build(2)


def read_out(weights: tuple[float, ...]) -> Graph:
    """A readout of its own weights, behind a sum over positions."""
    net = Net(6, (2, 4, 4))
    net.add("sum", ops.Sum((1, 2), role="readout"), net.lif("a", net.conv("conv", "input", 4)))
    net.add("out", ops.Output(), net.add("readout", ops.Readout(weights), "sum"))
    return net.build(3)


CASES: dict[str, tuple[Callable[[], Graph], tuple[int, ...]]] = {
    "transformer": (lambda: small_transformer(0), (3, 9, 7)),
    "folded transformer": (lambda: qd.fold(small_transformer(2)), (3, 9, 7)),
    "8-bit transformer": (lambda: qd.quantize(small_transformer(1), 8), (3, 9, 7)),
    "2-bit transformer": (lambda: qd.quantize(small_transformer(3), 2), (3, 9, 7)),
    "odd sizes": (odd_sizes, (2, 5, 7)),
    "odd sizes, 8 bits": (lambda: qd.quantize(sparse_weights(odd_sizes(), 0), 8), (2, 5, 7)),
    "one-dimensional": (lambda: sparse_weights(one_dimensional(), 1), (3, 4, 4)),
    "one-dimensional, 4 bits": (lambda: qd.quantize(one_dimensional(), 4), (3, 4, 4)),
    "last step": (lambda: read_out((0.0, 0.0, 1.0)), (2, 4, 4)),
    "weighted steps": (lambda: qd.quantize(read_out((0.2, -0.5, 0.0)), 8), (2, 4, 4)),
    "decoder": (lambda: sparse_weights(decoder(), 2), (2, 3, 4)),
    "decoder, 6 bits": (lambda: qd.quantize(decoder(), 6), (2, 3, 4)),
    "counting": (lambda: sparse_weights(counting(), 3), (2, 6, 5)),
    "counting, 8 bits": (lambda: qd.quantize(counting(), 8), (2, 6, 5)),
    "drives": (drives_and_scales, (2, 6, 6)),
    "signed": (lambda: signed_network(3), (2, 3, 3)),
    "signed, 8 bits": (lambda: qd.quantize(signed_network(4), 8), (2, 3, 3)),
}


@pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES)
def test_counts_equal_a_count_tap_by_tap(make: Callable[[], Graph], shape: tuple[int, ...]) -> None:
    check_ledger(make(), random_pixels(0, shape, 3))


def test_counts_of_event_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 4, (2, 4, 3, 9, 7))
    frames[0] = 0
    ledger = check_ledger(qd.quantize(small_transformer(6, frames=True), 8), frames)
    first = ledger["embed_conv"]
    assert first.total("mac") == 0
    assert first.counts["ac_unary"][0] == 0
    assert first.counts["ac_unary"][1] > first.counts["ac_graded"][1] > 0


def test_every_class_is_covered() -> None:
    """The cases above make every class of the ledger count something."""
    seen: dict[str, int] = dict.fromkeys(COUNT_CLASSES, 0)
    for make, shape in CASES.values():
        graph = make()
        ledger = qd.simulate(graph, random_pixels(0, shape, 3), engine="reference").ledger
        for name in seen:
            seen[name] += ledger.total(name)
    assert [name for name, total in seen.items() if not total] == []


@pytest.fixture(scope="module")
def pair() -> tuple[Graph, np.ndarray]:
    return qd.quantize(small_transformer(1), 8), random_pixels(3, (3, 9, 7), 5)


def ledger_of(graph: Graph, images: np.ndarray, **options) -> Ledger:
    return qd.simulate(graph, images, engine="reference", **options).ledger


def test_parts_joined_are_the_whole(pair: tuple[Graph, np.ndarray]) -> None:
    graph, images = pair
    whole = ledger_of(graph, images).to_dict()
    parts = [ledger_of(graph, images[i:j]) for i, j in ((0, 1), (1, 4), (4, 5))]
    assert concatenate(parts).to_dict() == whole
    assert ledger_of(graph, images, batch=2).to_dict() == whole


def test_the_order_of_images_is_only_an_order(pair: tuple[Graph, np.ndarray]) -> None:
    graph, images = pair
    order = np.array([3, 0, 4, 1, 2])
    straight, shuffled = ledger_of(graph, images), ledger_of(graph, images[order])
    for a, b in zip(straight, shuffled, strict=True):
        for name in a.counts:
            assert np.array_equal(a.counts[name][order], b.counts[name])
        assert a.spikes_per_step is None or np.array_equal(a.spikes_per_step[:, order], b.spikes_per_step)


def test_rows_add_up_to_the_total(pair: tuple[Graph, np.ndarray]) -> None:
    ledger = ledger_of(*pair)
    for name in COUNT_CLASSES:
        assert ledger.total(name) == sum(int(v) for layer in ledger for v in layer.counts.get(name, []))


def test_json_round_trip(pair: tuple[Graph, np.ndarray]) -> None:
    ledger = ledger_of(*pair)
    again = Ledger.from_dict(json.loads(json.dumps(ledger.to_dict())))
    assert again.to_dict() == ledger.to_dict()
    assert again["embed_conv"].input_kinds == ("real",)
    assert all(v.dtype == np.int64 for layer in again for v in layer.counts.values())


def test_large_counts_keep_every_digit(pair: tuple[Graph, np.ndarray]) -> None:
    """Beyond 2**53 (where floats lose units) and, in total, beyond 2**63."""
    ledger = ledger_of(*pair)
    first = ledger.layers[0]
    huge = replace(first, counts={"mac": np.array([2**53 + 1, 2**62 + 3, 2**62 + 5], np.int64)})
    large = replace(ledger, layers=(huge, huge, huge))
    again = Ledger.from_dict(json.loads(json.dumps(large.to_dict())))
    assert again.total("mac") == 3 * (2**53 + 1 + 2**63 + 8)
    assert huge.total("mac") == 2**53 + 2**63 + 9


#: Field of a layer's connections -> what it cannot be.
WRONG_CONNECTIONS = (
    ("inputs", 0), ("outputs", -1), ("groups", "many"), ("kernel", [3]), ("kernel", 3),
    ("stride", [0, 1]), ("stride", None),
)  # fmt: skip


def test_what_is_not_a_ledger(pair: tuple[Graph, np.ndarray]) -> None:
    data = ledger_of(*pair).to_dict()
    with pytest.raises(InputError, match="ledger schema 99, this version reads 3"):
        Ledger.from_dict({**data, "schema_version": 99})
    with pytest.raises(InputError, match="not a ledger: 'images' is missing"):
        Ledger.from_dict({k: v for k, v in data.items() if k != "images"})
    broken = dict(data["layers"][0])
    del broken["dense_macs"]
    with pytest.raises(InputError, match="not a ledger layer"):
        Ledger.from_dict({**data, "layers": [broken]})
    with pytest.raises(InputError, match="not a ledger layer"):
        Ledger.from_dict({**data, "layers": [{**data["layers"][0], "counts": {"mac": [2**64]}}]})
    first = data["layers"][0]
    wrong = [{**first["connections"], key: value} for key, value in WRONG_CONNECTIONS]
    for fields in (*({"connections": c} for c in wrong), {"connections": 3}, {"leaky": 1}, {"leaky": None}):
        with pytest.raises(InputError, match="not a ledger layer"):
            Ledger.from_dict({**data, "layers": [{**first, **fields}]})
    with pytest.raises(InputError, match="no ledger to concatenate"):
        concatenate([])
    with pytest.raises(InputError, match="belong to different graphs"):
        concatenate([ledger_of(*pair), ledger_of(odd_sizes(), random_pixels(0, (2, 5, 7)))])
    with pytest.raises(InputError, match="nowhere: no such layer in the ledger"):
        ledger_of(*pair)["nowhere"]
    with pytest.raises(InputError, match="no count class 'flops'"):
        ledger_of(*pair)["embed_conv"].total("flops")


def test_static_description(pair: tuple[Graph, np.ndarray]) -> None:
    graph, images = pair
    ledger = ledger_of(graph, images)
    conv = ledger["pool_conv"]
    assert (conv.op, conv.input_kinds, conv.output_kind, conv.timing) == ("conv", ("spike",), "drive", "step")
    assert (conv.weight_bits, conv.parameters, conv.membrane_bits) == (8, 8 * 8 * 9 + 8, 0)
    assert conv.accumulator_bits == signed_bits(*graph.widths["pool_conv"].partial)
    neuron = ledger["pool_lif"]
    assert neuron.membrane_bits == signed_bits(*(graph.widths["pool_lif"].membrane or (0, 0)))
    assert (neuron.weight_bits, neuron.dense_macs) == (0, 0)
    assert ledger_of(small_transformer(1), images)["pool_conv"].weight_bits == 32
    assert (ledger.images, ledger.time_steps, ledger.arithmetic, ledger.input_encoding) == (5, 4, "integer", "direct")
