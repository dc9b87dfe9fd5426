"""Energy is counts times prices, exactly; every convention is checked against its formula on real counts."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from digits_network import DigitsNetwork

from qkf_deploy.display.numbers import joules
from qkf_deploy.hw_models import load_profile, price, profile_names
from qkf_deploy.hw_models.pricing import dense_macs, exact_product, exact_sum
from qkf_deploy.hw_models.quantities import QUANTITIES
from qkf_deploy.ledger import LayerRecord, Ledger
from qkf_deploy.report.tables import render_energy
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record


def record(name: str = "conv", **fields: object) -> LayerRecord:
    base = LayerRecord(
        name=name, op="conv", input_kinds=("spike",), input_sizes=(9,), output_kind="drive", output_size=9,
        timing="step", dense_macs=90, border_exact_macs=60, weight_bits=8, accumulator_bits=12, membrane_bits=0,
        parameters=10, counts={},
    )  # fmt: skip
    return replace(base, **fields)  # type: ignore[arg-type]


def ledger_of(*layers: LayerRecord, encoding: str = "direct", images: int = 1) -> Ledger:
    return Ledger(4, images, "integer", encoding, layers)


def counts(**values: object) -> dict[str, np.ndarray]:
    return {k: np.atleast_1d(np.array(v, np.int64)) for k, v in values.items()}


@pytest.mark.parametrize("name", profile_names())
def test_rows_add_up_to_the_last_digit(ledger: Ledger, name: str) -> None:
    report = price(ledger, name)
    assert report.total_energy_pj > 0
    assert sum(Fraction(row.energy_pj) for row in report.layers) == Fraction(report.total_energy_pj)
    assert sum(Fraction(e) for e in report.energy_per_image_pj) == Fraction(report.total_energy_pj)
    assert sum(Fraction(e) for e in report.energy_by_quantity_pj.values()) == Fraction(report.total_energy_pj)
    assert sum(row.share for row in report.layers) == 1
    for row in report.layers:
        assert sum(Fraction(e) for e in row.energy_by_quantity_pj.values()) == Fraction(row.energy_pj)


@pytest.mark.parametrize("name", profile_names())
def test_json_adds_up_to_the_last_digit(ledger: Ledger, name: str) -> None:
    data = json.loads(render_energy(price(ledger, name), "json"), parse_float=Decimal)
    (report,) = data["reports"]
    assert data["schema_version"] == 1
    total = exact_sum(Decimal(row["energy_pj_sum"]) for row in report["layers"])
    assert total == Decimal(report["energy_pj_sum"]) == exact_sum(map(Decimal, report["energy_pj_of_each_image"]))


def test_json_says_per_image_what_the_table_says(ledger: Ledger) -> None:
    """To the last printed digit, for the total and every row; what has no ``_sum`` in its name is per image."""
    report = price(ledger, "paper-eq23")
    assert ledger.images > 1
    (data,) = json.loads(render_energy(report, "json"))["reports"]
    table = render_energy(report, "table", every_node=True)
    assert f"energy per image  {joules(data['energy_pj'])} ±" in table
    lines = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    for row in data["layers"]:
        assert f" {joules(row['energy_pj'])} " in f"{lines[row['layer']]} "
        for key in ("energy_pj", "sops_exact", "sops_rate_times_dense", "macs"):
            assert row[key] * ledger.images == pytest.approx(float(row[f"{key}_sum"]), rel=1e-12)
        for key in ("counts", "energy_by_quantity_pj"):
            assert set(row[key]) == set(row[f"{key}_sum"])
            for name, value in row[key].items():
                assert value * ledger.images == pytest.approx(float(row[f"{key}_sum"][name]), rel=1e-12)
    sums = [key for key in (*data, *data["layers"][0]) if key.endswith("_sum")]
    assert len(sums) == 10


def test_paper_rule_from_firing_rates(network: DigitsNetwork) -> None:
    """Eq. 22-24 computed from the simulated spikes themselves, not from the ledger."""
    graph = network.integer_graph
    run = reference.run(graph, encode(graph, network.pixels[:1])[0], Record.of(graph, "all"))
    report = price(run.ledger, "paper-eq23")
    steps = graph.time_steps
    expected: dict[str, Fraction] = {}
    for node in graph:
        types = graph.input_types(node)
        operands = [run.values.get(o.node) for o in node.inputs]
        if node.op.kind in ("conv", "linear") and types[0].is_events and types[0].timing.value == "step":
            mean = Fraction(int(operands[0].sum()), steps * types[0].size)
            sops = mean * steps * node.op.static_cost(types, node.params).dense_macs
            expected[node.name] = Fraction(9, 10) * round(sops + Fraction(1, 10**9))
        elif node.op.kind == "matmul":
            rates = [Fraction(int(v.sum()), steps * t.size) for v, t in zip(operands, types) if t.kind.value == "spike"]
            expected[node.name] = Fraction(9, 10) * min(rates) * steps * node.op.static_cost(types, {}).dense_macs
        elif node.op.kind == "sum" and node.op.role == "attention":
            expected[node.name] = Fraction(9, 10) * int(operands[0].sum())
    expected["patch_embed1.proj_conv"] = Fraction(46, 10) * 18432
    found = {row.layer: Fraction(row.energy_pj) for row in report.layers if row.energy_pj}
    assert found == {k: v for k, v in expected.items() if v}
    assert len(found) >= 28


def test_exact_profile_by_hand(ledger: Ledger) -> None:
    report = price(ledger, "exact-fp32")
    adds = ("ac_unary", "coincidences_unary", "attention_sum_adds_unary", "head_adds_unary")
    wanted = Decimal("0.9") * sum(ledger.total(c) for c in adds)
    wanted += Decimal("4.6") * (ledger.total("mac") + ledger.total("head_macs"))
    assert report.total_energy_pj == wanted


def test_twin_is_one_dense_execution(ledger: Ledger) -> None:
    report = price(ledger, "paper-eq23")
    assert dense_macs(ledger) == 9_751_168
    assert report.ann_twin_energy_pj == Decimal("4.6") * 9_751_168 * ledger.images
    assert price(ledger, "odin2019").ann_twin_energy_pj is None


def test_unpriced_work_is_named(ledger: Ledger) -> None:
    unpriced = price(ledger, "paper-eq23").unpriced
    assert unpriced["bias_adds"] == ledger.total("bias_adds") > 0
    assert unpriced["neuron_updates_driven"] == ledger.total("neuron_updates_driven") > 0
    assert unpriced["weight_bytes"] > 0
    assert "ac_unary" not in unpriced
    assert "mac" in price(ledger, "loihi2018-presilicon").unpriced
    assert not {"weight_bytes", "state_bytes", "resets"} & set(price(ledger, "truenorth2014-allin").unpriced)


def test_first_layer_of_event_frames_is_additions() -> None:
    first = record(
        input_kinds=("count",),
        counts=counts(events_in_unary=10, events_in_graded=4, ac_unary=50, ac_graded=30),
    )
    report = price(ledger_of(first, encoding="frames"), "paper-eq23")
    assert report.total_energy_pj == Decimal("0.9") * 100  # 10 / (9 x 4) x 4 x 90
    assert any("reads event counts" in a and "AC" in a for a in report.assumptions)
    image = price(ledger_of(record(input_kinds=("real",), timing="constant", counts=counts(mac=60))), "paper-eq23")
    assert image.total_energy_pj == Decimal("4.6") * 90
    assert any("MAC once per image" in a for a in image.assumptions)


def test_rate_times_dense_rounds_to_whole_operations() -> None:
    layers = [record(dense_macs=5, counts=counts(events_in_unary=n, ac_unary=n)) for n in (1, 2, 3)]
    found = [QUANTITIES["sop_rate"].count(layer, ledger_of(layer)) for layer in layers]
    assert found == [(1,), (1,), (2,)]  # 5/9, 10/9, 15/9


def test_totals_beyond_53_bits_are_exact() -> None:
    huge = 2**62 + 1
    report = price(ledger_of(*[record(str(i), counts=counts(ac_unary=huge)) for i in range(9)]), "exact-fp32")
    assert report.total_energy_pj == Decimal(9 * huge) * Decimal("0.9") == exact_product(9 * huge, Decimal("0.9"))


def test_sram_price_follows_the_buffer() -> None:
    small = record("small", parameters=8192, counts=counts(ac_graded=10, ac_unary=10, weight_bytes=10))
    large = replace(small, name="large", parameters=8193)
    report = price(ledger_of(small, large), "horowitz45-sram")
    by_layer = {row.layer: row.energy_by_quantity_pj["weight_bytes"] for row in report.layers}
    assert by_layer == {"small": Decimal("12.5"), "large": Decimal("25")}


def test_energy_does_not_depend_on_the_order_of_images(ledger: Ledger) -> None:
    turned = tuple(replace(r, counts={k: v[::-1] for k, v in r.counts.items()}) for r in ledger.layers)
    a, b = price(ledger, "exact-fp32"), price(replace(ledger, layers=turned), "exact-fp32")
    assert a.total_energy_pj == b.total_energy_pj
    assert a.energy_per_image_pj == b.energy_per_image_pj[::-1]
    assert a.sd_energy_pj == pytest.approx(np.std([float(e) for e in a.energy_per_image_pj], ddof=1), rel=1e-12)


def test_a_profile_object_and_its_name_give_the_same(ledger: Ledger) -> None:
    assert price(ledger, load_profile("exact-fp32")) == price(ledger, "exact-fp32")


@pytest.mark.parametrize("largest", [1, 10**4, 2**40, 2**62])
def test_many_images_are_priced_as_exactly_as_one(largest: int) -> None:
    """int64 where it holds the numbers, Python integers beyond: the same as fractions one by one."""
    rng = np.random.default_rng(largest % 997)
    images = 7

    def drawn() -> np.ndarray:
        return np.append(rng.integers(0, largest, images - 2, endpoint=True), [0, largest]).astype(np.int64)

    classes = ("events_in_unary", "events_in_graded", "ac_unary", "ac_graded", "weight_bytes", "state_bytes")
    layers = [record(f"layer{i}", dense_macs=90 + 7 * i, counts={name: drawn() for name in classes}) for i in range(3)]
    together = ledger_of(*layers, images=images)
    for name in ("paper-eq23", "exact-fp32", "horowitz45-int8"):
        whole = price(together, name)
        for image in range(images):
            one = [
                replace(layer, counts={k: v[image : image + 1] for k, v in layer.counts.items()}) for layer in layers
            ]
            alone = price(ledger_of(*one), name)
            assert whole.energy_per_image_pj[image] == alone.total_energy_pj
        for layer, row in zip(layers, whole.layers, strict=True):
            factor = Fraction(layer.dense_macs, 9)
            rates = [int(n) * factor + Fraction(1, 2) for n in layer.counts["events_in_unary"].tolist()]
            assert row.sops_rate == sum(rate.numerator // rate.denominator for rate in rates)
            assert row.sops_exact == sum(layer.counts["ac_unary"].tolist())
        assert sum(Fraction(e) for e in whole.energy_per_image_pj) == Fraction(whole.total_energy_pj)
        each = [Fraction(e) for e in whole.energy_per_image_pj]
        mean = sum(each) / images
        expected = float(sum((e - mean) ** 2 for e in each) / (images - 1)) ** 0.5
        assert whole.sd_energy_pj == pytest.approx(expected, rel=1e-12)
