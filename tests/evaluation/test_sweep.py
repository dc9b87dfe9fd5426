"""Sweeps over T and bits: every point is the network evaluated by itself; resumed, repeated and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluations import rows
from netbuild import random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.cli.evaluate import _say_if_crowded
from qkf_deploy.errors import InputError, UnsupportedError, UsageError
from qkf_deploy.evaluation.sweep import Point, points
from qkf_deploy.report.sweep_page import render_sweep, render_sweep_page
from qkf_deploy.runs.content import rows as made_rows
from qkf_deploy.runs.packing import same
from qkf_deploy.runs.store import Row, Store

IMAGES = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    qd.save(small_transformer(1), folder / "net.qkf")
    np.savez(folder / "data.npz", images=random_pixels(4, (3, 9, 7), IMAGES), labels=np.arange(IMAGES) % 4)
    return folder


def sweep(folder: Path, name: str, **options) -> Path:
    qd.evaluate(folder / "net.qkf", folder / "data.npz", folder / name, steps=(1, 4), bits=(8, 3), **options)
    return folder / name


def stored(path: Path) -> list[list[Row]]:
    with Store.open(path) as held:
        return [list(held.rows(number)) for number in range(len(held.runs))]


def equal(a: list[list[Row]], b: list[list[Row]]) -> bool:
    """The same rows; what is compressed is compared as numbers."""
    pairs = [pair for runs in zip(a, b, strict=True) for pair in zip(*runs, strict=True)]
    return all(same(x.counts, y.counts) and {**vars(x), "counts": b""} == {**vars(y), "counts": b""} for x, y in pairs)


def test_every_point_is_the_network_by_itself(folder: Path) -> None:
    path = sweep(folder, "whole.sqlite")
    found = stored(path)
    runs = qd.load_runs(path)
    assert list(runs) == ["T=1 bits=8", "T=1 bits=3", "T=4 bits=8", "T=4 bits=3"]
    pixels = np.load(folder / "data.npz")["images"]
    for (steps, bits), own, run in zip([(1, 8), (1, 3), (4, 8), (4, 3)], found, runs.values(), strict=True):
        graph = qd.quantize(qd.with_time_steps(qd.load(folder / "net.qkf"), steps), bits)
        alone = made_rows(qd.simulate(graph, pixels, engine="reference"))
        assert [(r.index, r.prediction, r.top) for r in own] == [(r.index, r.prediction, r.top) for r in alone]
        assert all(same(a.counts, b.counts) for a, b in zip(own, alone, strict=True))
        run.check_network(graph)
        assert (run.ledger.time_steps, run.complete) == (steps, True)
    assert qd.summarize_sweep(runs).made_with == 4


def test_two_processes_give_the_sweep_that_one_does(folder: Path) -> None:
    alone, together = sweep(folder, "alone.sqlite", shard=4), sweep(folder, "together.sqlite", shard=3, jobs=2)
    assert equal(stored(alone), stored(together))
    tables = [render_sweep(qd.summarize_sweep(qd.load_runs(path)), "json") for path in (alone, together)]
    assert tables[0] == tables[1]


def test_points_stand_once() -> None:
    assert points(None, None) == (Point(),)
    assert points((2, 1, 2), 8) == (Point(2, 8), Point(1, 8))
    assert points(4, None) == (Point(4),)
    assert Point().config(4) == {}
    assert Point(None, 8).config(4)["name"] == "T=4 bits=8"
    assert Point(2).config(4)["name"] == "T=2 float"


def test_over_t_alone_the_network_stays_float(folder: Path) -> None:
    qd.evaluate(folder / "net.qkf", folder / "data.npz", folder / "float.sqlite", steps=(2, 4))
    assert [run.ledger.arithmetic for run in qd.load_runs(folder / "float.sqlite").values()] == ["float", "float"]


def test_resumed_wherever_it_stopped(folder: Path) -> None:
    """Stopped after each shard in turn: the rows, the table and the page are those of an undisturbed sweep."""
    whole = sweep(folder, "undisturbed.sqlite", shard=4)
    texts = [(render_sweep(s, "json"), render_sweep(s)) for s in [qd.summarize_sweep(qd.load_runs(whole))]]

    class Stop(Exception):
        pass

    for stop in (1, 4, 8):
        path, seen = folder / f"stopped{stop}.sqlite", []

        def tick(tally, seen=seen, stop=stop) -> None:
            seen.append(tally)
            if len(seen) > stop:
                raise Stop

        with pytest.raises(Stop):
            sweep(folder, path.name, shard=4, tick=tick)
        assert seen[-1].samples == 4 * IMAGES
        assert sum(map(len, stored(path))) == seen[-1].stored < 4 * IMAGES
        ended = qd.resume(path, shard=3)
        assert (ended.complete, ended.tally.stored, ended.tally.before) == (True, 40, seen[-1].stored)
        assert equal(stored(path), stored(whole))
        found = qd.summarize_sweep(qd.load_runs(path))
        assert [(render_sweep(found, "json"), render_sweep(found))] == texts


def test_engines_shards_and_repetition_change_no_table(folder: Path) -> None:
    found = [
        stored(sweep(folder, f"{number}.sqlite", **options))
        for number, options in enumerate(({}, {"shard": 3}, {"engine": "reference"}, {"batch": 1}))
    ]
    assert all(equal(found[0], other) for other in found[1:])


def test_what_cannot_be_swept_is_refused_before_anything_is_begun(folder: Path) -> None:
    qd.save(qd.quantize(small_transformer(1), 8), folder / "int.qkf")
    qd.save(small_transformer(0, frames=True), folder / "frames.qkf")
    for network, options, kind, text in (
        ("int.qkf", {"bits": 4}, UsageError, "integer graph already"),
        ("int.qkf", {"steps": 2}, UsageError, "give the float network"),
        ("net.qkf", {"bits": (8, 9)}, UsageError, "9 bits per weight"),
        ("net.qkf", {"steps": (2, 0)}, UsageError, "steps: 0"),
    ):
        with pytest.raises(kind, match=text):
            qd.evaluate(folder / network, folder / "data.npz", folder / "refused.sqlite", **options)
        assert not (folder / "refused.sqlite").exists()
    with pytest.raises(UnsupportedError, match="T is a property of the input"):
        Point(2).network(qd.load(folder / "frames.qkf"))


def test_a_run_that_no_evaluation_began_does_not_go_on(folder: Path) -> None:
    graph = qd.load(folder / "net.qkf")
    run = qd.simulate(graph, np.load(folder / "data.npz")["images"][:2])
    qd.save_run(graph, run, folder / "simulated.sqlite")
    with pytest.raises(UsageError, match="was not begun by `evaluate`"):
        qd.resume(folder / "simulated.sqlite")
    path = sweep(folder, "moved.sqlite")
    qd.save(small_transformer(2), folder / "other.qkf")
    with pytest.raises(InputError, match="not the network of this run"):
        qd.resume(path, network=folder / "other.qkf")


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(folder / "net.qkf"), str(folder / "data.npz"), "-o", str(folder / "cli.sqlite")]
    assert command([*arguments, "--steps", "1,4", "--bits", "8,3"]) == 0
    out = capsys.readouterr().out
    assert "Accuracy and energy by time steps and bits" in out
    assert "accuracy at T = 1 is what it is" in out
    assert command([*arguments[:-1], str(folder / "plain.sqlite"), "--bits", "8"]) == 0
    assert "Evaluation of 10 of 10 samples" in capsys.readouterr().out
    assert command(["evaluate", "--resume", str(folder / "cli.sqlite"), "--format", "json"]) == 0
    assert '"kind": "sweep"' in capsys.readouterr().out
    assert command(["evaluate", "--resume", str(folder / "cli.sqlite"), "--bits", "4"]) == 2
    assert "--bits cannot change" in capsys.readouterr().err
    swept = qd.summarize_sweep(qd.load_runs(folder / "cli.sqlite"))
    page = render_sweep_page(swept)
    with Store.open(folder / "cli.sqlite") as held:
        known = f"data.npz, 10 samples, SHA-256 {held.runs[0].data}"
    assert swept.to_dict()["data_set"] == known
    assert known in page
    assert "Accuracy over energy" in page
    assert len(rows(folder / "plain.sqlite")) == IMAGES


def test_more_threads_than_processors_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    for jobs, threads in ((1, 10**6), (2, None), (10**6, 1)):
        _say_if_crowded(jobs, threads)
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "processes of" in line] == said
    assert len(said) == 1
    assert "1000000 processes of 1 threads" in said[0]
