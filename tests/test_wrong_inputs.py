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
    ("map", "{}"): ("integer",),
    ("map", "integer.qkf", "--run", "{}"): ("run",),
    ("map", "integer.qkf", "{}"): ("images",),
    ("hardware", "{}", "images.npy", "--chip", "fpga-array"): ("integer",),
    ("hardware", "integer.qkf", "{}", "--chip", "fpga-array"): ("images",),
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


@pytest.mark.parametrize("command", ["energy {}", "map integer.qkf --run {}", "compare run.sqlite {}"])
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
OPTIONS = """
simulate float.qkf images.npy --every-step -o run2.sqlite
simulate float.qkf images.npy --every-step --engine event
simulate float.qkf nothing.npy --every-step
nonsense
run
run float.qkf
run float.qkf images.npy
run float.qkf images.npy -o read_only
run float.qkf images.npy -o picture.png
run float.qkf images.npy -o out --bits 1
run float.qkf images.npy -o out --bits 8,x
run float.qkf images.npy -o out --bits 8,33
run float.qkf images.npy -o out --profile nothing
run float.qkf images.npy -o out --engine nothing
run float.qkf images.npy -o out --format yaml
run nothing.toml -o out
report run.sqlite --beside run.sqlite --beside run.sqlite -o out.html
report run.sqlite --beside nothing.sqlite -o out.html
quantize float.qkf
quantize float.qkf -o missing/out.qkf
quantize float.qkf -o folder
quantize float.qkf -o read_only
quantize float.qkf -o read_only --force
quantize float.qkf -o float.qkf --force
quantize float.qkf -o picture.png/out
quantize float.qkf -o /dev/null --force
quantize float.qkf -o out.qkf --bits 0
quantize float.qkf -o out.qkf --bits 1
quantize float.qkf -o out.qkf --bits 33
quantize float.qkf -o out.qkf --bits -8
quantize float.qkf -o out.qkf --bits abc
quantize float.qkf -o out.qkf --bits 99999999999999999999999
quantize float.qkf -o out.qkf --first-bits 0
quantize float.qkf -o out.qkf --layer-bits garbage
quantize float.qkf -o out.qkf --layer-bits conv=
quantize float.qkf -o out.qkf --layer-bits =4
quantize float.qkf -o out.qkf --layer-bits conv=1
quantize float.qkf -o out.qkf --layer-bits conv=x
quantize float.qkf -o out.qkf --layer-bits nothing=4
quantize float.qkf -o out.qkf --layer-bits lif=4
quantize float.qkf -o out.qkf --input fixed --input-max nan
quantize float.qkf -o out.qkf --input fixed --input-max inf
quantize float.qkf -o out.qkf --input fixed --input-max 0
quantize float.qkf -o out.qkf --input fixed --input-max -1
quantize float.qkf -o out.qkf --input fixed --input-bits 99
quantize float.qkf -o out.qkf --fraction-bits -1
quantize float.qkf -o out.qkf --decay-bits 99
quantize float.qkf -o out.qkf --scales some
quantize float.qkf -o out.qkf --carry nothing
calibrate merged.qkf images.npy -o out.qkf
calibrate float.qkf images.npy -o out.qkf --carry stored
calibrate integer.qkf images.npy -o out.qkf --carry official
calibrate merged.qkf images.npy -o out.qkf --carry nothing
calibrate merged.qkf images.npy -o out.qkf --carry stored
calibrate merged.qkf images.npy -o out.qkf --carry own --per-channel
calibrate merged.qkf images.npy -o out.qkf --carry own --average 2
calibrate merged.qkf images.npy -o out.qkf --carry stored --chain 2 --average 3
calibrate merged.qkf images.npy -o out.qkf --carry stored --chain 1
calibrate merged.qkf images.npy -o out.qkf --carry stored --chain x
calibrate merged.qkf images.npy -o out.qkf --carry stored --batch-size 0
calibrate merged.qkf images.npy -o out.qkf --carry stored --seed -1
calibrate merged.qkf images.npy -o out.qkf --carry stored --held-out missing
calibrate merged.qkf images.npy -o out.qkf --carry stored --engine event
calibrate merged.qkf images.npy -o missing/out.qkf --carry stored
calibrate merged.qkf images.npy -o merged.qkf --force --carry stored
simulate integer.qkf images.npy --limit 0
simulate integer.qkf images.npy --limit x
simulate integer.qkf images.npy --threads 0
simulate integer.qkf images.npy --threads -1
simulate integer.qkf images.npy --top 0
simulate integer.qkf images.npy --engine nothing
simulate integer.qkf images.npy --engine reference --threads 2
simulate integer.qkf images.npy --timeout 3
simulate integer.qkf images.npy --engine lava --timeout 0
simulate integer.qkf images.npy --engine lava --timeout nan
simulate integer.qkf images.npy --format yaml
simulate integer.qkf images.npy --record nothing --save out.npz
simulate integer.qkf images.npy --event-format csv
simulate integer.qkf images.npy -o missing/run.sqlite
simulate integer.qkf images.npy --events read_only
simulate integer.qkf images.npy --events runs
simulate integer.qkf images.npy --save images.npy --force
simulate float.qkf images.npy --engine event
simulate float.qkf images.npy --engine lava
simulate vector.qkf images.npy
--memory nothing inspect float.qkf
--memory -1 inspect float.qkf
--memory 1 simulate integer.qkf images.npy
energy integer.qkf
energy integer.qkf images.npy --profile nothing
energy run.sqlite --profile nothing
energy run.sqlite --profile wrong
energy run.sqlite --profile float.qkf
energy run.sqlite --profile good.chip.toml
energy run.sqlite images.npy
energy run.sqlite --limit 1
energy run.sqlite --time-steps 2
energy run.sqlite --first-layer twice
energy run.sqlite --profile odin2019 --first-layer once
energy --model spikingformer-8-512
energy --rates spikingformer-8-512
energy --model nothing --rates spikingformer-8-512
energy --model spikingformer-8-512 --rates nothing
energy --model spikingformer-8-512 --rates spikingformer-8-512 --profile exact-fp32
energy --model spikingformer-8-512 --rates spikingformer-8-512 --time-steps 0
energy --model spikingformer-8-512 --rates spikingformer-8-512 --movement
energy --model spikingformer-8-512 --rates spikingformer-8-512 --engine reference
energy --model qkformer-10-384 --rates spikingformer-8-512
energy float.qkf --model spikingformer-8-512 --rates spikingformer-8-512
energy float.qkf images.npy --rates spikingformer-8-512
energy float.qkf --rates spikingformer-8-512
energy run.sqlite --rates spikingformer-8-512
report run.sqlite -o out.html --engine reference
map integer.qkf --run run.sqlite --resize
profiles nothing
profiles exact-fp32 --quantities
profiles --quantities --accelerators
profiles good.chip.toml
profiles /dev/null
report run.sqlite -o run.sqlite --force
report run.sqlite -o missing/page.html
report run.sqlite -o out.html --profile nothing
map float.qkf
map integer.qkf --chip nothing
map integer.qkf --chip good.profile.toml
map integer.qkf images.npy --run run.sqlite
map integer.qkf --run other_run.sqlite
hardware integer.qkf images.npy
hardware float.qkf images.npy --chip fpga-array
hardware integer.qkf images.npy --chip nothing
hardware integer.qkf images.npy --chip good.profile.toml
hardware integer.qkf images.npy --chip fpga-array --goal speed
hardware integer.qkf images.npy --chip fpga-array -o out.csv
hardware integer.qkf images.npy --chip fpga-array --explore nothing
hardware integer.qkf images.npy --chip fpga-array --explore cores -o missing/out.csv
hardware integer.qkf images.npy --chip loihi2 --limit 0
paper integer.qkf
paper --figure out.png
paper integer.qkf images.npy --engine nothing
export integer.qkf -o out --to nothing
export float.qkf -o out --to lava
export float.qkf -o out --to mem
export integer.qkf -o out --to mem --check
simulate integer.qkf images.npy --membranes all
export integer.qkf -o runs --to lava
export float.qkf -o out --to sana-fe
export integer.qkf -o runs --to sana-fe
export integer.qkf -o out --to sana-fe --chip nothing
export integer.qkf -o out --to sana-fe --chip loihi2
export integer.qkf -o out --to sana-fe --check
export integer.qkf -o out --to lava --chip loihi1
export integer.qkf -o out.onnx --to onnx --form nothing
export integer.qkf -o out.onnx --to onnx --annotated
export integer.qkf -o out --to nir --annotated --partitioned
export integer.qkf -o out --to lava --chains
export integer.qkf -o missing/out.onnx --to onnx
import net.onnx -o out.qkf --time-steps 0
import net.onnx -o out.qkf --encoding nothing
verify integer.qkf images.npy
verify integer.qkf images.npy --against model.py:fine
verify integer.qkf images.npy --against model.py:small
verify integer.qkf images.npy --against model.py:fine --heads 3
verify integer.qkf images.npy --against model.py:fine --image-size 16
verify integer.qkf images.npy --against model.py:fine --time-steps 3
verify integer.qkf images.npy --against weights.pth
evaluate integer.qkf images.npy
evaluate integer.qkf -o out.sqlite
evaluate integer.qkf images.npy -o out.sqlite --jobs 0
evaluate integer.qkf images.npy -o out.sqlite --engine nothing
evaluate integer.qkf images.npy -o out.sqlite --shard 0
evaluate integer.qkf images.npy -o out.sqlite --steps 0
evaluate integer.qkf images.npy -o out.sqlite --bits 4
evaluate integer.qkf images.npy -o out.sqlite --scheduler nonsense
evaluate integer.qkf images.npy -o out.sqlite --scheduler tcp://10.0.0.1:8786
evaluate integer.qkf images.npy -o integer.qkf --force
evaluate integer.qkf images.npy -o missing/out.sqlite
evaluate integer.qkf images.npy -o out.sqlite --resume run.sqlite
compare run.sqlite
compare run.sqlite other_run.sqlite --profile nothing
train --arch nothing --data labelled.npz -o out.safetensors
train --arch qkformer-digits --data labelled.npz -o missing/out.safetensors
train --arch qkformer-digits --data labelled.npz -o out.safetensors --epochs 0
train --arch qkformer-digits --data labelled.npz -o out.safetensors --mean 0.5
train --arch qkformer-digits --data labelled.npz -o out.safetensors --mean 0.5,0.5 --std 0.5,0.5
train --arch qkformer-digits --data labelled.npz -o out.bin
train --arch qkformer-2-256-dvs128 --data labelled.npz -o out.safetensors --mean 0.5,0.5 --std 0.5,0.5
train --arch qkformer-digits --data labelled.npz -o out.safetensors --micro-batches 3
train --arch qkformer-digits --data labelled.npz -o out.safetensors --learning-rate -1
finetune missing.pth --data labelled.npz -o out.safetensors
finetune model.py:fine --image-size 8 --data labelled.npz -o out.qkf
finetune model.py:fine --image-size 8 --data labelled.npz -o missing/out.safetensors
finetune model.py:fine --image-size 8 --data labelled.npz -o out.safetensors --bits 9
finetune model.py:fine --image-size 8 --data labelled.npz -o out.safetensors --layer-bits nothing=4
finetune model.py:fine --image-size 8 --data labelled.npz -o out.safetensors --precision float16
finetune model.py:fine --image-size 8 --data labelled.npz -o out.safetensors --drop-path 0.5
finetune model.py:fine --image-size 8 --data labelled.npz -o out.safetensors --carry official
finetune model.py:fine --image-size 8 --data labelled.npz -o out.safetensors --start -1
finetune model.py:fine --image-size 8 --data images.npy -o out.safetensors
sensitivity float.qkf images.npy --bits 4
sensitivity float.qkf images.npy --bits 9,4
sensitivity float.qkf images.npy --bits x
sensitivity float.qkf images.npy --budget 1B
sensitivity float.qkf images.npy --budget many
sensitivity float.qkf images.npy --budget -1MB
sensitivity float.qkf images.npy --budget 3uJ
sensitivity float.qkf images.npy --budget 3MB --profile paper-eq23
sensitivity float.qkf images.npy --budget 3uJ --profile nothing
sensitivity float.qkf images.npy -o out.qkf
sensitivity float.qkf images.npy --sample 1
calibrate float.qkf images.npy -o out.qkf --bits 9
calibrate float.qkf images.npy -o out.qkf --bits 4 --methods nothing
calibrate float.qkf images.npy -o out.qkf --bits 4 --sample 0
calibrate float.qkf images.npy -o out.qkf --sample 4
calibrate integer.qkf images.npy -o out.qkf --bits 4
demo --bits x
demo --output read_only
demo -o read_only
models --format nothing
doctor --format nothing
"""
#: What is wrong with a trace of a factory.
TRACES = """
model.py:missing
model.py:number
model.py:raises
model.py:asserts
model.py:nothing
model.py:text
model.py:a_class
model.py:leaves
model.py:exits
model.py:recurses
model.py:needs
model.py:broken_forward
model.py:leaving_forward
model.py:list_output
model.py:
:fine
model.py
syntax.py:fine
raising.py:fine
leaving.py:fine
missing_import.py:fine
null.py:fine
no_such_module:fine
os:getcwd
json:nothing.more
model.py:fine --heads 0
model.py:fine --heads text
model.py:fine --heads 1,,2
model.py:fine --heads 4
model.py:fine --mean 0.5
model.py:fine --mean 0.5,0.5,0.5
model.py:fine --mean 0.5,0.5,nan --std 1,1,1
model.py:fine --mean 0.5,0.5,0.5 --std 0,1,1
model.py:fine --mean 0.5,0.5,0.5 --std nan,1,1
model.py:fine --mean 0.5,0.5,0.5 --std -1,1,1
model.py:fine --mean 0.5,0.5 --std 1,1
model.py:fine --mean a,b,c --std 1,1,1
model.py:fine --preset nothing
model.py:fine --preset imagenet --mean 0,0,0 --std 1,1,1
model.py:fine --arch nothing
model.py:fine --time-steps 0
model.py:fine --time-steps x
model.py:fine --image-size 0
model.py:fine --image-size 99999
model.py:fine --image-size 9
model.py:fine --in-channels 0
model.py:fine --in-channels 4
model.py:fine --input nothing
model.py:fine --factory-arg garbage
model.py:fine --factory-arg =1
model.py:fine --factory-arg unknown=1
model.py:fine --factory-arg width=[
model.py:fine --factory-arg width=-1
model.py:fine --factory-arg width=None
model.py:fine --factory-arg needs=1
model.py:fine --checkpoint foreign.pth
model.py:fine --checkpoint nan.pth
weights.pth --arch nothing
foreign.pth --arch qkformer-10-384
foreign.pth --heads 3
"""


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
