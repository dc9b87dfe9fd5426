"""Energy from firing rates: published sums reproduced, nothing priced that rates do not determine."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from digits_network import DigitsNetwork

import qkf_deploy as qd
from qkf_deploy.cli import run
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.hw_models import load_profile, price
from qkf_deploy.hw_models.network_shape import NetworkShape, load_shape, model_key, network_shape, shape_names
from qkf_deploy.hw_models.rate_pricing import RULES, RateReport, price_rates
from qkf_deploy.hw_models.rate_table import RateTable, load_rates, parse_rates, published_rates
from qkf_deploy.models.spikingformer import Spikingformer
from qkf_deploy.models.zoo import ENTRIES

NAME = "spikingformer-8-512"
#: The log of the authors' script on Spikingformer-8-512: multiplications, additions, millijoule.
LOG_MACS, LOG_ACS, LOG_MJ = 347_329_512, Decimal("6517540940"), Decimal("7.463502602")


def published(convention: str, first_layer: str | None = None) -> RateReport:
    return qd.price_rates(NAME, NAME, qd.load_profile(convention, first_layer))


def millijoule(report: RateReport) -> float:
    return float(report.energy_pj) * 1e-9


def test_published_energy_of_spikingformer() -> None:
    """Table 2 of arXiv 2403.16552 prints 7.46 mJ; with the first layer once it would be 6.26."""
    assert f"{millijoule(published('spikformer-hand')):.2f}" == "7.46"
    assert f"{millijoule(published('spikformer-hand', 'once')):.2f}" == "6.26"
    assert millijoule(published("spikformer-hand", "once")) == millijoule(published("paper-eq23"))
    first = 4.6 * 3 * 86_704_128 * 1e-9
    assert millijoule(published("spikformer-hand")) - millijoule(published("paper-eq23")) == pytest.approx(first)


def test_bias_and_head_are_the_difference_to_the_log() -> None:
    """The script counts a bias as one more input of its layer; with that its sums come out to the printed digits."""
    report = published("spikingformer-script")
    network, rates = load_shape(NAME), load_rates(NAME)
    bias = sum(layer.bias * 4 * rates.means[layer.name] for layer in network if layer.bias and layer.timing == "step")
    head = next(layer for layer in network if layer.name == "head")
    counts = report.operations
    additions = counts["binary_ac_rate"] + counts["product_rate"] + bias
    macs = counts["mac_dense_every_step"] + counts["head_macs"] + head.bias
    assert macs == LOG_MACS
    assert float(additions) == pytest.approx(float(LOG_ACS), rel=1e-8)  # printed with nine digits
    total = Fraction(9, 10) * additions + Fraction(46, 10) * macs
    assert float(total) * 1e-9 == pytest.approx(float(LOG_MJ), abs=2e-9)
    assert total - report.energy_pj == Fraction(9, 10) * bias + Fraction(46, 10) * head.bias
    (note,) = [line for line in published("spikformer-hand").notes if line.startswith("Bias")]
    assert f"{float(bias):.4g} additions" in note
    assert f"{float(bias * Fraction(9, 10)) * 1e-9:.4g} mJ" in note


def test_rates_of_a_run_give_the_price_of_its_counts(network: DigitsNetwork) -> None:
    """Where both exist they agree: means taken from exact counts, priced again without them."""
    ledger = network.ledger
    shape = network_shape(network.integer_graph)
    table = table_of({**means_of(shape, ledger), **neurons_of(shape, ledger)})
    for profile in ("paper-eq23", "spikformer-hand"):
        wanted = price(ledger, profile)
        found = price_rates(shape, table, load_profile(profile))
        assert float(found.energy_pj * ledger.images) == pytest.approx(float(wanted.total_energy_pj), rel=1e-6)
        for row in found.rows:
            own = Fraction(wanted[row.layer].energy_pj) / ledger.images
            assert abs(row.energy_pj - own) <= Fraction(9, 10), row.layer  # counts are whole operations per image


def means_of(shape: NetworkShape, ledger: qd.Ledger) -> dict[str, Fraction]:
    readers = [n for n in shape if n.op in ("conv", "sum") and n.reads_events and n.name != "sum"]
    return {n.name: Fraction(ledger[n.name].total("events_in_unary"), size(ledger, n.input_sizes[0])) for n in readers}


def neurons_of(shape: NetworkShape, ledger: qd.Ledger) -> dict[str, Fraction]:
    neurons = [n for n in shape if n.op == "neuron"]
    return {n.name: Fraction(ledger[n.name].total("events_out_unary"), size(ledger, n.output_size)) for n in neurons}


def size(ledger: qd.Ledger, elements: int) -> int:
    return elements * ledger.time_steps * ledger.images


def table_of(means: dict[str, Fraction]) -> RateTable:
    return RateTable("rates.csv", means, {name: i for i, name in enumerate(means, 2)})


def test_a_synapse_without_a_row_takes_what_it_reads(network: DigitsNetwork) -> None:
    """The rates of the neurons are enough: residual sums add them, a gate needs its own row."""
    ledger, shape = network.ledger, network_shape(network.integer_graph)
    neurons = neurons_of(shape, ledger)
    masks = [n for n in shape if n.op == "mask"]
    gates = {n.name: Fraction(ledger[n.name].total("events_out_unary"), size(ledger, n.output_size)) for n in masks}
    profile = load_profile("paper-eq23")
    from_neurons = price_rates(shape, table_of({**neurons, **gates}), profile)
    both = price_rates(shape, table_of({**means_of(shape, ledger), **neurons}), profile)
    assert from_neurons.energy_pj == both.energy_pj
    with pytest.raises(InputError, match=r"no rate for stage1\.0\.tssa\.proj_conv, stage2\.0\.tssa\.proj_conv\n"):
        price_rates(shape, table_of(neurons), profile)


def test_profiles_that_need_counts_are_refused_by_the_quantity() -> None:
    with pytest.raises(UsageError, match=r"exact-fp32 prices what mean values do not determine: ac_unary"):
        published("exact-fp32")
    shape = load_shape("qkformer-4-384-cifar10")
    with pytest.raises(UsageError, match=r"binary_ac_rate, integer_mac_dense"):  # residual counts
        price_rates(shape, everywhere(shape, "0.1"), load_profile("spikingformer-script"))
    assert price_rates(shape, everywhere(shape, "0.1"), load_profile("paper-eq23")).energy_pj > 0


def everywhere(shape: NetworkShape, mean: str) -> RateTable:
    names = [n.name for n in shape if n.op in ("neuron", "mask")]
    return parse_rates("layer,rate\n" + "".join(f"{name},{mean}\n" for name in names), "rates.csv")


def test_weights_and_membranes_need_no_rates() -> None:
    """The reconstruction of STEP's terms: 99.84 pJ per weight once, and twice per neuron and step."""
    report = published("step2025-reconstruction")
    shape = load_shape(NAME)
    neurons = sum(layer.output_size for layer in shape if layer.op == "neuron")
    assert report.operations["state_accesses_per_step"] == 2 * 4 * neurons
    biases = 8 * (512 + 2048 + 512) + 1000
    norms = 2 * (64 + 128 + 256 + 512 + 512 + 8 * (4 * 512 + 2048 + 512))
    assert report.operations["weights_loaded"] == 29_689_384 - biases - norms


def test_every_rule_is_a_quantity_of_profiles() -> None:
    from qkf_deploy.hw_models.quantities import QUANTITIES

    assert set(RULES) <= set(QUANTITIES)


def changed(text: str) -> Callable[[str], str]:
    old, new = text.split(" -> ")
    return lambda table: table.replace(old, new)


WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "unknown layer": (changed("q_conv -> z_conv"), r"rates\.csv:8: block\.0\.attn\.z_conv: the network has no such"),

    "twice": (changed("block.0.attn.k_conv -> block.0.attn.q_conv"), r":9: .*q_conv stands here and in line 8"),
    "percent as shares": (changed("rate_percent -> rate"), r"mean value 25\.83, but .* at most 1.*rate_percent"),
    "negative": (changed("17.6595751 -> -1"), r"'-1' is not a mean value"),
    "text": (changed("17.6595751 -> high"), r"'high' is not a mean value"),
    "nan": (changed("17.6595751 -> nan"), r"'nan' is not a mean value"),
    "infinite": (changed("17.6595751 -> 1e999999999"), r"is not a mean value"),
    "columns": (changed("rate_percent -> rates"), r"needs a column layer and one column of rates"),
    "two rates": (changed("layer,rate_percent -> rate,rate_percent"), r"needs a column layer"),
    "ragged": (changed("17.6595751 -> 17.6595751,3"), r":8: 3 columns, the header has 2"),
    "quote": (changed('17.6595751 -> "1'), r":8: not a line of a CSV file"),
    "first layer": (changed("patch_embed.proj_conv1, -> patch_embed.proj_conv,"), r"reads real values"),
    "product": (changed("block.0.attn.q_lif -> block.0.attn.matmul"), r"two operands.*k_lif and block\.0\.attn\.v_lif"),
    "drive": (changed("block.0.attn.q_lif -> block.0.add"), r"carries drives"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_tables(case: str) -> None:
    change, message = WRONG[case]
    with pytest.raises(InputError, match="(?s)" + message):
        price_rates(load_shape(NAME), parse_rates(change(text()), "rates.csv"), load_profile("spikformer-hand"))


def text() -> str:
    from importlib import resources

    return (resources.files("qkf_deploy.hw_models") / "rates" / f"{NAME}.csv").read_text(encoding="utf-8")


def test_missing_layers_are_all_named() -> None:
    lines = text().splitlines()
    left_out = ("block.3.mlp.fc2_conv", "block.7.attn.k_lif")
    short = "\n".join(line for line in lines if not line.startswith(left_out))
    with pytest.raises(InputError, match=r"no rate for block\.3\.mlp\.fc2_conv, block\.7\.attn\.k_lif"):
        price_rates(load_shape(NAME), parse_rates(short, "rates.csv"), load_profile("spikformer-hand"))


def test_rows_about_one_value_must_agree() -> None:
    more = text() + "block.0.attn.proj_lif,30\n"
    with pytest.raises(InputError, match=r"q_conv: reads block\.0\.attn\.proj_lif, whose rows say 0\.3, not 0\.1766"):
        price_rates(load_shape(NAME), parse_rates(more, "rates.csv"), load_profile("spikformer-hand"))
    agreed = text() + "block.0.attn.proj_lif,17.66\n"
    assert price_rates(load_shape(NAME), parse_rates(agreed, "r"), load_profile("spikformer-hand")).energy_pj > 0


def test_rates_of_virtual_steps_may_exceed_one() -> None:
    """E-SpikeFormer's rates contain D: 150.5 percent is legal there and prices 0.9 x MACs x rate x T."""
    high = text().replace("block.0.attn.q_conv,17.6595751", "block.0.attn.q_conv,150.50")
    with pytest.raises(InputError, match=r"(?s)mean value 1\.505, but what it is of is at most 1.*e-spikeformer"):
        price_rates(load_shape(NAME), parse_rates(high, "rates.csv"), load_profile("spikformer-hand"))
    report = price_rates(load_shape(NAME), parse_rates(high, "rates.csv"), load_profile("e-spikeformer"))
    (row,) = [r for r in report.rows if r.layer == "block.0.attn.q_conv"]
    assert row.energy_pj == Fraction(9, 10) * Fraction("1.505") * 4 * 512 * 512 * 196


def test_other_numbers_of_steps_scale() -> None:
    one = qd.price_rates(NAME, NAME, "spikformer-hand", time_steps=1)
    assert one.energy_pj * 4 == published("spikformer-hand").energy_pj
    with pytest.raises(UsageError, match="time_steps: 0"):
        qd.price_rates(NAME, NAME, "spikformer-hand", time_steps=0)


def test_the_shape_is_that_of_the_traced_module() -> None:
    """A small one, traced; and the shipped one is the same layers, wider."""
    graph = qd.trace(Spikingformer(64, depth=8, num_classes=10), image_size=32, input="image", preset="none")
    small, large = network_shape(graph, "small"), load_shape(NAME)
    assert NetworkShape.from_json(small.to_json()) == small
    facts = [(n.name, n.op, n.sources, n.input_kinds, n.timing, n.bias > 0, n.weights > 0) for n in small]
    assert facts == [(n.name, n.op, n.sources, n.input_kinds, n.timing, n.bias > 0, n.weights > 0) for n in large]
    by_name = {n.name: n for n in large}
    assert by_name["block.0.attn.q_conv"].dense_macs == 512 * 512 * 196
    assert by_name["patch_embed.proj_conv3"].dense_macs == 512 * 256 * 9 * 28 * 28
    assert by_name["block.0.attn.matmul"].dense_macs == 8 * 196 * 64 * 64


def test_shapes_of_the_list_of_models() -> None:
    known = {model_key(e.name): e for e in ENTRIES if e.state == "works"}
    assert set(shape_names()) <= set(known)
    assert set(published_rates()) <= set(shape_names())
    assert {key for key in known if key.startswith(("qkformer", "spikingformer", "spikformer"))} <= set(shape_names())
    for name in shape_names():
        shape, entry = load_shape(name), known[name]
        assert all(layer.dense_macs % layer.weights == 0 for layer in shape if layer.is_synapse)
        assert sum(layer.dense_macs for layer in shape) == entry.macs, name
        assert shape.time_steps == entry.time_steps
    with pytest.raises(UsageError, match=r"(?s)no model 'spikingformer-8-513'.*did you mean 'spikingformer-8-512'"):
        load_shape("spikingformer-8-513")


def test_own_network_and_file(tmp_path: Path, network: DigitsNetwork, capsys: pytest.CaptureFixture[str]) -> None:
    qd.save(network.integer_graph, tmp_path / "net.qkf")
    shape = network_shape(network.integer_graph)
    lines = [f"{n},{float(m)}" for n, m in {**means_of(shape, network.ledger),
             **neurons_of(shape, network.ledger)}.items()]  # fmt: skip
    (tmp_path / "rates.csv").write_text("layer,rate\n" + "\n".join(lines), encoding="utf-8")
    line = ["energy", str(tmp_path / "net.qkf"), "--rates", str(tmp_path / "rates.csv"), "--format", "json"]
    assert run(line) == 0
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    wanted = price(network.ledger, "paper-eq23").mean_energy_pj
    assert report["energy_pj"] == pytest.approx(float(wanted), rel=1e-6)
    assert math.fsum(row["energy_pj"] for row in report["layers"]) == pytest.approx(report["energy_pj"], rel=1e-12)


@pytest.mark.parametrize("fmt", ["table", "md", "csv", "json"])
def test_command(fmt: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["energy", "--model", "Spikingformer-8-512", "--rates", NAME, "--convention", "spikformer-hand"]
    assert run([*line, "--format", fmt]) == 0
    out = capsys.readouterr().out
    assert {"table": "7.457 mJ", "md": "| total |", "csv": "block.7.mlp.fc2_conv,conv", "json": '"energy_pj": 7456'}[
        fmt
    ] in out
    assert run([*line, "--profile", "paper-eq23", "--compare", "--format", fmt]) == 0
    assert "block.0" not in capsys.readouterr().out or fmt == "json"


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys; from qkf_deploy.cli import run\n"
        f"assert run(['energy', '--model', '{NAME}', '--rates', '{NAME}', '--format', 'csv']) == 0\n"
        "assert not {'torch', 'onnx', 'numba', 'pandas', 'spikingjelly'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr


def test_the_first_layer_once_or_at_every_step(network: DigitsNetwork) -> None:
    ledger = network.ledger
    once, every = (price(ledger, qd.load_profile("paper-eq23", how)) for how in ("once", "every-step"))
    assert every.total_energy_pj - once.total_energy_pj == Decimal("4.6") * 3 * 18_432 * ledger.images
    assert once.total_energy_pj == price(ledger, "paper-eq23").total_energy_pj
    with pytest.raises(UsageError, match="odin2019 has no price for a first layer"):
        qd.load_profile("odin2019", "once")
    with pytest.raises(UsageError, match="first_layer: 'twice'"):
        qd.load_profile("paper-eq23", "twice")  # type: ignore[arg-type]


def test_spikingformer_runs_in_torch() -> None:
    logits = Spikingformer(64, depth=1, num_classes=10, time_steps=2)(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 10)


def test_bias_at_the_rate_of_its_layer_from_counts(ledger: qd.Ledger) -> None:
    profile = load_profile("exact-fp32")
    prices = {**profile.prices, "bias_rate": replace(profile.prices["ac_unary"], quantity="bias_rate")}
    report = price(ledger, replace(profile, prices=prices))
    layer = ledger["stage1.0.mlp.mlp1_conv"]
    spikes, size_ = layer.counts["events_in_unary"], layer.input_sizes[0] * ledger.time_steps
    per_image = int(layer.counts["bias_adds"][0])
    wanted = sum((2 * int(n) * per_image + size_) // (2 * size_) for n in spikes)
    assert report[layer.name].counts["bias_rate"] == wanted > 0
    first = ledger["patch_embed1.proj_conv"]
    assert report[first.name].counts["bias_rate"] == first.total("bias_adds")
