"""A file of several runs: its table, its curve, its page, and commands that take one of its points or all."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from netbuild import random_pixels, small_transformer
from test_page import Outline

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.errors import UsageError
from qkf_deploy.report.charts import accuracy_over_energy
from qkf_deploy.report.sweep_page import render_sweep, render_sweep_page
from qkf_deploy.runs import store
from qkf_deploy.runs.content import About, head, rows

POINTS = [(steps, bits) for steps in (1, 4) for bits in (3, 8)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two T with two widths of the small network, on eight images."""
    path = tmp_path_factory.mktemp("sweep") / "sweep.sqlite"
    pixels, labels = random_pixels(2, (3, 9, 7), 8), np.array([0, 1, 2, 3, 0, 1, 2, -1])
    heads, found = [], []
    for steps, bits in POINTS:
        graph = qd.quantize(qd.with_time_steps(small_transformer(1), steps), bits)
        run = qd.simulate(graph, pixels, engine="reference")
        config = {"name": f"T={steps} bits={bits}", "steps": steps, "bits": bits, "made_with_steps": 4}
        heads.append(head(graph, "digest", 8, config))
        found.append(rows(run, About(labels=labels)))
    found[3] = found[3][:6]
    store.write(path, heads, found)
    return path


def test_a_row_per_point(file: Path) -> None:
    runs = qd.load_runs(file)
    found = qd.summarize_sweep(runs, "exact-fp32")
    assert [point.name for point in found.points] == list(runs) == [f"T={t} bits={b}" for t, b in POINTS]
    assert [(point.time_steps, point.bits[0]) for point in found.points] == POINTS
    for point, run in zip(found.points, runs.values(), strict=True):
        assert point.energy_pj.mean == qd.price(run.ledger, "exact-fp32").mean_energy_pj
        assert point.accuracy is not None
        assert point.accuracy.hits == sum(a == b for a, b in zip(run.labels, run.predictions, strict=True))
    assert found.sentences == (
        "T=4 bits=8: partial, 6 of 8 samples",
        "the network was made with T = 4: its weights and batch norms were fitted to that, and accuracy at T = 1 is "
        "what it is, not what training at that T would give",
    )
    data = json.loads(render_sweep(found, "json"))
    records = list(csv.DictReader(io.StringIO(render_sweep(found, "csv"))))
    assert [r["run"] for r in records] == [p["run"] for p in data["points"]]
    assert [float(r["energy_per_image_pj"]) for r in records] == [p["energy_per_image_pj"] for p in data["points"]]
    assert "what it is, not what training" in render_sweep(found)
    assert repr(found) == "<Sweep: 4 points of a sweep>"
    assert list(found.to_pandas()["time_steps"]) == [1, 1, 4, 4]
    with pytest.raises(UsageError, match="a sweep of no points"):
        qd.summarize_sweep({})


def test_the_curve_has_the_numbers(file: Path) -> None:
    found = qd.summarize_sweep(qd.load_runs(file))
    chart = accuracy_over_energy(found.points, found.profile)
    assert chart is not None
    assert chart.groups == (("T = 1", 0), ("T = 4", 1))
    assert len(chart.rows) == 4
    for point, row in zip(found.points, chart.rows, strict=True):
        assert point.accuracy is not None
        assert point.accuracy.interval is not None
        assert row["energy_pj"] == float(point.energy_pj.mean)
        assert row["accuracy"] == float(point.accuracy.value or 0)
        assert (row["accuracy_low"], row["accuracy_high"]) == (
            point.accuracy.interval.low,
            point.accuracy.interval.high,
        )
        assert (row["run"], row["T"], row["label"]) == (point.name, f"T = {point.time_steps}", str(point.bits[0]))
    assert accuracy_over_energy([], "exact-fp32") is None


def test_a_point_without_a_result_is_named_and_the_others_shown(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two points of four, then one, then none."""
    with store.Store.open(file) as held:
        heads = held.runs
        found = [list(held.rows(number)) for number in range(4)]
    failed = [replace(row, error="cannot be read", counts=b"") for row in found[0]]
    for filled, said in (([failed, *found[1:2], [], found[3]], 2), ([[], [], [], found[3]], 3)):
        path = tmp_path / f"{said}.sqlite"
        store.write(path, heads, filled)
        page = tmp_path / f"{said}.html"
        assert command(["report", str(path), "-o", str(page)]) == 0
        assert page.read_text().count("no sample has a result yet, left out") == said
        runs = qd.load_runs(path)
        assert [*runs, *runs.left_out] != [head.name for head in heads]
        assert {*runs, *runs.left_out} == {head.name for head in heads}
    assert command(["compare", str(tmp_path / "2.sqlite")]) == 0
    assert "T=1 bits=3: no sample has a result yet, left out" in capsys.readouterr().out
    store.write(tmp_path / "none.sqlite", heads, [[]] * 4)
    assert command(["report", str(tmp_path / "none.sqlite"), "-o", str(tmp_path / "none.html")]) == 3
    assert not (tmp_path / "none.html").exists()


def test_the_page_is_whole_and_repeatable(file: Path, tmp_path: Path) -> None:
    runs = qd.load_runs(file)
    page = render_sweep_page(qd.summarize_sweep(runs))
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert all(a.startswith("#") for a in outline.addresses)
    assert {a[1:] for a in outline.addresses} <= set(outline.ids)
    assert "default-src 'none'" in page
    for name in runs:
        assert name in page
    assert "what it is, not what training" in page
    assert page.count('"run":') == 4
    qd.write_sweep_report(runs, tmp_path / "sweep.html")
    assert (tmp_path / "sweep.html").read_text() == page


def test_commands_take_a_point_or_list_them(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(["report", str(file), "-o", "sweep.html", "--profile", "exact-fp32"]) == 0
    assert "energy by exact-fp32" in Path("sweep.html").read_text()
    assert command(["report", str(file), "--point", "T=1 bits=8", "-o", "point.html"]) == 0
    assert "T = 1" in Path("point.html").read_text()
    capsys.readouterr()
    assert command(["energy", str(file), "--point", "1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["reports"][0]["time_steps"] == 1
    assert command(["energy", str(file)]) == 2
    error = capsys.readouterr().err
    assert "holds 4 runs" in error
    assert "1: T=1 bits=8" in error
    assert command(["compare", str(file), "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [d["paired_samples"] for d in data["differences"]] == [8, 8, 6]
    assert command(["compare", str(file), str(file)]) == 2
    assert "is given twice" in capsys.readouterr().err
