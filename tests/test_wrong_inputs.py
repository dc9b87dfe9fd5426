"""Every command with every kind of wrong input: a typed error, one line of it, nothing written, nothing destroyed.

The files are made by :mod:`wrongfiles`; each case runs in their folder, whose content is compared before and after.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import wrongfiles

import qkf_deploy as qd
from qkf_deploy.cli import COMMANDS, run
from qkf_deploy.errors import QkfError
from qkf_deploy.ir.digest import digest

#: Command lines, one per line.
DATA = Path(__file__).parent / "data"
#: Exit codes of what a user can do wrong: a failed check, usage, input, a missing component, an engine.
EXPECTED = (1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    wrongfiles.build(folder)
    return folder


@pytest.fixture(autouse=True)
def inside(kit: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in the folder of files; nothing in it may change."""
    monkeypatch.chdir(kit)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = snapshot(kit)
    yield
    assert snapshot(kit) == before


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every file and folder with its type, size and the time of its last change."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            state = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = (state.st_mode, state.st_size, state.st_mtime_ns)
    return found


def complaints(
    commands: list[list[str]], capfd: pytest.CaptureFixture[str], codes: tuple[int, ...] = EXPECTED
) -> list[str]:
    """What is wrong with how these command lines fail; a code of 0 only where ``codes`` has it."""
    found = []
    for command in commands:
        code = run(command)
        out, err = capfd.readouterr()
        lines = sum(line.lower().startswith("error: ") for line in err.splitlines())
        clean = not any(bad in out + err for bad in ("Traceback", "internal error", "Error(", "list index"))
        if code not in codes or not clean or lines != (code != 0) or (code and not telling(err)):
            found.append(f"{' '.join(command)[:200]}: {code}: {err[-300:]!r}")
    return found


def telling(err: str) -> bool:
    """Whether an error says more than a type or an empty text."""
    last = [line for line in err.splitlines() if line.lower().startswith("error: ")][-1]
    return len(last) > len("error: x: ")


def names(kit: Path, *good: str) -> list[str]:
    """Everything in the folder but what is right, and names of what does not exist."""
    right = {name for kind in good for name in wrongfiles.GOOD[kind]}
    there = sorted(p.name for p in kit.iterdir())
    strange = ["missing", "missing.qkf", "missing/a", "picture.png/a", "x" * 300, "a\0b", "\udcff.qkf", "ü.qkf", ""]
    return [name for name in (*there, *strange) if name not in right]


#: Command with {} where a file is wrong -> what would be right there.
PLACES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("quantize", "{}", "-o", "out.qkf"): ("float",),
    ("calibrate", "{}", "images.npy", "--carry", "stored", "-o", "out.qkf"): (),
    ("calibrate", "merged.qkf", "{}", "--carry", "stored", "-o", "out.qkf"): (),
    ("calibrate", "merged.qkf", "images.npy", "--carry", "own", "--held-out", "{}", "-o", "out.qkf"): ("images",),
    ("simulate", "{}", "images.npy", "-o", "out.json", "--save", "out.npz"): ("float", "integer"),
    ("simulate", "integer.qkf", "{}", "-o", "out.json", "--events", "out"): ("images",),
    ("simulate", "float.qkf", "{}"): ("images",),
    ("simulate", "vector.qkf", "{}"): (),
    ("energy", "{}"): ("run",),
    ("energy", "{}", "images.npy"): ("float", "integer"),
    ("energy", "integer.qkf", "{}"): ("images",),
    ("energy", "--model", "spikingformer-8-512", "--rates", "{}"): (),
    ("energy", "{}", "--rates", "spikingformer-8-512"): (),
    ("report", "{}", "-o", "out.html"): ("run",),
    ("report", "{}", "images.npy", "-o", "out.html"): ("float", "integer"),
    ("compare", "run.sqlite", "{}"): ("run",),
    ("compare", "run.sqlite", "--hardware", "{}"): (),
    ("evaluate", "{}", "images.npy", "-o", "out.sqlite"): ("float", "integer"),
    ("evaluate", "integer.qkf", "{}", "-o", "out.sqlite"): ("images", "mixed"),
    ("evaluate", "--resume", "{}"): (),
    ("run", "{}", "images.npy", "-o", "out"): ("float",),
    ("run", "float.qkf", "{}", "-o", "out"): ("images", "mixed"),
    ("run", "float.qkf", "images.npy", "--chip", "{}", "-o", "out"): ("chip",),
    ("map", "{}"): ("integer",),
    ("map", "integer.qkf", "--run", "{}"): ("run",),
    ("map", "integer.qkf", "{}"): ("images",),
    ("hardware", "{}", "images.npy", "--chip", "fpga-array"): ("integer",),
    ("hardware", "integer.qkf", "{}", "--chip", "fpga-array"): ("images", "run"),
    ("paper", "{}", "images.npy"): ("float", "integer"),
    ("paper", "integer.qkf", "{}", "--figure", "out.png"): ("images",),
    ("export", "{}", "--to", "onnx", "-o", "out.onnx"): ("float", "integer"),
    ("export", "{}", "--to", "nir", "-o", "out.nir"): ("float", "integer"),
    ("export", "{}", "--to", "lava", "-o", "out"): ("integer",),
    ("export", "{}", "--to", "sana-fe", "-o", "out"): ("integer",),
    ("export", "integer.qkf", "--to", "sana-fe", "--images", "{}", "-o", "out"): ("images", "mixed"),
    ("export", "{}", "--to", "mem", "-o", "out"): ("integer",),
    ("import", "{}", "-o", "out.qkf"): ("nir",),
    ("widths", "{}"): ("integer",),
    ("inspect", "{}"): ("float", "integer"),
    ("verify", "{}", "images.npy", "--against", "model.py:fine"): (),
    ("verify", "integer.qkf", "{}", "--against", "model.py:fine"): (),
    ("verify", "integer.qkf", "images.npy", "--against", "{}"): (),
    ("trace", "{}", "-o", "out.qkf"): (),
    ("train", "--arch", "qkformer-digits", "--data", "{}", "-o", "out.safetensors"): (),
    ("calibrate", "float.qkf", "{}", "--bits", "4", "-o", "out.qkf"): ("images",),
    ("sensitivity", "{}", "images.npy", "--sample", "2"): ("float",),
    ("sensitivity", "float.qkf", "{}", "--sample", "2", "--bits", "8,4"): ("images",),
    ("finetune", "{}", "--data", "labelled.npz", "--start", "0", "-o", "out.safetensors"): (),
    ("demo", "--output", "out", "--checkpoint", "{}"): (),
    ("trace", "model.py:fine", "--checkpoint", "{}", "--image-size", "8", "-o", "out.qkf"): (),
}


#: Commands that start something for every file: only these kinds are tried.
SLOW = {"import": (".nir", ".qkf"), "demo": (".pth", ".safetensors"), "train": (".npz",)}


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_wrong_files(place: tuple[str, ...], kit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = names(kit, *PLACES[place])
    if place[0] in SLOW:
        wrong = [name for name in wrong if Path(name).suffix in SLOW[place[0]]]
    commands = [[name if word == "{}" else word for word in place] for name in wrong]
    assert complaints(commands, capfd) == []


@pytest.mark.parametrize("command", ["inspect {}", "simulate {} images.npy -o out.json", "export {} --to lava -o out"])
def test_damaged_networks(command: str, kit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert complaints(each(command, kit / "networks"), capfd, (0, 3)) == []


RUNS = (
    "energy {}",
    "map integer.qkf --run {}",
    "compare run.sqlite {}",
    "hardware integer.qkf {} --chip fpga-array --no-twin",
)


@pytest.mark.parametrize("command", RUNS)
def test_damaged_runs(command: str, kit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A text in place of a text may pass; nothing else than a whole run or an error."""
    assert complaints(each(command, kit / "runs"), capfd, (0, 3)) == []


@pytest.mark.parametrize("command", ["simulate float.qkf {}", "simulate integer.qkf {} -o out.json --events out"])
def test_wrong_arrays(command: str, kit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert complaints(each(command, kit / "arrays"), capfd, (3,)) == []


@pytest.mark.parametrize("command", ["profiles {}", "map integer.qkf --chip {}", "run {} -o out"])
def test_wrong_toml(command: str, kit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One value is wrong in each; some are another right one."""
    assert complaints(each(command, kit / "wrong"), capfd, (0, 2, 3)) == []


def each(command: str, folder: Path) -> list[list[str]]:
    """The command with every file of a folder."""
    return [[str(p) if word == "{}" else word for word in command.split()] for p in sorted(folder.iterdir())]


#: Command lines whose options are wrong.
OPTIONS = (DATA / "wrong_options.txt").read_text()
#: What is wrong with a trace of a factory.
TRACES = (DATA / "wrong_traces.txt").read_text()


def test_wrong_options(capfd: pytest.CaptureFixture[str]) -> None:
    assert complaints([line.split() for line in OPTIONS.strip().splitlines()], capfd) == []


def test_wrong_models(capfd: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in TRACES.strip().splitlines()]
    size = [[] if "--image-size" in line else ["--image-size", "8"] for line in lines]
    commands = [["trace", *line, *more, "-o", "out.qkf"] for line, more in zip(lines, size, strict=True)]
    assert complaints(commands, capfd) == []


@pytest.mark.parametrize("call", ["inspect noise.qkf", "energy list.json", "trace model.py:leaves -o out.qkf"])
def test_as_a_program(call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-m", "qkf_deploy.cli", *call.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["missing", "folder", "empty", "noise.qkf", "list.json", "a\0b.toml", "text.toml"])
def test_functions_raise_typed_errors(name: str) -> None:
    images = np.load("images.npy")
    for function in (qd.load, qd.load_run, qd.load_profile, qd.load_chip, qd.import_nir, qd.trace):
        with pytest.raises(QkfError):
            function(name)
    with pytest.raises(QkfError):
        qd.verify(qd.load("integer.qkf"), images, name)


def test_a_network_of_one_number_is_mapped() -> None:
    mapped = qd.map_network(qd.load("scalar.qkf"), qd.load_chip("generic-digital"))
    assert {p.unit.name: (p.unit.channels, p.unit.positions) for p in mapped.placements}["readout"] == (1, 1)


def test_a_parameter_without_axes_keeps_its_shape() -> None:
    """NumPy makes an array with one axis of it when asked for a contiguous one."""
    graph = qd.load("scalar.qkf")
    assert graph.output.params["scale"].shape == ()
    assert digest(graph) == digest(qd.quantize(wrongfiles.network("scalar"), 8))


def test_every_command_is_here() -> None:
    lines = [*(" ".join(p) for p in PLACES), *OPTIONS.split("\n")]
    assert {line.split()[0] for line in lines if line} >= set(COMMANDS)
