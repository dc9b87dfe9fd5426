"""Lemaire, SpikeSim and NeuroMC as SpikingJelly 2.0 ships them, run on the same network: the same counts and energy."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from digits_network import DigitsNetwork
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import qkf_deploy as qd
from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models import EnergyReport, load_profile, price
from qkf_deploy.hw_models.pricing import exact_product
from qkf_deploy.hw_models.spikesim import crossbar_events
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger

STEPS = 3


class Body(nn.Module):
    """What the three tools take: strides, an even kernel, more than 16 and 64 channels, LIF and IF, bias or none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.c0 = layer.Conv2d(3, 20, 3, padding=1, bias=True, step_mode="m")
        self.n0 = neuron.LIFNode(tau=2.0, detach_reset=True, step_mode="m")
        self.c1 = layer.Conv2d(20, 70, 3, stride=2, padding=1, bias=False, step_mode="m")
        self.n1 = neuron.IFNode(detach_reset=True, step_mode="m")
        self.c2 = layer.Conv2d(70, 10, 4, stride=3, padding=0, bias=True, step_mode="m")
        self.n2 = neuron.LIFNode(tau=4.0, detach_reset=True, step_mode="m")
        self.fc = layer.Linear(10, 7, bias=True, step_mode="m")
        for module in (self.c0, self.c1, self.c2):
            nn.init.normal_(module.weight, 0.1, 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.n2(self.c2(self.n1(self.c1(self.n0(self.c0(x))))))
        return self.fc(x.flatten(2))


class Shared(nn.Module):
    """The image at every step, and the mean of the outputs: what NeuroMC does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(over_steps(x)).mean(0)


def over_steps(x: torch.Tensor) -> torch.Tensor:
    return x.unsqueeze(0).repeat(STEPS, 1, 1, 1, 1)


class Case(NamedTuple):
    model: Shared
    image: torch.Tensor
    ledger: Ledger
    graph: Graph


@pytest.fixture(scope="module")
def case() -> Case:
    model = Shared().double().eval()
    graph = qd.trace(model, image_size=9, in_channels=3, time_steps=STEPS, input="image", preset="none")
    image = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    functional.reset_net(model)
    ledger = qd.simulate(graph, image.numpy(), engine="reference").ledger
    assert all(ledger[n].total("events_in_graded") > 10 for n in ("body.c1", "body.c2", "body.fc"))
    return Case(model, image, ledger, graph)


def counted(report: EnergyReport, *quantities: str) -> int:
    return sum(row.counts.get(q, 0) for row in report.layers for q in quantities)


def picojoule(report: EnergyReport, *quantities: str) -> float:
    return float(sum(row.energy_by_quantity_pj.get(q, 0) for row in report.layers for q in quantities))


def lemaire(case: Case) -> Any:
    energy = pytest.importorskip("spikingjelly.activation_based.op_counter.analytical_energy")
    functional.reset_net(case.model)
    return energy.estimate_lemaire_energy(case.model, case.image)


def test_lemaire_counts(case: Case) -> None:
    found, ours = lemaire(case).counts, price(case.ledger, "lemaire2022")
    names = {
        "synop": ("synops",),
        "mac": ("macs", "leaks"),
        "ac": ("synops", "bias_adds", "resets"),
        "acc_addr": ("event_addresses", "dense_addresses"),
        "mac_addr": ("event_multiplies",),
    }
    words = {
        "read_in_bytes": ("input_events", "input_reads"),
        "write_out_bytes": ("output_events",),
        "read_params_bytes": ("weight_reads_events", "weight_reads", "bias_reads"),
    }
    for name, parts in names.items():
        assert counted(ours, *(f"lemaire_{p}" for p in parts)) == found[name] > 0, name
    for name, parts in words.items():
        assert 4 * counted(ours, *(f"lemaire_{p}" for p in parts)) == found[name] > 0, name
    potentials = 4 * counted(ours, "lemaire_potential_accesses", "lemaire_neuron_accesses")
    assert potentials == found["read_potential_bytes"] + found["write_potential_bytes"]


def test_lemaire_energy(case: Case) -> None:
    found, ours = lemaire(case), price(case.ledger, "lemaire2022")
    parts = {
        "ops_pj": ("synops", "macs", "leaks", "bias_adds", "resets"),
        "addressing_pj": ("event_addresses", "dense_addresses", "event_multiplies"),
        "inout_pj": ("input_events", "input_reads", "output_events"),
        "params_pj": ("weight_reads_events", "weight_reads", "bias_reads"),
        "potential_pj": ("potential_accesses", "neuron_accesses"),
    }
    for name, quantities in parts.items():
        assert picojoule(ours, *(f"lemaire_{q}" for q in quantities)) == pytest.approx(
            found.breakdown_pj[name], rel=1e-6
        ), name
    assert float(ours.total_energy_pj) == pytest.approx(found.total_pj, rel=1e-6)


@pytest.mark.parametrize(
    ("size", "pj"),
    [(0, "0"), (4000, "4.882812"), (4672, "5.703125"), (8192, "10"), (2**20, "100"), (2**22, "100")],
)
def test_lemaire_price_of_a_buffer(size: int, pj: str) -> None:
    from decimal import Decimal

    assert load_profile("lemaire2022").prices["lemaire_weight_reads"].at(size) == Decimal(pj)


@pytest.mark.parametrize("device", ["rram", "sram"])
def test_spikesim(case: Case, device: str) -> None:
    spikesim = pytest.importorskip("spikingjelly.activation_based.op_counter.spikesim")
    functional.reset_net(case.model)
    config = spikesim.SpikeSimEnergyConfig(device=device)
    found = spikesim.estimate_spikesim_energy(case.model, case.image, config=config)
    ours = price(case.ledger, f"spikesim-{device}")
    assert len(found.energy_by_stage) == 3
    for stage, stats in found.event_stats_by_stage.items():
        row = ours[stage.removeprefix("Shared.")]
        assert row.counts["crossbar_cycles"] == stats["dense_pe_cycle_count"]
        assert float(row.energy_pj) == pytest.approx(found.energy_by_stage[stage], rel=1e-12)
    assert ours["body.fc"].counts["crossbar_cycles"] == STEPS  # beyond the tool: one tile, one position


@pytest.mark.parametrize("device", ["rram", "sram"])
def test_spikesim_with_events(case: Case, device: str) -> None:
    """Patches, rows and sites of SpikingJelly's event mode, from the values of the same run."""
    spikesim = pytest.importorskip("spikingjelly.activation_based.op_counter.spikesim")
    functional.reset_net(case.model)
    config = spikesim.SpikeSimEnergyConfig(device=device, activity_mode="event")
    found = spikesim.estimate_spikesim_energy(case.model, case.image, config=config)
    run = qd.simulate(case.graph, case.image.numpy(), engine="reference", record="all")
    ours = crossbar_events(case.graph, {**run.values, case.graph.input.name: case.image.numpy()[None]})
    assert len(ours) == len(found.event_stats_by_stage) == 3
    silent = 0
    for events in ours:
        stage = f"Shared.{events.layer}"
        stats = found.event_stats_by_stage[stage]
        assert events.patches == stats["active_patch_tile_count"]
        assert list(events.rows) == stats["active_row_count_by_tile"]
        assert events.sites == stats["active_output_tile_site_count"]
        assert list(events.input_tiles) == found.stage_metadata[stage]["input_tile_channels"]
        assert float(events.energy_pj(device)) == pytest.approx(found.energy_by_stage[stage], rel=1e-12)
        silent += stats["dense_row_count"] - sum(events.rows)
    assert silent > 0
    with pytest.raises(UsageError, match="device: 'flash'"):
        ours[0].energy_pj("flash")
    with pytest.raises(UsageError, match="was not recorded"):
        crossbar_events(case.graph, {})


def test_neuromc(case: Case) -> None:
    core = pytest.importorskip("spikingjelly.activation_based.op_counter.neuromc.core")
    functional.reset_net(case.model)
    with torch.no_grad():
        found = core.estimate_neuromc_runtime_energy(case.model.body, over_steps(case.image))
    ours = price(case.ledger, "neuromc")

    def n(*names: str) -> int:
        return counted(ours, *names)

    both = ("binary", "dense")
    macs, partials, streams, returns = (
        n(*(f"array_{part}_{kind}" for kind in both)) for part in ("macs", "partials", "streams", "returns")
    )
    bits = {kind: (1 if kind == "binary" else 16) for kind in both}
    reads = sum(n(f"array_macs_{kind}") * bits[kind] for kind in both)
    inputs = sum(n(f"array_streams_{kind}") * bits[kind] for kind in both)
    updates, weights = n("neuron_updates"), n("weights_loaded")
    assert found.primitive_counts["totals"] == {
        "mac": macs, "mux": updates, "add": updates, "mul": updates, "comp": 3 * updates, "sqrt": 0
    }  # fmt: skip
    assert found.memory_bits_by_level["by_level_dir"] == {
        "reg": {
            "rh2l": reads + 16 * weights + 16 * returns + 33 * updates,
            "wh2l": reads + 16 * weights + 16 * macs,
            "rl2h": 16 * macs,
            "wl2h": 16 * partials + 34 * updates,
        },
        "sram": {
            "rh2l": 16 * weights + inputs + 16 * partials + 33 * updates,
            "wl2h": 16 * streams + 34 * updates,
        },
    }
    assert found.counts_by_core_type["fp_soma"]["mac"] == n("array_macs_binary") > 0
    assert found.counts_by_core_type["ann_fe"]["mac"] == n("array_macs_dense") > 0
    assert float(ours.total_energy_pj) == pytest.approx(found.energy_total_pj, rel=1e-7)  # prices have eight decimals


def test_sop_monitor_by_hand(network: DigitsNetwork) -> None:
    """Taps of every spike by value; of Q (K^T V) the spikes of Q against ones, of K^T V the product itself."""
    ledger, report = network.ledger, price(network.ledger, "spikingresformer-sopmonitor")
    wanted = ledger.total("ac_unary")
    first, second = (ledger[f"stage3.0.ssa.{name}"] for name in ("matmul", "matmul#2"))
    assert (first.input_kinds, second.input_kinds) == (("spike", "spike"), ("spike", "count"))
    wanted += first.total("coincidences_unary") + second.total("fanout_left")
    assert report.total_energy_pj == exact_product(wanted, load_profile("exact-fp32").prices["ac_unary"].pj)
    assert {"mac", "head_macs"} <= set(report.unpriced)
    assert "coincidences" not in report.unpriced


@pytest.mark.parametrize("name", ["lemaire2022", "neuromc", "spikesim-rram"])
def test_a_stored_run_gives_the_same(case: Case, name: str, tmp_path: Any) -> None:
    """Connections of layers are stored with a run."""
    from qkf_deploy.ledger import Ledger as Stored

    again = Stored.from_dict(case.ledger.to_dict())
    assert again == case.ledger
    assert price(again, name).total_energy_pj == price(case.ledger, name).total_energy_pj


def test_images_of_a_batch_add_up(network: DigitsNetwork) -> None:
    """Except that a layer is dense as soon as one image brings a value above 1, as it is for the tools."""
    for name in ("lemaire2022", "neuromc", "spikesim-rram", "spikingresformer-sopmonitor"):
        report = price(network.ledger, name)
        assert sum(report.energy_per_image_pj) == report.total_energy_pj > 0


def test_range_of_the_syops_authors(network: DigitsNetwork) -> None:
    """E_MAC x multiplications to all operations; the published row SEW-ResNet-18: 0.50 G AC, 2.75 G MAC, 13.10 mJ."""
    report, plain = (price(network.ledger, name) for name in ("syops-range", "syops-0.0.5"))
    assert report.total_energy_pj == plain.total_energy_pj
    macs = counted(report, "integer_mac_dense", "mac_dense_every_step", "head_macs")
    mac = load_profile("syops-range").prices["head_macs"].pj
    assert report.low_energy_pj == exact_product(macs, mac)
    assert 0 < report.low_energy_pj < report.total_energy_pj
    assert plain.low_energy_pj is None
    assert "range " in "\n".join(report.overview().notes)
    prices = load_profile("syops-range").prices
    assert float(prices["binary_ac_rate"].pj) * 0.50 + float(mac) * 2.75 == pytest.approx(13.10)


def test_reconstruction_of_step_by_hand(network: DigitsNetwork) -> None:
    ledger, report = network.ledger, price(network.ledger, "step2025-reconstruction")
    neurons = sum(n.output_size for n in ledger if "neuron_updates_driven" in n.counts)
    weights = sum(network.integer_graph[n.name].params["weight"].size for n in ledger if n.connections is not None)
    arithmetic = price(ledger, "paper-eq23").total_energy_pj
    first = ledger["patch_embed1.proj_conv"].dense_macs * (ledger.time_steps - 1)
    head = ledger["head"].dense_macs
    memory = 32 * (2 * ledger.time_steps * neurons + weights)
    mac, bit = load_profile("step2025-reconstruction").prices["head_macs"].pj, load_profile("traffic-3.12pj-per-bit")
    per_bit = bit.prices["weight_bytes"].pj / 8
    assert report.total_energy_pj == arithmetic + ledger.images * (mac * (first + head) + per_bit * memory)
    assert any("RECONSTRUCTION" in sentence for sentence in report.assumptions)
