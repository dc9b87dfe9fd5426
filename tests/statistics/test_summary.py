"""One run as an evaluation: against arithmetic on the ledger, image by image, in plain Python."""

from __future__ import annotations

import csv
import io
import json
import statistics
from dataclasses import replace
from fractions import Fraction

import pytest

import qkf_deploy as qd
from qkf_deploy.errors import UsageError
from qkf_deploy.report.evaluation_table import render_evaluation
from qkf_deploy.runs.content import About, RunFile, stored
from qkf_deploy.statistics.measures import Share, bootstrap_mean
from qkf_deploy.statistics.summary import Spread
from qkf_deploy.statistics.summary_tables import class_sheet

PROFILES = ("exact-fp32", "horowitz45-sram")


def _same(found: Spread, values: list[Fraction]) -> None:
    assert found.mean == sum(values, Fraction(0)) / len(values)
    assert found.sd == pytest.approx(statistics.stdev(map(float, values)), rel=1e-9, abs=1e-9)


def test_rates_operations_and_energy_are_those_of_the_images(make_run) -> None:
    run = make_run(8)
    ledger, found = run.ledger, qd.summarize(run, PROFILES)
    reports = {name: qd.price(ledger, name) for name in PROFILES}
    for name, report in reports.items():
        _same(found.energy_pj[name], [Fraction(e) for e in report.energy_per_image_pj])
        assert found.energy_pj[name].mean == report.mean_energy_pj
        assert found.energy_pj[name].interval == bootstrap_mean([float(e) for e in report.energy_per_image_pj])
    work = ("ac_unary", "attention_sum_adds_unary", "coincidences_unary")
    sops = [sum(int(la.counts[c][i]) for la in ledger for c in work if c in la.counts) for i in range(ledger.images)]
    _same(found.sops, [Fraction(n) for n in sops])
    assert found.sops.mean * ledger.images == sum(row.sops_exact for row in reports["exact-fp32"].layers)
    _same(found.spikes, [Fraction(sum(int(la.counts["resets"][i]) for la in ledger if "resets" in la.counts))
                         for i in range(ledger.images)])  # fmt: skip
    neurons = [la for la in ledger if la.op == "integer_neuron"]
    places = sum(la.output_size for la in neurons) * ledger.time_steps
    _same(found.firing_rate, [Fraction(sum(int(la.counts["resets"][i]) for la in neurons), places)
                              for i in range(ledger.images)])  # fmt: skip
    rates = 0
    for row, energy, layer in zip(found.layers, reports["exact-fp32"].layers, ledger, strict=True):
        _same(row.energy_pj, [Fraction(e) for e in energy.energy_per_image_pj])
        assert (row.layer, row.type, row.share) == (layer.name, layer.op, energy.share)
        assert row.sops.mean * ledger.images == energy.sops_exact
        assert (row.firing_rate_in and row.firing_rate_in.mean) == energy.firing_rate_in
        if row.firing_rate_out is not None:
            elements = layer.output_size * ledger.time_steps
            _same(row.firing_rate_out, [Fraction(int(n), elements) for n in layer.counts["resets"]])
            rates += 1
    assert rates == sum(layer.op == "integer_neuron" for layer in ledger)
    assert sum(row.energy_pj.mean for row in found.layers) == found.energy_pj["exact-fp32"].mean


def test_failed_and_missing_samples(make_run, labels) -> None:
    whole = qd.summarize(make_run(8, labels=labels))
    assert whole.accuracy is not None
    assert (whole.accuracy.top1, whole.accuracy.unlabelled) == (Share.of(7, 11), 1)
    assert whole.accuracy.top5 is None  # there are four classes
    assert (whole.complete, whole.sentences) == (True, ("1 sample without a known label, left out of accuracy",))

    run = make_run(8, labels=labels, failed={1: "truncated", 2: "truncated"}, left_out=(5,), samples=20)
    found = qd.summarize(run)
    assert found.accuracy is not None
    assert (found.samples, found.done, found.complete) == (20, 11, False)
    assert found.accuracy.top1 == Share.of(4, 10)  # two that were right failed, one is missing
    assert sum(s.n for s in found.accuracy.classes.values()) == 10
    assert sum(c.count for c in found.accuracy.confusions) == 6
    assert sum(c.count for c in found.accuracy.confusions if c.predicted is None) == 2
    assert found.sentences == (
        "partial: 11 of 20 samples so far, and all numbers of those",
        "2 samples failed, counted as wrong; the first is 1: truncated",
        "1 sample without a known label, left out of accuracy",
    )
    assert found.sops.mean == Fraction(sum(int(n) for n in _sops(run)), 9)


def _sops(run: RunFile) -> list[int]:
    return [row.sops_exact for row in qd.price(run.ledger, "exact-fp32").layers]


def test_without_labels_there_is_no_accuracy(make_run) -> None:
    found = qd.summarize(make_run(8))
    assert found.accuracy is None
    assert "accuracy" not in render_evaluation(found)
    assert qd.summarize(make_run(8, failed={1: "truncated"})).sentences == (
        "1 sample failed; the first is 1: truncated",
    )
    silent = replace(make_run(8, labels=(0,) * 12), top=((),) * 12, predictions=(None,) * 12)
    assert qd.summarize(silent).accuracy is None  # its output is not one number per class


def test_top_five_needs_more_than_five_classes(digits_int8: qd.Graph, digits_data) -> None:
    run = qd.simulate(digits_int8, digits_data.test_images[:9])
    found = qd.summarize(stored(digits_int8, run, About(labels=digits_data.test_labels[:9])))
    assert found.accuracy is not None
    order = (-run.class_logits).argsort(axis=-1, kind="stable")[:, :5]
    near = sum(label in row for label, row in zip(digits_data.test_labels, order, strict=False))
    assert found.accuracy.top5 == Share.of(near, 9)


def test_every_format_has_the_same_numbers(make_run, labels) -> None:
    found = qd.summarize(make_run(8, labels=labels, failed={1: "bad | file"}), PROFILES)
    data = json.loads(render_evaluation(found, "json"))
    rows = list(csv.DictReader(io.StringIO(render_evaluation(found, "csv"))))
    totals = {(r["quantity"], r["name"]): r for r in rows if r["part"] == "total"}
    assert len(totals) == len(data["totals"]) == 6
    assert (data["arithmetic"], data["time_steps"], data["bits"]) == ("integer", found.time_steps, [8])
    assert (data["network"], data["data"]) == (found.network, found.data)
    for line in data["totals"]:
        row = totals[line["quantity"], line["profile"]]
        for key in ("value", "sd", "low", "high"):
            assert row[key] == ("" if line[key] is None else repr(float(line[key])))
    layers = [r for r in rows if r["part"] == "layer" and r["quantity"] == "energy_per_image_pj"]
    assert [float(r["value"]) for r in layers] == [row["energy_per_image_pj"] for row in data["layers"]]
    assert {r["name"]: float(r["value"]) for r in rows if r["part"] == "class"} == {
        r["class"]: r["accuracy"] for r in data["classes"]
    }
    wrong = [(r["name"], r["answer"], int(r["value"])) for r in rows if r["part"] == "confusion"]
    assert wrong == [(r["class"], r["answer"], r["samples"]) for r in data["confusions"]]
    assert data["failed"] == [{"sample": 1, "error": "bad | file"}]
    for fmt in ("table", "md"):
        text = render_evaluation(found, fmt)
        parts = ("top-1 accuracy", "6 of 11", "54.55 %", "(failed)", found.name_of(labels[0]), "horowitz45-sram")
        for part in (*parts, "integer network, 8 bits, T = ", "Wrong answers", "1 sample failed, counted as wrong"):
            assert part in text, (fmt, part)
    with pytest.raises(UsageError, match="no format 'xml'"):
        render_evaluation(found, "xml")  # type: ignore[arg-type]


def test_many_classes_are_shown_by_the_worst(make_run) -> None:
    found = qd.summarize(make_run(8, labels=(0,) * 12))
    assert found.accuracy is not None
    many = replace(found.accuracy, classes={i: Share.of(i, 40) for i in range(40)})
    sheet = class_sheet(replace(found, accuracy=many), every=False)
    assert [row[0] for row in sheet.rows] == [found.name_of(i) for i in range(20)]
    assert sheet.title == "Accuracy by class: 20 of 40 classes, those least often right"
    assert len(class_sheet(replace(found, accuracy=many)).rows) == 40


def test_it_explains_itself(make_run, labels) -> None:
    found = qd.summarize(make_run(8, labels=labels))
    assert repr(found) == "<Evaluation: Evaluation of 12 of 12 samples>"
    assert "energy / image" in str(found)
    assert len(str(found).splitlines()) < 20
    frame = found.to_pandas()
    assert list(frame["layer"]) == [row.layer for row in found.layers]
    assert frame["energy_per_image_pj"].sum() == pytest.approx(float(found.energy_pj["paper-eq23"].mean))
