"""Interval rules against Python integers, which cannot wrap: no value leaves a range; where said, one reaches it.

Each element of the arrays is a case of its own, with extremes up to the limit of the proofs. About 2,000 cases
run with the tests; ``QKF_INTERVALS=1000000`` tries that many in all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from netbuild import drive_type

import qkf_deploy as qd
from qkf_deploy.errors import GraphError, ProofError, QkfError
from qkf_deploy.ir import GraphBuilder, Interval, Operator
from qkf_deploy.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Input,
    IntegerNeuron,
    Linear,
    Mask,
    MatMul,
    MaxPool,
    Neuron,
    Output,
    Readout,
    Scale,
    Shift,
    Sum,
    SumPool,
)

ROOT = Path(__file__).parents[2]
_ALL = int(os.environ.get("QKF_INTERVALS", "0"))
_CASES = 100  # per round
Rng = np.random.Generator
#: One round of a rule: number of cases, after checking them all.
Rule = Callable[[Rng, int], int]


def numbers(rng: Rng, shape: tuple[int, ...], bits: int) -> np.ndarray:
    """Python integers below 2^bits: powers of two and their neighbours, zero, small and random ones."""
    exponents = rng.integers(0, bits, shape)
    near = rng.integers(-1, 2, shape)
    kind = rng.integers(0, 4, shape)
    out = np.empty(shape, object)
    for place in np.ndindex(*shape):
        top = 1 << int(exponents[place])
        value = (0, int(near[place]), top + int(near[place]), int(rng.integers(0, top)))[kind[place]]
        out[place] = min(abs(value), (1 << bits) - 1) * (-1 if rng.random() < 0.5 else 1)
    return out


def ranges(rng: Rng, shape: tuple[int, ...], bits: int) -> Interval:
    a, b = numbers(rng, shape, bits), numbers(rng, shape, bits)
    return Interval(np.minimum(a, b), np.maximum(a, b))


def inside(rng: Rng, x: Interval, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Values of a range: all low, all high, and ends and middles mixed."""
    low, high = (np.broadcast_to(v.astype(object), shape) for v in (x.low, x.high))
    mixed = []
    for _ in range(3):
        part = rng.integers(0, 5, shape)
        middle = low + (high - low) * rng.integers(0, 2**20, shape).astype(object) // 2**20
        mixed.append(np.where(part < 2, low, np.where(part < 4, high, middle)))
    return [low, high, *mixed]


def within(value: np.ndarray, x: Interval) -> None:
    low, high = x.low.astype(object), x.high.astype(object)
    assert (low <= value).all()
    assert (value <= high).all()


def reaches(value: np.ndarray, end: np.ndarray) -> None:
    assert (value == np.broadcast_to(end.astype(object), value.shape)).all()


def add(rng: Rng, n: int) -> int:
    a, b = (ranges(rng, (n,), int(rng.integers(1, 61))) for _ in range(2))
    found = Add().interval([a, b], {}, [drive_type((n,))] * 2, 1)
    for x, y in zip(inside(rng, a, (n,)), inside(rng, b, (n,)), strict=True):
        within(x + y, found)
    reaches(a.low.astype(object) + b.low.astype(object), found.low)
    reaches(a.high.astype(object) + b.high.astype(object), found.high)
    return n


def concat(rng: Rng, n: int) -> int:
    k, shapes = int(rng.integers(1, 5)), []
    parts = [ranges(rng, (n, 1), int(rng.integers(1, 62))), ranges(rng, (n, k), int(rng.integers(1, 62)))]
    shapes = [(n, int(rng.integers(1, 4))), (n, k)]
    found = Concat(1).interval(parts, {}, [drive_type(s) for s in shapes], 1)
    for values in zip(*(inside(rng, x, x.low.shape) for x in parts), strict=True):
        within(np.concatenate([np.broadcast_to(v, s) for v, s in zip(values, shapes, strict=True)], axis=1), found)
    for ends, end in ((found.low, "low"), (found.high, "high")):
        reaches(getattr(parts[0], end), ends[:, :1])
        reaches(getattr(parts[1], end), ends[:, -k:])
    return n


def mask(rng: Rng, n: int) -> int:
    gate = Interval(np.zeros(n, np.int64), np.ones(n, np.int64))
    x = ranges(rng, (n,), int(rng.integers(1, 62)))
    found = Mask().interval([gate, x], {}, [drive_type((n,))] * 2, 1)
    for value in inside(rng, x, (n,)):
        for opened in (0, 1):
            within(value * opened, found)
    reaches(np.minimum(x.low.astype(object), 0), found.low)  # the gate is shut, or open at the end
    reaches(np.maximum(x.high.astype(object), 0), found.high)
    return n


def shift(rng: Rng, n: int) -> int:
    x = ranges(rng, (n,), int(rng.integers(1, 60)))
    bits = rng.integers(0, 33, n)
    op = Shift(tuple(bits.tolist()), 0)

    def exact(value: np.ndarray) -> np.ndarray:
        return np.array([(int(v) + ((1 << int(k)) >> 1)) >> int(k) for v, k in zip(value, bits, strict=True)], object)

    found = op.interval([x], {}, [drive_type((n,))], 1)
    for value in inside(rng, x, (n,)):
        within(exact(value), found)
    reaches(exact(x.low), found.low)
    reaches(exact(x.high), found.high)
    return n


def readout(rng: Rng, n: int) -> int:
    steps = int(rng.integers(1, 17))
    x = ranges(rng, (n,), int(rng.integers(1, 57)))
    found = Readout().interval([x], {}, [drive_type((n,))], steps)
    within(sum(inside(rng, x, (n,))[int(rng.integers(5))] for _ in range(steps)), found)
    reaches(x.low.astype(object) * steps, found.low)
    reaches(x.high.astype(object) * steps, found.high)
    weights = rng.integers(-9, 10, steps)
    found = Readout(tuple(map(float, weights))).interval([x], {}, [drive_type((n,))], steps)
    values = [inside(rng, x, (n,))[int(rng.integers(5))] for _ in range(steps)]
    within(sum(int(w) * v for w, v in zip(weights, values, strict=True)), found)
    reaches(sum(int(w) * (x.low if w > 0 else x.high).astype(object) for w in weights), found.low)
    return n


def sums(rng: Rng, n: int) -> int:
    k = int(rng.integers(1, 9))
    x = ranges(rng, (n, k), int(rng.integers(1, 58)))
    found = Sum((1,)).interval([x], {}, [drive_type((n, k))], 1)
    for value in inside(rng, x, (n, k)):
        within(value.sum(axis=1), _flat(found, n))
    reaches(x.low.astype(object).sum(axis=1), _flat(found, n).low)
    reaches(x.high.astype(object).sum(axis=1), _flat(found, n).high)
    return n


def _flat(x: Interval, n: int) -> Interval:
    return Interval(x.low.reshape(n), x.high.reshape(n))


def pools(rng: Rng, n: int) -> int:
    """Windows of 2 x 2 over one range per channel. A window that hangs over the border reads zeros in a sum."""
    x = ranges(rng, (n, 1, 1), int(rng.integers(1, 58)))
    shape = (n, 2, 2)
    types = [drive_type(shape)]
    largest = MaxPool((2, 2), (2, 2), (0, 0)).interval([x], {}, types, 1)
    total = SumPool((2, 2), (2, 2), (0, 0)).interval([x], {}, types, 1)
    for value in inside(rng, x, shape):
        within(value.max(axis=(1, 2), keepdims=True), largest)
        within(value.sum(axis=(1, 2), keepdims=True), total)
    reaches(x.low.astype(object), largest.low)
    reaches(x.high.astype(object), largest.high)
    reaches(x.low.astype(object) * 4, total.low)
    reaches(x.high.astype(object) * 4, total.high)
    padded = SumPool((2, 2), (2, 2), (1, 1)).interval([x], {}, types, 1)
    for value in inside(rng, x, shape):  # one element each, the others are padding
        within(value, Interval(np.broadcast_to(padded.low, shape), np.broadcast_to(padded.high, shape)))
    return n


def synapses(rng: Rng, n: int) -> int:
    """Linear and 1 x 1 convolutions: every output is a case; partial sums in every prefix of a random order."""
    k = int(rng.integers(1, 7))
    weight = numbers(rng, (n, k), 31).astype(np.int64)
    bias = numbers(rng, (n,), 50).astype(np.int64)
    x = ranges(rng, (k,), int(rng.integers(1, 25)))
    params = {"weight": weight, "bias": bias}
    op, types = Linear(weight_bits=32), [drive_type((k,))]
    found, partial = op.interval([x], params, types, 1), op.partial_interval([x], params, types)
    kernel = {"weight": weight[:, :, None, None], "bias": bias}
    conv = Conv((1, 1), (0, 0), (1, 1), weight_bits=32)
    spread = Interval(x.low.reshape(k, 1, 1), x.high.reshape(k, 1, 1))
    same = conv.interval([spread], kernel, [drive_type((k, 1, 1))], 1)
    reaches(found.low.astype(object).reshape(-1), same.low.reshape(-1))
    reaches(found.high.astype(object).reshape(-1), same.high.reshape(-1))
    exact = weight.astype(object)
    for value in inside(rng, x, (k,)):
        within((exact * value).sum(axis=1) + bias.astype(object), _flat(found, n))
        terms = np.concatenate([exact * value, bias.astype(object)[:, None]], axis=1)
        running = np.cumsum(terms[:, rng.permutation(k + 1)], axis=1)
        within(running.min(axis=1), _flat(partial, n))
        within(running.max(axis=1), _flat(partial, n))
    low, high = x.low.astype(object), x.high.astype(object)
    reaches(np.where(exact > 0, exact * high, exact * low).sum(axis=1) + bias.astype(object), _flat(found, n).high)
    reaches(np.where(exact > 0, exact * low, exact * high).sum(axis=1) + bias.astype(object), _flat(found, n).low)
    return n


def products(rng: Rng, n: int) -> int:
    """One range for each whole operand: tight where every row can be at the same corner."""
    for _ in range(n):
        k = int(rng.integers(1, 6))
        a, b = (ranges(rng, (1, 1), int(rng.integers(1, 29))) for _ in range(2))
        found = MatMul().interval([a, b], {}, [drive_type((1, k)), drive_type((k, 1))], 1)
        corners = [x.item() * y.item() * k for x in (a.low, a.high) for y in (b.low, b.high)]
        assert (int(found.low.min()), int(found.high.max())) == (min(corners), max(corners))
        for x, y in zip(inside(rng, a, (1, k)), inside(rng, b, (k, 1)), strict=True):
            within(x @ y, found)
    return n


def fire(op: IntegerNeuron, membrane: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Spikes of Python integers; a membrane of n + 1/2 thresholds is rounded by doubling."""
    if not op.graded:
        return (membrane - theta >= op.strict).astype(object)
    fired = membrane // theta
    if op.rounding != "floor":
        twice = 2 * membrane + theta
        tie = (twice % (2 * theta) == 0) & (op.rounding == "half_even")
        fired = twice // (2 * theta)
        fired = fired - (tie & (fired % 2 == 1))
    return np.minimum(np.maximum(fired, 0), op.max_spikes)


def neurons(rng: Rng, n: int) -> int:
    """The scalar recurrence in Python integers, drives at their ends and between, all forms of reset and carry."""
    steps, several = int(rng.integers(1, 7)), rng.random() < 0.3
    k = int(rng.integers(0, 9))
    op = IntegerNeuron(
        int(rng.integers(0, 2**k + 1)), k, soft_reset=bool(rng.random() < 0.5), fraction_bits=int(rng.integers(0, 6)),
        max_spikes=int(rng.integers(2, 6)) if several else 1,
        rounding=("floor", "half_up", "half_even")[int(rng.integers(3))],  # type: ignore[arg-type]
    )  # fmt: skip
    several = op.graded
    op = op if several else replace(op, strict=bool(rng.random() < 0.5))
    bits = int(rng.integers(1, 40))
    x = ranges(rng, (n,), bits)
    theta = numbers(rng, (n,), bits).astype(np.int64)
    params = {"theta": np.maximum(np.abs(theta), 1) if several else theta}
    if rng.random() < 0.4:
        params["initial"] = numbers(rng, (n,), bits).astype(np.int64)
    if rng.random() < 0.4:
        params["lowest"] = -np.abs(numbers(rng, (n,), bits).astype(np.int64))
    elif op.soft_reset and not several:
        op = replace(op, reset_delay=bool(rng.random() < 0.5))
    found = op.membrane_interval([x], params, steps)
    emitted = op.interval([x], params, [drive_type((n,))], steps)
    theta = params["theta"].astype(object)
    for attempt in range(4):
        state = params["initial"].astype(object) if "initial" in params else np.zeros(n, object)
        for _ in range(steps):
            drive = inside(rng, x, (n,))[attempt]
            charged = ((state * op.decay_multiplier) >> op.decay_shift) + drive * 2**op.fraction_bits
            if op.reset_delay:
                charged = charged - fire(op, state, theta) * theta
            within(charged, found)
            fired = fire(op, charged, theta)
            within(fired, emitted)
            if op.reset_delay:
                state = charged
                continue
            state = np.where(fired > 0, charged - fired * theta if op.soft_reset else 0, charged)
            if "lowest" in params:
                state = np.maximum(state, params["lowest"].astype(object))
    return n


RULES: dict[str, Rule] = {
    "add": add, "concat": concat, "mask": mask, "shift": shift, "readout": readout, "sum": sums, "pools": pools,
    "synapses": synapses, "products": products, "neurons": neurons,
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    rng = np.random.default_rng(sum(map(ord, name)))
    wanted, done, refused = max(2_000 // len(RULES), _ALL // len(RULES)), 0, 0
    while done < wanted:
        try:
            done += RULES[name](rng, _CASES)
        except ProofError:
            refused += 1
            assert refused < 20 + wanted // _CASES


def test_inputs() -> None:
    """The ranges are those of what engines take; they refuse anything else."""
    forms = {
        Input((1, 2, 2), "frames", high=3): (0, 3),
        Input((1, 2, 2), "bytes"): (0, 255),
        Input((1, 2, 2), "fixed", bits=6): (-31, 31),
    }
    for op, (low, high) in forms.items():
        found = op.interval([], {}, [], 1)
        assert (found.low.min(), found.high.max()) == (low, high)
        build = GraphBuilder()
        build.add("input", op)
        build.add("output", Output(), ["input"])
        encoding = "frames" if op.format == "frames" else "direct"
        graph = build.build(time_steps=1, input_encoding=encoding, arithmetic="integer")
        for value in (low - 1, high + 1):
            with pytest.raises(QkfError):
                qd.simulate(graph, np.full((1, *([1] if encoding == "frames" else []), 1, 2, 2), value, np.int64))


def test_outputs() -> None:
    x = Interval(np.array([-3, 4]), np.array([5, 4]))
    assert Output().interval([x], {}, [], 1) is x


def concrete(base: type[Operator]) -> Iterator[type[Operator]]:
    for each in base.__subclasses__():
        yield from concrete(each)
        if "interval" in vars(each) and each.__module__.startswith("qkf_deploy"):
            yield each


def test_the_table_of_rules_is_complete() -> None:
    """Every operator is in the table, with tests that exist, or is named as one without a rule."""
    text = (ROOT / "docs" / "integer-semantics.md").read_text()
    table = text[text.index("| operator | rule |") : text.index("`batch_norm`, `scale`")].splitlines()[2:]
    listed = [kind for row in table if row for kind in re.findall(r"`(\w+)`", row.split("|")[1])]
    without = {"batch_norm", "scale", "neuron"}
    assert sorted(listed) == sorted({op.kind for op in concrete(Operator)} - without)
    for op in (BatchNorm(1e-5), Scale(0.5), Neuron(None, 1.0, None)):
        with pytest.raises(GraphError):
            op.interval([], {}, [], 1)
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {name}(" in (ROOT / file).read_text(), (file, name)
