"""Kernels against plain numpy arithmetic, on every instruction set that can run here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from event_cases import ISAS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qkf_deploy.ir import Graph, GraphBuilder
from qkf_deploy.ops import Conv, Input, IntegerNeuron, Output
from qkf_deploy.passes.widths import attach
from qkf_deploy.simulators.event import layers as event_layers
from qkf_deploy.simulators.event import proofs
from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.kernels.lists import EventList
from qkf_deploy.simulators.event.kernels.streams import add_streams, class_counts, column_sums, expand
from qkf_deploy.simulators.event.layers import SynapseLayer
from qkf_deploy.simulators.event.neurons import NeuronForm, fire_drive
from qkf_deploy.simulators.event.values import Drive, Stream, to_plain, to_rows, to_stream

pytestmark = pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name.replace(" ", "-"))
_STRIP_SETTINGS = ("_STRIP_EVENTS", "_ROW_BYTES", "_LINE_EVENTS")
_SETTINGS = dict(deadline=None, suppress_health_check=list(HealthCheck))


def whole(n: int, task: Callable[[int, int], Any], least: int = 1) -> list[Any]:
    return [task(0, n)]


def in_parts(n: int, task: Callable[[int, int], Any], least: int = 1) -> list[Any]:
    cut = (2 * n) // 3
    return [task(cut, n), task(0, cut)]


def synapse(rng: np.random.Generator, case: dict[str, Any], weight: np.ndarray) -> Graph:
    """Input frames, one convolution, one neuron."""
    b = GraphBuilder()
    b.add("input", Input(case["shape"], "frames", high=case["high"]))
    op = Conv(case["stride"], case["padding"], case["dilation"], 1, 8)
    bias = rng.integers(-100, 100, weight.shape[0])
    b.add("conv", op, ["input"], {"weight": weight, "bias": bias})
    theta = rng.integers(-50, 4000, (weight.shape[0], 1, 1))
    b.add("lif", IntegerNeuron(*case["decay"], 0, case["soft"]), ["conv"], {"theta": theta})
    b.add("output", Output(), ["lif"])
    return attach(b.build(time_steps=case["steps"], input_encoding="frames", arithmetic="integer"))


@st.composite
def layers(draw: Any) -> dict[str, Any]:
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return {
        "seed": draw(st.integers(0, 2**32 - 1)),
        "steps": draw(st.integers(1, 9)),
        "shape": (draw(st.sampled_from([1, 3, 31, 32, 65])), draw(st.integers(3, 7)), draw(st.integers(3, 7))),
        "out": draw(st.sampled_from([1, 32, 33, 96, 128, 192, 250])),
        "kernel": kernel,
        "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": tuple(draw(st.integers(0, k)) for k in kernel),
        "dilation": draw(st.sampled_from([(1, 1), (1, 1), (2, 1)])) if kernel[0] < 3 else (1, 1),
        "high": draw(st.sampled_from([1, 2, 7, 129, 255])),
        "density": draw(st.sampled_from([0.0, 0.1, 0.6, 1.0])),
        "soft": draw(st.booleans()),
        "strips": draw(st.sampled_from([None, None, (64, (0.01, 0.01), 0, 0), (4096, (2, 2), 0, 0)])),
        "weights": draw(st.sampled_from(["uniform", "top", "bottom", "lowest", "small"])),
        "decay": draw(st.sampled_from([(1, 1), (1, 1), (1, 0), (15, 4), (1, 4)])),
    }


def _weights(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    same = {"top": 127, "bottom": -127, "lowest": -128}
    if kind in same:
        return np.full(shape, same[kind], np.int8)
    reach = 3 if kind == "small" else 127
    return rng.integers(-reach, reach + 1, shape).astype(np.int8)


@given(case=layers())
@settings(max_examples=40, **_SETTINGS)
def test_synapses(isa: Isa, case: dict[str, Any]) -> None:
    """Gathering, byte products and word products give the operator's drives, spikes and driven neurons."""
    rng = np.random.default_rng(case["seed"])
    shape, steps = case["shape"], case["steps"]
    weight = _weights(rng, case["weights"], (case["out"], shape[0], *case["kernel"]))
    graph = synapse(rng, case, weight)
    active = rng.random((steps, 1, *shape)) < case["density"]
    x = np.where(active, rng.integers(1, case["high"] + 1, active.shape), 0).astype(np.int64)
    conv, lif = graph["conv"], graph["lif"]
    drive = conv.op.run([x], conv.params, steps)
    spikes = lif.op.run([drive], lif.params, steps)
    stream = to_stream(x, shape[0], case["high"], steps)
    form = NeuronForm.of(lif, case["out"])
    if case["strips"]:
        isa = replace(isa, strip_bytes=case["strips"][0])
    unfused = SynapseLayer(graph, conv, None, None, isa)
    fused = SynapseLayer(graph, conv, None, form, isa)
    with pytest.MonkeyPatch.context() as patch:
        if case["strips"]:
            for name, value in zip(_STRIP_SETTINGS, case["strips"][1:], strict=True):
                patch.setattr(event_layers, name, value)
        check_kernels(case, unfused, fused, stream, drive, spikes)


def check_kernels(
    case: dict[str, Any], unfused: SynapseLayer, fused: SynapseLayer, stream: Stream, drive: np.ndarray,
    spikes: np.ndarray,
) -> None:  # fmt: skip
    """Every exact kernel gives these drives and spikes."""
    for kernel in exact_kernels(fused, stream):
        out, done = unfused.run(stream, whole, kernel)
        assert isinstance(out, Drive)
        rows = out.data[:, : case["out"]].reshape(out.tokens, case["steps"], -1).transpose(1, 2, 0)
        assert np.array_equal(rows.reshape(drive.shape), drive), kernel
        for ranges in (whole, in_parts):
            result, done = fused.run(stream, ranges, kernel)
            assert isinstance(result, Stream)
            assert np.array_equal(to_plain(result, drive.shape[2:]), spikes), kernel
            assert done.driven == np.count_nonzero(drive), kernel
            assert np.array_equal(done.fired, spikes.sum(axis=tuple(range(1, spikes.ndim)))), kernel
        assert kernel != "event" or done.gathered == 0 or stream.data.any()


@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.sampled_from([1, 31, 32, 96]),
    steps=st.integers(1, 16),
    decay=st.sampled_from([(1, 0), (1, 1), (1, 4), (15, 4), (3, 2)]),
    fraction=st.sampled_from([0, 3]),
    soft=st.booleans(),
    reach=st.sampled_from([0, 40, 2**20]),
)
@settings(max_examples=40, **_SETTINGS)
def test_neurons_on_a_drive_that_never_changes(
    isa: Isa, seed: int, channels: int, steps: int, decay: tuple[int, int], fraction: int, soft: bool, reach: int
) -> None:
    """A static image's first layer hands out one drive for all steps."""
    rng = np.random.default_rng(seed)
    tokens = 7
    x = rng.integers(-reach, reach + 1, (1, 1, channels, tokens))
    theta = rng.integers(-reach // 4, reach + 2, (channels, 1))
    op = IntegerNeuron(*decay, fraction, soft)
    spikes = op.run([np.broadcast_to(x, (steps, *x.shape[1:]))], {"theta": theta}, steps)
    form = NeuronForm(np.array([*decay, fraction, soft]), theta[:, 0], False)
    drive = Drive(to_rows(x, channels, np.int32), channels, tokens, 1)
    out, driven, _ = fire_drive(isa, drive, form, steps, whole)
    assert np.array_equal(to_plain(out, x.shape[2:]), spikes)
    assert driven == steps * np.count_nonzero(x)
    assert np.array_equal(out.totals(isa.tag).unary_per_step, spikes.sum(axis=(1, 2, 3)))


def exact_kernels(layer: SynapseLayer, stream: Stream) -> list[str]:
    """All kernels that are exact for this input, the engine's own choice among them."""
    kernels = ["words"]
    if not layer.isa.saturating_pairs or proofs.dense_flush(layer.magnitude, max(stream.largest(), 1)) > 0:
        kernels.append("bytes")
    if layer.window.x.dilation == 1 and proofs.largest_sum(layer.magnitude) >= 2 * stream.largest():
        kernels.append("event")
    assert layer.kernel_for(stream) in kernels
    return kernels


@given(
    seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 5), tokens=st.integers(1, 9),
    channels=st.sampled_from([1, 31, 32, 70]),
    high=st.sampled_from([(1, 1), (1, 3), (200, 55), (100, 1)]),
)  # fmt: skip
@settings(max_examples=25, **_SETTINGS)
def test_streams(isa: Isa, seed: int, steps: int, tokens: int, channels: int, high: tuple[int, int]) -> None:
    """Adding, expanding and every way of counting."""
    rng = np.random.default_rng(seed)
    plain = [
        rng.integers(0, h + 1, (steps, 1, channels, tokens)) * (rng.random((steps, 1, channels, tokens)) < 0.5)
        for h in high
    ]
    a, b = (to_stream(x, channels, h, steps) for x, h in zip(plain, high, strict=True))
    out = np.empty((a.data.shape[0], 32 * a.words), np.uint8)
    both = add_streams(isa.tag, a.data, b.data, a.words, out)
    total = Stream(out, channels, tokens, steps)
    assert np.array_equal(to_plain(total, (channels, tokens)), plain[0] + plain[1])
    assert both == np.count_nonzero((plain[0] != 0) & (plain[1] != 0))
    for stream, x in ((a, plain[0]), (total, plain[0] + plain[1])):
        x = x[:, 0]
        found = stream.totals(isa.tag)
        assert np.array_equal(found.unary_per_step, x.sum(axis=(1, 2)))
        assert (found.unary, found.graded) == (x.sum(), np.count_nonzero(x))
        check_list(stream.events(isa.tag), x, 1)
        check_list(stream.events(isa.tag, tokens), x, tokens)
        sums = np.zeros((steps, 32 * stream.words), np.int64)
        column_sums(isa.tag, stream.data, stream.words, steps, stream.largest(), sums)
        assert np.array_equal(sums[:, :channels], x.sum(axis=2))
        assert not sums[:, channels:].any()
        classes = rng.integers(0, 3, tokens)
        by_class = [np.zeros((3, 32 * stream.words), np.int64) for _ in range(2)]
        class_counts(isa.tag, stream.data, stream.words, steps, classes, stream.largest(), *by_class)
        for k in range(3):
            part = x[:, :, classes == k]
            assert np.array_equal(by_class[1][k, :channels], np.count_nonzero(part, axis=(0, 2)))
            if stream.largest() > 1:
                assert np.array_equal(by_class[0][k, :channels], part.sum(axis=(0, 2)))
        grid = np.zeros((3 * (tokens + 2) * steps, 32 * stream.words), np.uint8)
        expand(isa.tag, stream.data, stream.words, steps, tokens, 1, 1, tokens + 2, grid)
        inner = grid.reshape(3, tokens + 2, steps, -1)
        assert np.array_equal(inner[1, 1:-1, :, :channels].transpose(1, 2, 0), x)
        assert inner.astype(np.int64).sum() == x.sum()


def check_list(listed: EventList, x: np.ndarray, line: int) -> None:
    """A list holds what is in ``x``, ``(T, C, tokens)``: one line of all tokens, or token by token."""
    steps, channels, tokens = x.shape
    order = [(t, n) for t in range(steps) for n in range(tokens)]
    if line == 1:
        order = [(t, n) for n in range(tokens) for t in range(steps)]
    for row, (t, n) in enumerate(order):
        (active,) = np.nonzero(x[t, :, n])
        events = slice(listed.ptr[row], listed.ptr[row + 1])
        padding = np.zeros(len(active) % 2, int)
        first = n * channels if line > 1 else 0
        assert np.array_equal(listed.idx[events], np.concatenate([first + active, first + padding]))
        assert np.array_equal(listed.val[events], np.concatenate([x[t, active, n], padding]))
        assert listed.sums[row + 1] - listed.sums[row] == x[t, :, n].sum()


def test_long_streams_do_not_overflow_their_byte_counters(isa: Isa) -> None:
    tokens, channels = 600, 32
    x = np.full((2, 1, channels, tokens), 255)
    stream = to_stream(x, channels, 255, 2)
    unary, _ = stream.class_counts(isa.tag, np.zeros(tokens, np.int64), 1, "all")
    assert np.array_equal(unary, np.full(channels, 2 * tokens * 255))
    assert (stream.column_sums(isa.tag) == tokens * 255).all()
