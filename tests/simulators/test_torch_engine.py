"""The torch engine's own promises: what it does with doubtful sums, with devices that round, and with torch itself."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from netbuild import random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.errors import MissingComponent, UnsupportedError, UsageError
from qkf_deploy.ir import Graph, GraphBuilder
from qkf_deploy.ops import Add, Conv, Input, IntegerNeuron, Linear, MaxPool, Neuron, Output, Readout, Sum
from qkf_deploy.ops.remember import Remembered
from qkf_deploy.passes.widths import attach
from qkf_deploy.simulators import engines, reference
from qkf_deploy.simulators import torch as torch_engine
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record
from qkf_deploy.simulators.torch import carriers, devices, doubts, products, selfcheck


def assert_same(graph: Graph, x: np.ndarray, **options: Any) -> None:
    """Every event and count is the reference's."""
    record = Record.of(graph, "events")
    expected, got = reference.run(graph, x, record), torch_engine.run(graph, x, record, **options)
    for name, value in expected.values.items():
        np.testing.assert_array_equal(got.values[name], value, err_msg=name)
    assert got.ledger == expected.ledger


# -- ties ------------------------------------------------------------------------------------------------------------


def tied(threshold: float, tau: float | None, *, pool: bool = False, shortcut: bool = False, most: int = 1) -> Graph:
    """Tenths as weights: their sums meet a threshold of tenths, or zero, in one order of summation only."""
    rng = np.random.default_rng(3)
    b = GraphBuilder()
    b.add("input", Input((12, 6, 6), "frames", high=3))
    weight = rng.integers(-3, 4, (5, 12, 3, 3)) / 10
    drive = b.add("conv", Conv((1, 1), (1, 1), (1, 1)), ["input"], {"weight": weight})
    if shortcut:
        weight = rng.integers(-3, 4, (5, 12, 1, 1)) / 10
        side = b.add("side", Conv((1, 1), (0, 0), (1, 1)), ["input"], {"weight": weight})
        drive = b.add("sum of drives", Add(), [drive, side])
    if pool:
        drive = b.add("pool", MaxPool((2, 2), (2, 2), (0, 0)), [drive])
    neuron = Neuron(tau, threshold, None if most > 1 else 0.0, decay_input=False, max_spikes=most)
    x = b.add("lif", neuron, [drive])
    weight = rng.integers(-3, 4, (4, 5, 3, 3)) / 10
    drive = b.add("conv2", Conv((1, 1), (1, 1), (1, 1)), [x], {"weight": weight})
    x = b.add("lif2", neuron, [drive])
    b.add("tokens", Sum((1, 2), role="readout"), [x])
    b.add("readout", Readout(), ["tokens"])
    b.add("head", Linear(), ["readout"], {"weight": rng.normal(size=(3, 4))})
    b.add("output", Output(), ["head"])
    return b.build(time_steps=4, input_encoding="frames")


@pytest.mark.parametrize(
    ("threshold", "tau", "fields"),
    [
        (0.6, None, {}),
        (0.6, 2.0, {}),
        (0.3, 2.0, {"pool": True}),
        (0.6, 2.0, {"shortcut": True}),
        (0.3, None, {"most": 3}),
    ],
)
def test_ties_are_decided_as_the_reference_does(
    threshold: float, tau: float | None, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tied(threshold, tau, **fields)
    x = np.random.default_rng(0).integers(0, 4, (4, 20, 12, 6, 6)) * np.random.default_rng(1).integers(0, 2, (12, 1, 1))
    decided = []
    patched = doubts._patched
    monkeypatch.setattr(doubts, "_patched", lambda *a: decided.append(len(a[1])) or patched(*a))
    assert_same(graph, x.astype(np.float64))
    assert decided, "without a tie this shows nothing"


def test_without_the_judge_ties_fall_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the test before: sums in another order do decide ties in another way."""
    monkeypatch.setattr(doubts.Judge, "settle", lambda self, node, drive, fired, values, keep: (drive, fired))
    graph = tied(0.6, None)
    x = np.random.default_rng(0).integers(0, 4, (4, 20, 12, 6, 6)).astype(np.float64)
    record = Record.of(graph, "events")
    expected, got = reference.run(graph, x, record), torch_engine.run(graph, x, record)
    assert not np.array_equal(got.values["lif"], expected.values["lif"]) or got.ledger != expected.ledger


def test_sums_on_a_grid_have_no_ties_to_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = tied(0.5, 2.0)
    nodes = {n.name: replace(n, params={k: np.rint(v * 8) / 8 for k, v in n.params.items()}) for n in graph}
    graph = replace(graph, nodes=nodes).verify()
    monkeypatch.setattr(doubts, "_patched", None)
    assert_same(graph, np.random.default_rng(0).integers(0, 4, (4, 3, 12, 6, 6)).astype(np.float64))


# -- exact numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "high"), [(2**23 - 1, 1), (2**23, 255), (2**31 - 1, 2**20), (2**31 - 1, 2**24)])
def test_numbers_hold_the_largest_sums(weight: int, high: int) -> None:
    """Sums of 28, 36, 56 and 60 bits, odd so that no narrower number holds them."""
    rng = np.random.default_rng(weight % 97)
    b = GraphBuilder()
    b.add("input", Input((3, 5, 5), "frames", high=high))
    arrays = {"weight": rng.choice([-weight, weight - 2], (4, 3, 3, 3)), "bias": rng.integers(-9, 9, 4)}
    b.add("conv", Conv((1, 1), (1, 1), (1, 1), weight_bits=32), ["input"], arrays)
    b.add("lif", IntegerNeuron(1, 1, soft_reset=True), ["conv"], {"theta": np.full((4, 1, 1), weight * high // 3 + 1)})
    b.add("output", Output(), ["lif"])
    graph = attach(b.build(time_steps=2, input_encoding="frames", arithmetic="integer"))
    x = np.where(rng.random((2, 2, 3, 5, 5)) < 0.5, high, high - 1)
    record = Record.of(graph, "all", "all")
    expected, got = reference.run(graph, x, record), torch_engine.run(graph, x, record)
    assert max(np.abs(v).max() for v in expected.values.values()) >= weight * (high - 1)
    for name in ("conv", "lif"):
        np.testing.assert_array_equal(got.values[name], expected.values[name])
    np.testing.assert_array_equal(got.membranes["lif"], expected.membranes["lif"])
    assert got.ledger == expected.ledger


def test_products_beyond_53_bits() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(-(2**31), 2**31, (7, 30))
    b = rng.integers(-(2**26), 2**26, (30, 5))
    got = products.matmul(torch.from_numpy(a), torch.from_numpy(b), carriers.INT64)
    np.testing.assert_array_equal(got.numpy(), a @ b)


def test_the_narrowest_carrier_that_holds() -> None:
    device = devices.Device(torch.device("cpu"), (carriers.TF32, carriers.FLOAT32, carriers.FLOAT64, carriers.INT64))
    asked = [(127, 2**24 - 1), (2**11, 2**20), (2**24, 2**24), (1, 2**53)]
    names = [device.carrier(operands, sums).name for operands, sums in asked]
    assert names == ["TF32", "float32", "float64", "int64"]


def rounding(bits: int) -> Any:
    """A product whose operands keep that many significant bits, as reduced-precision units have them."""

    def keep(x: torch.Tensor) -> torch.Tensor:
        mantissa, exponent = torch.frexp(x)
        return torch.ldexp(torch.round(mantissa * 2**bits), exponent - bits)

    def matmul(a: torch.Tensor, b: torch.Tensor, carrier: carriers.Carrier) -> torch.Tensor:
        if not a.dtype.is_floating_point:
            return a @ b
        return keep(a.to(carrier.dtype)) @ keep(b.to(carrier.dtype))

    return matmul


@pytest.mark.parametrize(("bits", "passing"), [(8, ()), (11, ("TF32",)), (24, ("TF32", "float32"))])
def test_a_device_that_rounds_is_found(bits: int, passing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(products, "matmul", rounding(bits))
    known = (carriers.TF32, carriers.FLOAT32, carriers.FLOAT64)
    assert tuple(c.name for c in known if selfcheck.exact(cpu, c)) == passing
    devices.open_device.cache_clear()
    with pytest.raises(UnsupportedError, match="products on cpu are not exact"):
        devices.open_device("cpu")
    devices.open_device.cache_clear()


def test_a_convolution_that_rounds_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Winograd transforms leave the integers; so does a kernel in bfloat16."""
    exact = products.convolve

    def rounds(x: torch.Tensor, w: torch.Tensor, *more: Any) -> torch.Tensor:
        return exact(x.bfloat16().to(x.dtype), w, *more)

    monkeypatch.setattr(products, "convolve", rounds)
    assert not selfcheck.exact(torch.device("cpu"), carriers.FLOAT32)


def test_this_machine_is_exact() -> None:
    assert all(selfcheck.exact(torch.device("cpu"), c) for c in devices.candidates(torch.device("cpu")))


# -- devices, and the state of torch ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "cpu:0", "cuda:x", "cuda:", "", "meta"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(UsageError, match="no device"):
        qd.simulate(small_transformer(0), random_pixels(0, (3, 9, 7)), engine="torch", device=name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_no_gpu_is_said(name: str) -> None:
    with pytest.raises(MissingComponent, match=r"device cuda.*CUDA"):
        qd.simulate(small_transformer(0), random_pixels(0, (3, 9, 7)), engine="torch", device=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: the GPU path was not run here")
def test_a_gpu_gives_the_same_integers_and_spikes() -> None:
    floating = small_transformer(3)
    for graph, bits in itertools.product((floating, qd.quantize(qd.fold(floating), 8)), (None,)):
        assert_same(graph, encode(graph, random_pixels(1, (3, 9, 7), 3))[0], device="cuda")


def test_torch_is_left_as_it_was() -> None:
    graph = small_transformer(0)
    before = (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), torch.initial_seed())
    flags = (torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled)
    torch_engine.run(graph, encode(graph, random_pixels(0, (3, 9, 7)))[0], threads=2)
    after = (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), torch.initial_seed())
    assert after == before
    assert flags == (
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
    )


def test_precision_on_a_gpu_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag that allows tensor cores, seen inside and outside of a product."""
    before = torch.backends.cuda.matmul.allow_tf32
    for carrier in (carriers.TF32, carriers.FLOAT32):
        with carriers.precision(torch.device("cuda"), carrier):
            assert torch.backends.cuda.matmul.allow_tf32 == carrier.tensor_cores
        assert torch.backends.cuda.matmul.allow_tf32 == before


def test_float32_is_nearly_the_same() -> None:
    graph = small_transformer(0)
    pixels = random_pixels(0, (3, 9, 7), 4)
    double = qd.simulate(graph, pixels, engine="torch")
    single = qd.simulate(graph, pixels, engine="torch", precision="float32")
    assert single.logits.dtype == np.float64
    assert not np.array_equal(single.logits, double.logits)
    np.testing.assert_allclose(single.logits, double.logits, atol=1e-3)


def test_replaced_values_and_progress() -> None:
    graph = small_transformer(0)
    x, _ = encode(graph, random_pixels(0, (3, 9, 7), 2))

    def silence(name: str, value: np.ndarray) -> np.ndarray:
        return np.zeros_like(value) if name == "qk_gate" else value

    seen: list[tuple[int, int]] = []
    record = Record.of(graph, "all")
    got = torch_engine.run(graph, x, record, lambda *s: seen.append(s), replace_value=silence)
    expected = reference.run(graph, x, record, replace_value=silence)
    assert seen == [(i + 1, len(graph.nodes)) for i in range(len(graph.nodes))]
    assert got.ledger == expected.ledger
    assert np.array_equal(got.values["qk_gate"], expected.values["qk_gate"])


# -- who uses it -----------------------------------------------------------------------------------------------------


def test_auto_takes_torch_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small_transformer(0)
    assert engines.get("auto", graph, {}, 1) is reference.run
    assert engines.get("auto", graph, {}, 10**6) is torch_engine.run
    assert engines.comparable(graph, 1) is torch_engine.run  # torch is loaded already
    monkeypatch.setattr(engines, "sys", type("Fresh", (), {"modules": {}}))
    assert engines.comparable(graph, 1) is reference.run
    assert engines.comparable(graph, 10**6) is torch_engine.run


def test_comparing_gives_the_same_answer_on_both(
    digits_float: Graph, digits_int8: Graph, digits_data: Any, monkeypatch: Any
) -> None:
    images = digits_data.test_images[:12]
    for graph in (digits_int8, replace(digits_float, time_steps=3)):
        reference_graph = replace(digits_float, time_steps=graph.time_steps)
        ours = qd.compare(graph, reference_graph, images)
        with monkeypatch.context() as patch:
            patch.setattr(engines, "comparable", lambda graph, images: reference.run)
            theirs = qd.compare(graph, reference_graph, images)
        assert ours.to_dict() == theirs.to_dict()
        assert ours.outputs > 0


def test_remembered_results_go_with_what_they_belong_to() -> None:
    known, made = Remembered[int](most=2), []
    arrays = [np.zeros(i) for i in range(3)]
    for array in (arrays[0], arrays[0], arrays[1], arrays[2], arrays[0]):
        known.get(array, "size", lambda array=array: made.append(array.size) or array.size)
    assert made == [0, 1, 2, 0]
    assert known.get(arrays[0], "other", lambda: 7) == 7
    arrays.clear()
    del array
    assert not known._known
