"""From a checkpoint to a page in one command: what it makes, what it keeps, and how it fails."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wrongfiles
from test_killed import Moment, ended, start

import qkf_deploy as qd
from qkf_deploy.cli import run as command_line
from qkf_deploy.display.numbers import si
from qkf_deploy.errors import MissingComponent, ProfileError, UsageError
from qkf_deploy.ir import Assumption
from qkf_deploy.ir.digest import digest

MADE = {
    *("run.toml", "commands.sh", "made.json", "report.html"),
    *(f"{name}.{ending}" for name in ("float", "8bit", "4bit") for ending in ("qkf", "sqlite")),
}


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A float network, and six images of two classes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, *wrongfiles.SIZE), dtype=np.uint8)
    np.savez("data.npz", images=images, labels=np.arange(6) % 2)
    qd.save(wrongfiles.network(), "net.qkf")
    (tmp_path / "model.py").write_text(wrongfiles.FACTORIES)
    return tmp_path


def made(folder: str = "out", **options: object) -> qd.WholeRun:
    return qd.run("net.qkf", "data.npz", folder, **{"bits": (8, 4), "engine": "reference", **options})


def times(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}


def test_makes_everything(kit: Path) -> None:
    whole = made()
    assert {p.name for p in whole.folder.iterdir()} == MADE
    assert list(whole.runs) == ["float", "8bit", "4bit"]
    for name, bits in (("8bit", 8), ("4bit", 4)):
        graph = qd.quantize(qd.load("net.qkf"), bits)
        assert digest(qd.load(f"out/{name}.qkf")) == digest(graph)
        images = np.load("data.npz")["images"]
        assert whole.runs[name].ledger == qd.simulate(graph, images, engine="reference").ledger
    page = whole.report.read_text()
    hits = sum(p == c for p, c in zip(whole.runs["8bit"].predictions, whole.runs["8bit"].labels, strict=True))
    assert f"answers {hits} of 6 images rightly" in page
    assert "Side by side" in page


def test_the_single_commands_make_the_same(kit: Path) -> None:
    made()
    lines = Path("out/commands.sh").read_text().splitlines()[2:]
    Path("single").mkdir()
    os.chdir("single")
    for words in map(shlex.split, lines):
        if words[0] == "cp":
            Path(words[2]).write_bytes(Path(words[1]).read_bytes())
        else:
            assert command_line(words[1:]) == 0, words
    for name in ("float", "8bit", "4bit"):
        assert Path(f"{name}.qkf").read_bytes() == Path(f"../out/{name}.qkf").read_bytes()
        assert qd.load_run(f"{name}.sqlite").ledger == qd.load_run(f"../out/{name}.sqlite").ledger


def test_does_only_what_has_changed(kit: Path) -> None:
    made()
    before = times(kit / "out")
    told: list[str] = []
    whole = made(stage=told.append)
    assert told == [*(f"evaluating {name}" for name in ("float", "8bit", "4bit")), "writing the page"]
    assert set(whole.unchanged) == {"float.qkf", "8bit.qkf", "4bit.qkf"}
    assert all(outcome.kept for outcome in whole.outcomes.values())
    assert {n: t for n, t in times(kit / "out").items() if n.endswith("qkf")} == {
        n: t for n, t in before.items() if n.endswith("qkf")
    }
    qd.run("net.qkf", "data.npz", "out", bits=(8, 6, 4), engine="reference")
    assert qd.load_run("out/6bit.sqlite").complete
    qd.save(wrongfiles.network(seed=1), "net.qkf")
    whole = made()
    assert whole.unchanged == ()
    assert not any(outcome.kept for outcome in whole.outcomes.values())
    assert whole.runs["8bit"].network == digest(qd.quantize(qd.load("net.qkf"), 8))


def test_what_an_earlier_run_left_is_named(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert made().earlier == ()
    Path("out/8bit.chip.json").write_text("{}")
    assert made(bits=8).earlier == ("4bit.qkf", "4bit.sqlite", "8bit.chip.json")
    assert command_line(["run", "net.qkf", "data.npz", "--bits", "8", "--engine", "reference", "-o", "out"]) == 0
    assert "not on this page: 4bit.qkf, 4bit.sqlite, 8bit.chip.json" in capsys.readouterr().err


def test_other_data_are_evaluated_again(kit: Path) -> None:
    made()
    images = np.load("data.npz")["images"]
    np.savez("data.npz", images=images[::-1], labels=np.arange(6) % 2)
    whole = made()
    assert len(whole.unchanged) == 3
    assert not any(outcome.kept for outcome in whole.outcomes.values())
    assert whole.runs["8bit"].ledger == qd.simulate(qd.load("out/8bit.qkf"), images[::-1], engine="reference").ledger


def test_a_file_changed_by_hand_is_made_again(kit: Path) -> None:
    made()
    right = Path("out/8bit.qkf").read_bytes()
    qd.save(qd.quantize(qd.load("net.qkf"), 3), "out/8bit.qkf")
    assert set(made().unchanged) == {"float.qkf", "4bit.qkf"}
    assert Path("out/8bit.qkf").read_bytes() == right


def test_a_chip_stands_on_the_page(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page and the table show what `hardware` finds on the same images; kept while nothing of it changes."""
    words = ["run", "net.qkf", "data.npz", "--bits", "8,4", "--engine", "reference", "-o", "out"]
    assert command_line([*words, "--chip-images", "3"]) == 2
    assert "no chip" in capsys.readouterr().err
    assert command_line([*words, "--chip", "fpga-array", "--chip-images", "3"]) == 0
    assert "On chips, one image" in capsys.readouterr().out
    assert {p.name for p in Path("out").iterdir()} == MADE | {"8bit.chip.json", "4bit.chip.json"}
    found = json.loads(Path("out/8bit.chip.json").read_text())
    assert (found["chip"], found["images"]) == ("fpga-array", 3)
    command = ["hardware", "out/8bit.qkf", "data.npz", "--chip", "fpga-array", "--limit", "3", "--engine", "reference"]
    assert command_line([*command, "--format", "json"]) == 0
    assert Path("out/8bit.chip.json").read_text() == capsys.readouterr().out
    page = Path("out/report.html").read_text()
    assert page.count("latency of one image on fpga-array") == 1
    assert si(found["latency_ns"] / 1e9, "s") in page
    assert "4bit.chip" in page
    line = next(text for text in Path("out/commands.sh").read_text().splitlines() if " hardware 4bit.qkf" in text)
    assert line.endswith("--chip fpga-array --limit 3 --engine reference --format json > 4bit.chip.json")
    assert "--hardware 8bit.chip.json --hardware 4bit.chip.json" in Path("out/commands.sh").read_text()
    assert qd.read_record("out/run.toml")["chip"] == "fpga-array"
    before = times(kit / "out")
    assert command_line(["run", "out/run.toml"]) == 0
    assert times(kit / "out")["8bit.chip.json"] == before["8bit.chip.json"]
    assert command_line(["run", "out/run.toml", "--chip", "generic-digital"]) == 0
    assert json.loads(Path("out/8bit.chip.json").read_text())["chip"] == "generic-digital"


def test_a_chip_that_does_not_exist_is_found_first(kit: Path) -> None:
    with pytest.raises(UsageError, match="no chip 'fpga-arry'"):
        made(chip="fpga-arry")
    assert not Path("out").exists()


def test_what_is_assumed_is_told_before_the_long_part(kit: Path) -> None:
    given = (Assumption("heads", "4", "the default", "attention", "--heads"),)
    qd.save(replace(wrongfiles.network(), assumptions=given), "net.qkf")
    told: list[str] = []
    made(tell=lambda line: told.append(line), stage=lambda what: told.append(what))
    assumed = qd.load("net.qkf").assumed
    assert len(assumed) == 2
    assert [line for line in told if line in assumed] == list(assumed)
    assert all(told.index(line) < told.index("quantizing to 8 bits") for line in assumed)


def test_record_says_the_same(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(limit=4)
    monkeypatch.chdir("/")
    assert qd.read_record(kit / "out" / "run.toml") == {
        "source": str(kit / "net.qkf"), "data": str(kit / "data.npz"), "output": kit / "out", "bits": (8, 4),
        "engine": "reference", "limit": 4,
    }  # fmt: skip
    before = times(kit / "out")
    assert command_line(["run", str(kit / "out" / "run.toml")]) == 0
    assert times(kit / "out")["float.qkf"] == before["float.qkf"]
    assert command_line(["run", str(kit / "out" / "run.toml"), "--limit", "2", "-o", str(kit / "two")]) == 0
    assert qd.load_run(kit / "two" / "8bit.sqlite").samples == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bit = 8", "unknown key 'bit'"),
        ('limit = "x"', "limit cannot be"),
        ("limit = true", "limit cannot be"),
        ("engine = 3", "engine cannot be"),
        ('part = "valid"', "part"),
        ("bits = [8, 'x']", "bits"),
        ("bits = []", "no bits"),
        ("source = 3", "source must be"),
    ],
)
def test_wrong_records(line: str, said: str, kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = [text for text in ("source = 'net.qkf'", "data = 'data.npz'") if text.split()[0] != line.split()[0]]
    Path("own.toml").write_text("\n".join([*rest, line, ""]))
    assert command_line(["run", "own.toml", "-o", "out"]) in (2, 3)
    error = capsys.readouterr().err
    assert said in error, error
    assert not Path("out").exists()


def test_names_the_line_of_a_wrong_record(kit: Path) -> None:
    Path("own.toml").write_text("source = 'net.qkf'\ndata = 'data.npz'\n\nlimit = 'x'\n")
    with pytest.raises(ProfileError, match=r"own\.toml:4"):
        qd.read_record("own.toml")


def test_refuses(kit: Path) -> None:
    qd.save(qd.quantize(qd.load("net.qkf"), 8), "integer.qkf")
    with pytest.raises(UsageError, match="is an integer network"):
        qd.run("integer.qkf", "data.npz", "out")
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("precious")
    with pytest.raises(qd.QkfError, match="has files that no `run` made"):
        qd.run("net.qkf", "data.npz", "mine")
    with pytest.raises(qd.QkfError):
        qd.run("net.qkf", "nothing.npz", "out")
    with pytest.raises(qd.QkfError):
        qd.run("net.qkf", "data.npz", "out", profiles=("no-such-profile",))
    assert not Path("out").exists()
    assert [p.name for p in Path("mine").iterdir()] == ["thesis.txt"]


def test_without_jinja2_nothing_begins(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "jinja2" else real(name, *rest)
    )
    with pytest.raises(MissingComponent, match="jinja2"):
        made()
    assert not Path("out").exists()


def test_factories_are_traced_again(kit: Path) -> None:
    options = {"image_size": 8, "time_steps": 2, "engine": "reference", "bits": 8}
    for _ in range(2):
        whole = qd.run("model.py:small", "data.npz", "out", **options)
    assert "float.qkf" not in whole.unchanged


@pytest.mark.parametrize("point", [3, 9, 17])
def test_goes_on_after_a_kill(point: int, kit: Path) -> None:
    words = ["run", "net.qkf", "data.npz", "--bits", "8,4", "--engine", "reference", "-o"]
    assert command_line([*words, "whole"]) == 0
    (kit / "temporary").mkdir()
    killed = start([*words, "out"], Moment(lambda: os.kill(os.getpid(), signal.SIGKILL), point))
    assert ended(killed) == -9
    assert command_line([*words, "out"]) == 0
    for name in ("float", "8bit", "4bit"):
        assert Path(f"out/{name}.qkf").read_bytes() == Path(f"whole/{name}.qkf").read_bytes()
        assert qd.load_run(f"out/{name}.sqlite").ledger == qd.load_run(f"whole/{name}.sqlite").ledger
    assert {p.name for p in Path("out").iterdir()} == MADE
