"""Rates are of the model's own values: fr x T x FLOPs with fr the mean of each layer's input tensor in torch.

The graph counts spikes of a pool as a sum and keeps the divisor beside; the traced, folded and integer graphs of one
network must give the same operations, which hooks on the torch modules compute.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from netbuild import Net, random_pixels
from spikingjelly.activation_based import functional, neuron
from torch import nn

import qkf_deploy as qd
from qkf_deploy.errors import InputError, UnsupportedError
from qkf_deploy.hw_models.quantities import QUANTITIES
from qkf_deploy.hw_models.quantity import reads_binary
from qkf_deploy.ir import Graph, Operand, View
from qkf_deploy.ledger import Ledger
from qkf_deploy.ops import MatMul, MaxPool, Scale, SumPool
from qkf_deploy.passes.fold import as_fraction

STEPS = 4


class Pooled(nn.Module):
    """conv - IF - (pool) - conv - IF - mean over positions - linear - mean over time."""

    def __init__(self, pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.pool = pool
        self.c0, self.c1 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1, stride=2)
        self.l0, self.l1 = neuron.IFNode(step_mode="m"), neuron.IFNode(step_mode="m")
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, batch = STEPS, x.shape[0]

        def fire(lif: nn.Module, y: torch.Tensor) -> torch.Tensor:
            return lif(y.reshape(steps, batch, *y.shape[1:])).flatten(0, 1)

        spikes = fire(self.l0, self.c0(x.unsqueeze(0).repeat(steps, 1, 1, 1, 1).flatten(0, 1)))
        y = fire(self.l1, self.c1(self.pool(spikes)))
        return self.fc(y.mean((2, 3)).reshape(steps, batch, 8)).mean(0)


POOLS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": nn.Identity(),
    "max": nn.MaxPool2d(2),
    "average": nn.AvgPool2d(2),
    "average, overlapping, padded": nn.AvgPool2d(3, stride=2, padding=1),
    "average, strides that skip": nn.AvgPool2d(2, stride=3),
    "average, divisor of its own": nn.AvgPool2d(2, divisor_override=3),
    "average, without padding": nn.AvgPool2d(2, count_include_pad=False),
    "average twice": nn.Sequential(nn.AvgPool2d(2), nn.AvgPool2d(3, stride=2, padding=1)),
    "average, then max": nn.Sequential(nn.AvgPool2d(2), nn.MaxPool2d(2)),
    "adaptive": nn.AdaptiveAvgPool2d(2),
    "global": nn.AdaptiveAvgPool2d(1),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "constant": lambda x: 0.125 * x,
}  # fmt: skip


def prepared(pool: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Pooled, np.ndarray]:
    torch.manual_seed(5)
    model = Pooled(pool).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape).abs() * 0.6
    return model, np.random.default_rng(2).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)


def operations_in_torch(model: Pooled, images: np.ndarray) -> int:
    """Mean of the second convolution's input x T x its dense MACs, whole operations per image, all images."""
    seen: list[tuple[float, int]] = []

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append((float(inputs[0].mean()), output[0].numel() * model.c1.weight[0].numel()))

    handle = model.c1.register_forward_hook(hook)
    model = model.double()
    with torch.no_grad():
        for image in images:
            functional.reset_net(model)
            model(torch.from_numpy(image[None] / 255.0))
    handle.remove()
    functional.reset_net(model)
    model.float()
    return sum(math.floor(round(mean * STEPS * macs, 6) + 0.5) for mean, macs in seen)


@pytest.mark.parametrize("name", POOLS)
def test_every_form_of_a_network_prices_what_torch_computes(name: str) -> None:
    model, images = prepared(POOLS[name])
    expected = operations_in_torch(model, images)
    traced = qd.trace(model, time_steps=STEPS, preset="none", image_size=8, in_channels=1)
    ledgers = {}
    for graph in (traced, qd.fold(traced), qd.quantize(traced, bits=32)):
        run = qd.simulate(graph, images)
        row = qd.price(run.ledger, "paper-eq23")["c1"]
        assert row.counts == {"sop_rate": expected}
        assert Fraction(row.energy_pj) == Fraction(9, 10) * expected
        ledgers[graph.arithmetic] = run.ledger
    assert expected > 100
    in_torch = qd.simulate(traced, images).ledger
    assert in_torch == ledgers["float"]


def test_pools_whose_divisor_depends_on_the_place_are_refused() -> None:
    for pool in (nn.AvgPool2d(3, padding=1, count_include_pad=False), nn.AvgPool2d(3, stride=2, ceil_mode=True)):
        with pytest.raises(UnsupportedError, match="divisor depends on the position"):
            qd.trace(prepared(pool)[0], time_steps=STEPS, preset="none", image_size=8, in_channels=1)


def branching(seed: int = 3) -> Graph:
    """Average pooling that two synapses and a neuron read, and a product behind a scaled product (as in Spikformer)."""
    net = Net(seed, (2, 8, 6))
    spikes = net.lif("lif", net.bn("bn", net.conv("conv", "input", 4)))
    net.add("divide", Scale(0.25), net.add("pool", SumPool((2, 2), (2, 2), (0, 0)), spikes))
    net.add("max", MaxPool((2, 2), (1, 1), (0, 0)), "divide")
    rows = [net.lif(f"{name}_lif", net.conv(name, source, 4)) for name, source in (("a", "max"), ("b", "max"))]
    columns = Operand(rows[1], View.of((4, 3, 2), (0, 2, 1), (4, 2, 3)))
    net.add("attn", MatMul(), rows[0], columns)
    net.add("attn_scale", Scale(0.125), "attn")
    direct = net.lif("direct_lif", "divide", v_threshold=0.1)
    net.add("out", MatMul(), "attn_scale", net.add("three", MaxPool((2, 1), (1, 1), (0, 0)), direct))
    net.head(net.lif("out_lif", "out", v_threshold=0.1))
    return net.build()


def test_scales_with_several_kinds_of_reader() -> None:
    """What the synapses and the second product read are counts, whoever else reads them; in every form of the graph."""
    graph = branching()
    images = random_pixels(3, (2, 8, 6), 3)
    run = qd.simulate(graph, images, record="all")
    folded, integer = qd.fold(graph), qd.quantize(graph, bits=32)
    same = qd.simulate(folded, images, record="all")
    assert run.ledger == same.ledger
    for name, spikes in run.spikes.items():
        assert np.array_equal(spikes, same.spikes[name])
    ledgers = (run.ledger, qd.simulate(integer, images).ledger)
    for layer, source in (("a", "max"), ("b", "max")):
        mean = Fraction(float(run.values[source].sum())) / folded[source].type.size  # fr x T of all images
        exact = 144 * Fraction(folded[layer].type.size, 4) * mean
        for ledger in ledgers:
            assert ledger[layer].input_factors == (Fraction(1, 4),)
            assert abs(sum(price_counts(ledger, layer, "sop_rate")) - exact) <= Fraction(3, 2)
    for ledger in ledgers:
        assert ledger["out"].input_factors == (Fraction(1, 8), Fraction(1))
        assert ledger["out"].total("coincidences") > 0
        assert "mac" not in ledger["out"].counts


def price_counts(ledger: Ledger, layer: str, quantity: str) -> tuple[int, ...]:
    return QUANTITIES[quantity].count(ledger[layer], ledger)


def test_all_engines_and_files_keep_the_factors(tmp_path: Path) -> None:
    graph, images = qd.quantize(branching()), random_pixels(3, (2, 8, 6), 3)
    wanted = qd.simulate(graph, images, engine="reference").ledger
    qd.save(graph, tmp_path / "net.qkf")
    loaded = qd.load(tmp_path / "net.qkf")
    assert loaded.factors == graph.factors
    for engine in ("event", "onnx"):
        assert qd.simulate(loaded, images, engine=engine).ledger == wanted
    assert Ledger.from_dict(json.loads(json.dumps(wanted.to_dict()))) == wanted
    damaged = wanted.to_dict()
    damaged["layers"][3]["input_factors"] = ["1/0"]
    with pytest.raises(InputError, match="not a ledger layer"):
        Ledger.from_dict(damaged)


@pytest.mark.parametrize("factor", [1 / 9, 1 / 12544, 0.125, -0.25, 1e-9, float(np.nextafter(0.25, 1))])
def test_the_fraction_of_a_divisor(factor: float) -> None:
    assert float(as_fraction(factor)) == factor


def test_pooled_inputs_are_not_zero_or_one() -> None:
    """A window with one spike holds 1/4 in the model: no counting tool that asks for 0 and 1 takes it for a spike."""
    graph = branching()
    ledger = qd.simulate(graph, random_pixels(3, (2, 8, 6), 3)).ledger
    layer = ledger["a"]
    sparse = replace(layer, counts={**layer.counts, "events_in_unary": layer.counts["events_in_graded"]})
    assert not reads_binary(sparse)
    assert reads_binary(replace(sparse, input_factors=()))


def test_the_report_says_what_divided_input_costs() -> None:
    """Average pooling by 2 x 2: the paper charges the mean, exact counts every spike, and both say so."""
    ledger = qd.simulate(qd.quantize(branching()), random_pixels(3, (2, 8, 6), 3)).ledger
    words = {"paper-eq23": "at its mean", "exact-fp32": "per spike", "neurobench-2.3": "multiplied"}
    for profile, word in words.items():
        (line,) = (a for a in qd.price(ledger, profile).assumptions if a.startswith("Input that the model averages"))
        assert "(of a, b)" in line
        assert word in line
    layer = ledger["a"]
    mean = Fraction(layer.total("events_in_unary"), 4 * layer.input_sizes[0] * STEPS * 3)
    assert qd.price(ledger, "paper-eq23")["a"].firing_rate_in == mean > 0
