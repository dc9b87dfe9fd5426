"""Tables in four formats."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from qkf_deploy.display.numbers import joules, si
from qkf_deploy.display.tables import Column, Sheet, to_text
from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models import price
from qkf_deploy.hw_models.movement import HOROWITZ_BUFFERS, event_bits, level_for, movement
from qkf_deploy.hw_models.twins import MEMORY_SENTENCE, activation_bits, mixed_regimes, verdict
from qkf_deploy.ledger import LayerRecord, Ledger
from qkf_deploy.report.comparison import render_comparison
from qkf_deploy.report.formats import to_markdown
from qkf_deploy.report.movement_table import movement_sheet
from qkf_deploy.report.tables import render_energy


def test_csv_has_every_digit(ledger: Ledger) -> None:
    report = price(ledger, "paper-eq23")
    rows = list(csv.DictReader(io.StringIO(render_energy(report, "csv"))))
    assert len(rows) == len(report.layers)
    assert sum(Fraction(Decimal(r["energy_pj_sum"])) for r in rows) == Fraction(report.total_energy_pj)
    for row, layer in zip(rows, report.layers, strict=True):
        assert float(row["energy_pj"]) == float(Fraction(layer.energy_pj) / report.images)
    assert rows[0]["profile"] == "paper-eq23"


def test_people_see_layers_totals_unpriced_and_assumptions(ledger: Ledger) -> None:
    report = price(ledger, "paper-eq23")
    for fmt in ("table", "md"):
        text = render_energy(report, fmt)
        for words in (
            "stage3.0.ssa.matmul",
            "total",
            "not priced",
            "bias_adds",
            "assumptions",
            "dense ANN twin",
            "sd over",
        ):
            assert words in text, words
        assert "…" not in text


def test_unknown_format(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="no format 'xml'"):
        render_energy(price(ledger, "paper-eq23"), "xml")


def test_wide_tables_are_never_cut() -> None:
    sheet = Sheet("t", (Column("a", "a", True), Column("b", "b")), (("x" * 400, 1), ("[bold]y[/bold] | z", 2)))
    assert "x" * 400 in to_text(sheet)
    assert "[bold]y[/bold]" in to_text(sheet)
    assert "\\| z" in to_markdown(sheet)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 J"),
        (1, "1 pJ"),
        (999.94, "999.9 pJ"),
        (999.99, "1 nJ"),
        (1500, "1.5 nJ"),
        (4.18e9, "4.18 mJ"),
        (1e12, "1 J"),
        (0.001, "0.001 pJ"),
    ],
)
def test_joules(value: float, text: str) -> None:
    assert joules(value) == text


def test_si() -> None:
    assert [si(v) for v in (0, 12, 1234, 5.8987e9)] == ["0", "12", "1.234 k", "5.899 G"]
    assert [si(v, "J") for v in (0.02, -0.1667, 2e-14)] == ["20 mJ", "-166.7 mJ", "0.02 pJ"]


def test_counts_have_no_milli() -> None:
    assert [si(v) for v in (0.02, Fraction(-1, 6), -3.5, 0.99999, -1500)] == ["0.02", "-0.1667", "-3.5", "1", "-1.5 k"]


def test_comparison_warns_about_mixed_regimes(ledger: Ledger) -> None:
    same = [price(ledger, p) for p in ("paper-eq23", "exact-fp32")]
    mixed = [*same, price(ledger, "odin2019")]
    assert mixed_regimes(same) is None
    warning = mixed_regimes(mixed)
    assert warning is not None
    assert "all-in" in warning
    assert warning in render_comparison(ledger, mixed, "table")
    assert "Not like with like" not in render_comparison(ledger, same, "md")


def test_verdict_by_hand(ledger: Ledger) -> None:
    found = verdict(ledger)
    adds = sum(
        ledger.total(c) for c in ("ac_unary", "coincidences_unary", "attention_sum_adds_unary", "head_adds_unary")
    )
    macs = ledger.total("mac") + ledger.total("head_macs")
    dense = sum(layer.dense_macs for layer in ledger)
    fp32, int8, low = found.twins
    assert fp32.snn_pj == (Fraction("0.9") * adds + Fraction("4.6") * macs) / ledger.images
    assert fp32.twin_pj == Fraction("4.6") * dense
    assert int8.ratio == Fraction("0.3") * dense / ((Fraction("0.1") * adds + Fraction("0.3") * macs) / ledger.images)
    assert low.regime.name == "int8 x 3-bit"
    assert fp32.break_even == Fraction("4.6") / Fraction("0.9")
    exact = sum(layer.border_exact_macs for layer in ledger if "ac_unary" in layer.counts) * ledger.images
    assert found.spikes_per_synapse == Fraction(ledger.total("ac_unary"), exact)
    assert found.firing_rate * 4 == found.spikes_per_synapse


def test_activation_bits_follow_yan() -> None:
    assert [activation_bits(t) for t in (1, 2, 3, 4, 7, 8)] == [1, 2, 2, 3, 3, 4]


def test_with_memory_both_twins_pay_by_one_model(ledger: Ledger) -> None:
    """The spiking side is the memory table's total; the dense side reads a weight per MAC from its level."""
    price_at = {"SRAM 8 KB": Fraction("1.25"), "SRAM 32 KB": Fraction("2.5"), "SRAM 1 MB": Fraction("12.5")}
    rows = {r.layer: r for r in movement(ledger)}
    dense = sum(layer.dense_macs * price_at[rows[layer.name].weight_level] for layer in ledger if layer.weight_bits)
    for twin in verdict(ledger).twins:
        assert twin.snn_memory_pj == sum(r.energy_pj for r in rows.values())
        assert twin.twin_memory_pj == dense  # 8-bit weights: a byte each
        assert twin.ratio_with_memory == (twin.twin_pj + dense) / (twin.snn_pj + twin.snn_memory_pj)
        assert twin.ratio_with_memory != twin.ratio
    for fmt in ("table", "md"):
        text = render_comparison(ledger, [price(ledger, "exact-fp32")], fmt)
        assert "twin / spiking with memory" in text
        assert MEMORY_SENTENCE in text


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (1, "29.7% at T = 1 (8-bit weights); this network"),
        (3, "8.2% at T = 3 (8-bit weights); this network"),
        (4, "8.2% at T = 3 (8-bit weights), 5.7% at T = 5 (4-bit weights); none is published for T = 4, where fetching "
            "8-bit weights alone gives 9.4%"),
        (5, "5.7% at T = 5 (4-bit weights); this network"),
        (10, "5.7% at T = 5 (4-bit weights); none is published for T = 10, where fetching 8-bit weights alone gives "
             "5.0%"),
    ],
)  # fmt: skip
def test_the_rate_of_yan_depends_on_the_steps(ledger: Ledger, steps: int, words: str) -> None:
    found = verdict(replace(ledger, time_steps=steps))
    (sentence,) = (s for s in found.sentences if s.startswith("Yan"))
    assert words in sentence
    assert f"at {float(found.firing_rate):.1%}, is" in sentence


def test_where_a_rate_stands_among_the_thresholds() -> None:
    places = {
        (Fraction(4, 100), 5): "below it", (Fraction(57, 1000), 5): "above it",
        (Fraction(5, 100), 4): "below all of them", (Fraction(8, 100), 4): "between them",
        (Fraction(10, 100), 4): "above all of them",
    }  # fmt: skip
    for (rate, steps), place in places.items():
        assert verdict(ledger_with_rate(rate, steps)).sentences[-1].endswith(f"is {place}.")


def ledger_with_rate(rate: Fraction, steps: int) -> Ledger:
    """One layer of 1000 synapses whose inputs spike at this rate."""
    counts = {"ac_unary": np.array([int(rate * 1000 * steps)])}
    layer = LayerRecord("conv", "conv", ("spike",), (10,), "drive", 100, "step", 1000, 1000, 8, 16, 0, 1000, counts)
    return Ledger(steps, 1, "integer", "direct", (layer,))


def test_movement(ledger: Ledger) -> None:
    rows = movement(ledger)
    assert sum(r.weight_traffic for r in rows) == Fraction(ledger.total("weight_bytes"), ledger.images)
    assert sum(r.state_traffic for r in rows) == Fraction(ledger.total("state_bytes"), ledger.images)
    neuron = ledger["stage1.0.tssa.q_lif"]
    assert event_bits(neuron) == 12  # 4096 addresses, a spike has no value
    wanted = Fraction(12 * neuron.total("events_out_graded"), 8 * ledger.images)
    assert next(r for r in rows if r.layer == neuron.name).event_traffic == wanted
    assert [level_for(n, HOROWITZ_BUFFERS).name for n in (8192, 8193, 32769, 2**20 + 1)] == [
        "SRAM 8 KB", "SRAM 32 KB", "SRAM 1 MB", "DRAM",
    ]  # fmt: skip
    assert "total" in to_text(movement_sheet(rows))
