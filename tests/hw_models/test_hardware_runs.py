"""A stored run in place of images: its own images run again, and nothing else is taken for them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from netbuild import random_pixels, small_transformer
from stored_runs import put_together, taken_apart

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.errors import InputError, UsageError

ENGINE = ("--engine", "reference")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, another one, images, and a run of the first two of three images."""
    folder = tmp_path_factory.mktemp("made")
    for seed, name in ((2, "net.qkf"), (3, "other.qkf")):
        qd.save(qd.quantize(small_transformer(seed)), folder / name)
    np.save(folder / "images.npy", random_pixels(2, (3, 9, 7), 3))
    line = ["simulate", str(folder / "net.qkf"), str(folder / "images.npy"), "--limit", "2", *ENGINE]
    assert command([*line, "-o", str(folder / "run.sqlite")]) == 0
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own, where it may be changed; the run says that the images are there."""
    for name in ("net.qkf", "images.npy"):
        shutil.copy(made / name, tmp_path)
    tables = taken_apart(made / "run.sqlite")
    tables["run"][0]["head"]["config"]["data_path"] = str(tmp_path / "images.npy")
    put_together(tmp_path / "run.sqlite", made / "run.sqlite", tables)
    return tmp_path


def shown(folder: Path, source: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    line = ["hardware", str(folder / "net.qkf"), str(folder / source), *ENGINE, *more]
    assert command([*line, "--no-twin", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("chip", ["fpga-array", "generic-digital"])
def test_a_run_gives_what_its_images_give(made: Path, chip: str, capsys: pytest.CaptureFixture[str]) -> None:
    """From every folder, messages on the mesh included."""
    chosen = ("--chip", chip)
    by_run = shown(made, "run.sqlite", capsys, *chosen)
    assert by_run["images"] == 2
    assert by_run == shown(made, "images.npy", capsys, *chosen, "--limit", "2")
    assert by_run != shown(made, "images.npy", capsys, *chosen, "--limit", "1")
    if chip == "fpga-array":
        first = shown(made, "run.sqlite", capsys, *chosen, "--limit", "1")
        assert first == shown(made, "images.npy", capsys, *chosen, "--limit", "1")


def test_evaluations_are_runs_too(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sample that could not be run is left out, and the user is told."""
    graph = qd.load(made / "net.qkf")
    store = tmp_path / "run.sqlite"
    qd.evaluate(made / "net.qkf", made / "images.npy", store, engine="reference")
    assert qd.load_inputs(store, graph).notices == ()
    tables = taken_apart(store)
    tables["sample"][1] |= {"error": "lost", "counts": "", "prediction": None, "top": []}
    put_together(tmp_path / "less.sqlite", store, tables)
    activity = qd.measure_activity(graph, tmp_path / "less.sqlite", engine="reference")
    images = np.load(made / "images.npy")[[0, 2]]
    assert activity == qd.measure_activity(graph, images, engine="reference")
    line = ["hardware", str(made / "net.qkf"), str(tmp_path / "less.sqlite"), "--chip", "fpga-array", *ENGINE]
    assert command(line) == 0
    assert "1 of 3 samples have no result in the run and are left out" in capsys.readouterr().err


def test_membranes_that_went_from_image_to_image_do_so_again(tmp_path: Path) -> None:
    """The result depends on which images ran together: as in the run, two and one."""
    net = small_transformer(2)
    merged = {n.name: replace(n, op=replace(n.op, time_merged_with_batch=True)) for n in net if n.op.kind == "neuron"}
    graph = qd.carry(qd.quantize(replace(net, nodes={**net.nodes, **merged}).verify()), "official")
    qd.save(graph, tmp_path / "net.qkf")
    pixels, store = random_pixels(2, (3, 9, 7), 3), tmp_path / "run.sqlite"
    np.save(tmp_path / "images.npy", pixels)
    qd.evaluate(tmp_path / "net.qkf", tmp_path / "images.npy", store, engine="reference", batch=2)
    activity = qd.measure_activity(graph, store, engine="reference")
    parts = [qd.measure_activity(graph, part, engine="reference") for part in (pixels[:2], pixels[2:])]
    assert activity == parts[0] + parts[1] != qd.measure_activity(graph, pixels, engine="reference")
    with pytest.raises(UsageError, match="all images of the run belong together"):
        qd.measure_activity(graph, store, engine="reference", limit=2)


def test_another_network_is_refused(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["hardware", str(made / "other.qkf"), str(made / "run.sqlite"), "--chip", "fpga-array", *ENGINE]
    assert command(line) == 3
    assert "the run belongs to another network" in capsys.readouterr().err
    with pytest.raises(InputError, match="another network"):
        qd.measure_network_use(qd.load(made / "other.qkf"), made / "run.sqlite", "generic-digital")


def test_images_that_changed_are_refused(place: Path) -> None:
    graph, store = qd.load(place / "net.qkf"), place / "run.sqlite"
    assert qd.measure_activity(graph, store, engine="reference").images == 2
    np.save(place / "images.npy", random_pixels(7, (3, 9, 7), 3))
    with pytest.raises(InputError, match="not the data of the run"):
        qd.measure_activity(graph, store, engine="reference")
    (place / "images.npy").unlink()
    with pytest.raises(InputError, match="no such file"):
        qd.measure_activity(graph, store, engine="reference")


def test_counts_of_other_images_are_refused(place: Path) -> None:
    """The last word have the counts: a file whose digest was forged gives another sum somewhere."""
    tables = taken_apart(place / "run.sqlite")
    np.save(place / "images.npy", random_pixels(2, (3, 9, 7), 3)[::-1])
    graph = qd.load(place / "net.qkf")
    tables["run"][0]["data"] = qd.load_images(place / "images.npy", graph, limit=2).digest
    put_together(place / "forged.sqlite", place / "run.sqlite", tables)
    for measured in (
        lambda: qd.measure_activity(graph, place / "forged.sqlite", engine="reference"),
        lambda: qd.measure_network_use(graph, place / "forged.sqlite", "generic-digital", engine="reference"),
    ):
        with pytest.raises(InputError, match="do not give the counts of the run"):
            measured()


def test_what_a_run_must_say(place: Path) -> None:
    graph, store = qd.load(place / "net.qkf"), place / "run.sqlite"
    for name, value in (("images_key", "x"), ("labels", "l.csv"), ("resize", False)):
        with pytest.raises(UsageError, match="the run says which images"):
            qd.load_inputs(store, graph, **{name: value})
    with pytest.raises(UsageError, match="these are images"):
        qd.load_inputs(place / "images.npy", graph, point="0")
    with pytest.raises(UsageError, match="holds no run '3'"):
        qd.load_inputs(store, graph, point="3")
    pixels = np.load(place / "images.npy")
    qd.save_run(graph, qd.simulate(graph, pixels, engine="reference"), place / "bare.sqlite")
    with pytest.raises(UsageError, match="does not say where its images are"):
        qd.load_inputs(place / "bare.sqlite", graph)


@pytest.mark.parametrize("change", [
    {"data_path": 3}, {"data_options": None}, {"data_options": {"labels": [1]}}, {"data_options": {"limit": "2"}},
    {"data_options": {"resize": "yes"}}, {"data_options": {"part": []}}, {"batch": "2"}, {"batch": 0}, {"batch": True},
], ids=str)  # fmt: skip
def test_damaged_places(place: Path, change: dict[str, object]) -> None:
    tables = taken_apart(place / "run.sqlite")
    tables["run"][0]["head"]["config"] |= change
    put_together(place / "bad.sqlite", place / "run.sqlite", tables)
    with pytest.raises(InputError, match="damaged run file: how its samples are read"):
        qd.load_inputs(place / "bad.sqlite", qd.load(place / "net.qkf"))
