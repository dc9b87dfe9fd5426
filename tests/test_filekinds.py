"""A file of another kind is called what it is, by every reader, with the way from it to what is wanted."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from netbuild import small_transformer
from safetensors.numpy import save_file

import qkf_deploy as qd
from qkf_deploy.cli import run
from qkf_deploy.filekinds import kind_of

#: Kind -> its file.
FILES = {
    "network": "net.qkf",
    "run": "run.sqlite",
    "checkpoint": "weights.pth",
    "data": "images.npz",
    "hardware result": "chip.json",
    "NIR file": "net.nir",
}
#: Command with {} for the file -> what belongs there, and what must not.
PLACES = {
    ("compare", "run.sqlite", "{}"): ("run", ()),
    ("report", "{}", "-o", "out.html"): ("run", ()),
    ("energy", "{}"): ("run", ("network",)),
    ("evaluate", "--resume", "{}"): ("run", ()),
    ("evaluate", "{}", "images.npz", "-o", "out.sqlite"): ("network", ()),
    ("evaluate", "net.qkf", "{}", "-o", "out.sqlite"): ("data", ("NIR file",)),
    ("inspect", "{}"): ("network", ()),
    ("trace", "{}", "-o", "out.qkf"): ("checkpoint", ()),
    ("finetune", "{}", "--data", "images.npz", "-o", "out.safetensors"): ("checkpoint", ()),
    ("verify", "net.qkf", "images.npz", "--against", "{}"): ("checkpoint", ()),
    ("report", "run.sqlite", "--hardware", "{}", "-o", "out.html"): ("hardware result", ()),
    ("import", "{}", "-o", "out.qkf"): ("NIR file", ()),
    ("energy", "run.sqlite", "--profile", "{}"): ("TOML file", ()),
    ("map", "net.qkf", "--chip", "{}"): ("TOML file", ()),
    ("energy", "--model", "spikingformer-8-512", "--rates", "{}"): ("table", ()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kinds")
    graph = qd.quantize(small_transformer(), 8)
    images = np.random.default_rng(0).integers(0, 256, (2, *graph.input.type.shape), dtype=np.uint8)
    qd.save(graph, place / "net.qkf")
    qd.save_run(graph, qd.simulate(graph, images, engine="reference"), place / "run.sqlite")
    np.savez(place / "images.npz", images=images)
    torch.save({"a.weight": torch.zeros(2, 2)}, place / "weights.pth")
    qd.export_nir(graph, place / "net.nir", "annotated")
    (place / "chip.json").write_text(json.dumps({"kind": "hardware", "chip": "x"}))
    return place


def test_what_files_are(folder: Path, tmp_path: Path) -> None:
    assert {kind_of(folder / name) for name in FILES.values()} == set(FILES)
    for kind, name in FILES.items():
        assert kind_of(folder / name) == kind
    save_file({"w": np.zeros(3)}, tmp_path / "a.safetensors")
    torch.save({"w": torch.zeros(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert {kind_of(tmp_path / name) for name in ("a.safetensors", "old.pth")} == {"checkpoint"}
    np.save(tmp_path / "a.npy", np.zeros(2))
    assert kind_of(tmp_path / "a.npy") == "data"
    (tmp_path / "page.html").write_text("<!DOCTYPE html>\n<html>")
    assert kind_of(tmp_path / "page.html") == "page"


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b"\0" * 200,
            b"PK\x03\x04" + b"x" * 200,
            b"SQLite format 3\0" + b"\0" * 200,
            b'{"kind": "other"}',
            b"[1]",
        ),
        (20).to_bytes(8, "little") + b'{"no json' + b" " * 20,
        b"{" * 5000,
        pickle.dumps({"data": 1}),
    ],
)
def test_what_is_not_known_is_left_to_its_reader(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert kind_of(path) is None


def test_no_file_and_other_archives_have_no_kind(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme", "text")
    assert kind_of(tmp_path / "a.zip") is None
    assert kind_of(tmp_path) is None
    assert kind_of(tmp_path / "missing") is None
    assert kind_of("a\0b") is None


@pytest.mark.parametrize("words", PLACES, ids=" ".join)
def test_every_place_says_what_a_file_is(
    folder: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    wanted, other = PLACES[words]
    before = sorted(folder.iterdir())
    for kind, name in FILES.items():
        if kind == wanted or kind in other:
            continue
        given = [word.format(name) for word in words]
        assert run(given) == 3, given
        err = capsys.readouterr().err
        of = "a data set" if wanted == "data" else f"a {wanted}"
        assert f"error: {name}: is " in err or f"/{name}: is " in err, err
        assert f", not {of}\n  try: " in err
        assert "{}" not in err
    assert sorted(folder.iterdir()) == before


def test_the_way_from_one_to_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    ways = {
        ("compare", "net.qkf"): "qkf-deploy evaluate net.qkf DATA -o run.sqlite",
        ("report", "weights.pth", "-o", "x.html"): "qkf-deploy run weights.pth DATA -o out/",
        ("inspect", "weights.pth"): "qkf-deploy trace weights.pth -o net.qkf",
        ("inspect", "net.nir"): "qkf-deploy import net.nir -o net.qkf",
        ("import", "net.qkf", "-o", "x.qkf"): "qkf-deploy export net.qkf --to nir -o net.nir",
        ("compare", "chip.json"): "qkf-deploy report RUN --hardware chip.json -o report.html",
        (
            "report",
            "run.sqlite",
            "--hardware",
            "net.qkf",
            "-o",
            "x.html",
        ): "qkf-deploy hardware net.qkf DATA --chip CHIP",
    }
    for words, way in ways.items():
        assert run(list(words)) == 3
        assert way in capsys.readouterr().err
