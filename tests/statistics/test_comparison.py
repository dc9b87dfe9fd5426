"""Runs side by side: pairs, flips and tests against arithmetic in plain Python; what is not paired says so."""

from __future__ import annotations

import csv
import io
import json
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from netbuild import random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.errors import UsageError
from qkf_deploy.report.evaluation_table import render_comparison
from qkf_deploy.statistics.measures import difference_interval, mcnemar, phi, wilson


def test_runs_of_one_data_set_are_paired(make_run, labels) -> None:
    runs = {"a": make_run(8, labels=labels), "b": make_run(2, labels=labels)}
    found = qd.compare_runs(runs, "exact-fp32")
    a, b = runs.values()
    (difference,) = found.differences
    assert difference.paired == 12
    assert difference.flips is not None
    assert difference.flips.changed == sum(x != y for x, y in zip(a.predictions, b.predictions, strict=True)) > 0
    right = [[p == la for p, la in zip(r.predictions, labels, strict=True) if la is not None] for r in (a, b)]
    lost, won = (sum(x and not y for x, y in zip(*pair, strict=True)) for pair in (right, right[::-1]))
    assert difference.test == mcnemar(lost, won)
    pairs = list(zip(*right, strict=True))
    counts = [pairs.count(pair) for pair in product((True, False), repeat=2)]
    shares = [(sum(r) / 11, wilson(sum(r), 11)) for r in right]
    assert difference.accuracy_interval == difference_interval(*shares, phi(*counts))
    assert difference.accuracy == Fraction(won - lost, 11) == Fraction(sum(right[1]) - sum(right[0]), 11)
    energies = [[Fraction(e) for e in qd.price(r.ledger, "exact-fp32").energy_per_image_pj] for r in (a, b)]
    each = [y - x for x, y in zip(*energies, strict=True)]
    assert difference.energy_pj.difference.mean == sum(each, Fraction(0)) / 12
    assert difference.energy_pj.difference.sd == pytest.approx(np.std([float(e) for e in each], ddof=1), rel=1e-9)
    assert difference.energy_pj.relative == sum(each, Fraction(0)) / sum(energies[0], Fraction(0))
    assert found.sides[1].bits == (2, 8)
    assert found.sides[0].weight_bytes > found.sides[1].weight_bytes
    assert found.sides[0].state_bytes == sum(row.state_size for row in qd.movement(a.ledger))


def test_only_what_both_have_is_compared(make_run, labels) -> None:
    a = make_run(8, labels=labels, left_out=(0, 1), failed={4: "bad"}, samples=14)
    b = make_run(2, labels=labels, left_out=(11,), failed={7: "bad"}, samples=14)
    (difference,) = qd.compare_runs({"a": a, "b": b}).differences
    assert difference.paired == 9
    assert difference.flips is not None
    assert difference.flips.samples == 9
    ran = [i for i in range(2, 11) if i not in (4, 7)]
    energies = {
        name: dict(
            zip([i for i in r.indices if i not in r.errors], qd.price(r.ledger).energy_per_image_pj, strict=True)
        )
        for name, r in (("a", a), ("b", b))
    }
    each = [Fraction(energies["b"][i]) - Fraction(energies["a"][i]) for i in ran]
    assert difference.energy_pj.difference.mean == sum(each, Fraction(0)) / len(ran)


def test_no_image_in_common(make_run, labels) -> None:
    a = make_run(8, labels=labels, left_out=tuple(range(6)))
    b = make_run(2, labels=labels, left_out=tuple(range(6, 12)))
    (difference,) = qd.compare_runs({"a": a, "b": b}).differences
    assert (difference.paired, difference.flips, difference.test) == (0, None, None)
    energies = [(float(s.energy_pj.mean), s.energy_pj.interval) for s in qd.compare_runs({"a": a, "b": b}).sides]
    assert difference.energy_pj.difference.interval == difference_interval(*energies)  # other images: independent
    assert difference.energy_pj.difference.sd is None


@pytest.mark.parametrize(("first", "other"), [("x", "y"), ("", "")])
def test_other_or_unknown_data_are_not_paired(make_run, labels, first: str, other: str) -> None:
    a, b = make_run(8, labels=labels, data=first), make_run(2, labels=labels, data=other)
    found = qd.compare_runs({"a": a, "b": b})
    (difference,) = found.differences
    assert (difference.paired, difference.flips, difference.test) == (None, None, None)
    assert difference.energy_pj.difference.sd is None
    assert difference.accuracy is not None
    shares = [(s.accuracy.value, s.accuracy.interval) for s in found.sides]
    assert difference.accuracy_interval == difference_interval(*shares)
    assert found.sentences == ("b: not known to be of the same data set; not paired, no test",)
    assert "  no  " in render_comparison(found)


def test_runs_without_labels_tell_counts(make_run) -> None:
    found = qd.compare_runs({"float": make_run(0), "eight": make_run(8)})
    assert [side.accuracy for side in found.sides] == [None, None]
    assert (found.sides[0].bits, found.differences[0].accuracy) == ((), None)
    assert found.differences[0].energy_pj.difference.interval is not None
    with pytest.raises(UsageError, match="two runs or more"):
        qd.compare_runs({"a": make_run(8)})


def test_conventions_stand_side_by_side(make_run, labels) -> None:
    """Every run under every profile, each against the first run under the same one."""
    runs = {"a": make_run(8, labels=labels), "b": make_run(2, labels=labels)}
    profiles = ("paper-eq23", "horowitz45-sram")
    found = qd.compare_runs(runs, profiles)
    assert [(c.run, c.profile) for c in found.conventions] == [(r, p) for r in runs for p in profiles]
    for row in found.conventions:
        means = {p: qd.price(runs[row.run].ledger, p).mean_energy_pj for p in profiles}
        assert row.energy_pj.mean == means[row.profile]
        assert row.relative == Fraction(means[row.profile]) / means["paper-eq23"]
        alone = qd.compare_runs(runs, row.profile)
        assert row.change == (alone.differences[0].energy_pj if row.run == "b" else None)
        assert alone.conventions == ()
    data = json.loads(render_comparison(found, "json"))
    rows = list(csv.DictReader(io.StringIO(render_comparison(found, "csv"))))
    assert [float(r["energy_per_image_pj"]) for r in rows] == [r["energy_per_image_pj"] for r in data["conventions"]]
    assert "Conventions side by side" in render_comparison(found, "latex")
    single = qd.compare_runs({"a": runs["a"]}, profiles)
    assert len(single.conventions) == 2
    assert "Differences" not in render_comparison(single)
    with pytest.raises(UsageError, match="no profile"):
        qd.compare_runs(runs, [])


def test_formats_and_partial_runs(make_run, labels) -> None:
    runs = {"a": make_run(8, labels=labels), "b": make_run(2, labels=labels, left_out=(3,)), "c": make_run(0, data="?")}
    found = qd.compare_runs(runs)
    data = json.loads(render_comparison(found, "json"))
    rows = list(csv.DictReader(io.StringIO(render_comparison(found, "csv"))))
    assert [r["run"] for r in rows] == [r["run"] for r in data["runs"]] == ["a", "b", "c"]
    assert rows[0]["paired_samples"] == rows[2]["paired_samples"] == ""
    assert float(rows[1]["mcnemar_mid_p"]) == data["differences"][0]["mcnemar_mid_p"]
    assert data["notes"][0] == "b: partial, 11 of 12 samples"
    for fmt in ("table", "md"):
        assert "Differences from a" in render_comparison(found, fmt)
    assert repr(found) == "<RunComparison: 3 runs; energy by paper-eq23>"
    assert list(found.to_pandas()["run"]) == ["a", "b", "c"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = random_pixels(0, (3, 9, 7), 6)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(6) % 4)
    for bits in (8, 3):
        qd.save(qd.quantize(small_transformer(1), bits), tmp_path / f"{bits}.qkf")
        arguments = [str(tmp_path / f"{bits}.qkf"), str(tmp_path / "data.npz"), "-o", str(tmp_path / f"{bits}.sqlite")]
        assert command(["simulate", *arguments]) == 0
    runs = [str(tmp_path / "8.sqlite"), str(tmp_path / "3.sqlite")]
    capsys.readouterr()
    assert command(["compare", *runs, "--profile", "exact-fp32", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["profile"], data["differences"][0]["paired_samples"]) == ("exact-fp32", 6)
    for wrong, code, text in (
        ([runs[0]], 2, "a comparison needs two runs or more"),
        ([runs[0], runs[0]], 2, "is given twice"),
        ([runs[0], str(tmp_path / "absent.sqlite")], 3, "absent.sqlite"),
        ([runs[0], str(tmp_path / "8.qkf")], 3, "8.qkf"),
        ([*runs, "--profile", "nonsense"], 2, "nonsense"),
        ([], 2, "Missing argument"),
    ):
        assert command(["compare", *wrong]) == code
        assert text in capsys.readouterr().err
