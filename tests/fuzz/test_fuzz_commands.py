"""Damaged files given to the commands themselves: an exit code of the contract, one error line, nothing written.

``QKF_FUZZ_COMMANDS=2000`` tries that many files over all commands, ``QKF_FUZZ_SEED`` others.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fuzz_readers import network, pictures_network, readers
from PIL import Image
from test_fuzz_readers import in_children

import qkf_deploy as qd
from qkf_deploy.cli import run
from qkf_deploy.errors import QkfError

_FILES = int(os.environ.get("QKF_FUZZ_COMMANDS", "24"))
_SEED = int(os.environ.get("QKF_FUZZ_SEED", "0"))
_BYTES = 2**30
_SECONDS = 5

#: Reader -> commands that read its file; {} is the file, {home} a folder of good files, {out} a place to write.
COMMANDS = {
    "qkf": (
        "inspect {}", "widths {} --format json", "export {} --to onnx -o {out}/net.onnx", "map {}",
        "export {} --to nir --annotated -o {out}/net.nir", "simulate {} {home}/frames.npy --engine reference",
        "evaluate {} {home}/frames.npz -o {out}/run.sqlite",
    ),
    "nir": ("import {} -o {out}/net.qkf",),
    "checkpoint": ("trace {} -o {out}/net.qkf",),
    "safetensors": ("trace {} -o {out}/net.qkf",),
    "run": (
        "report {} -o {out}/page.html", "energy {} --format csv", "compare {} {home}/run.sqlite",
        "map {home}/net.qkf --run {}", "export {} --to csv -o {out}/tables",
    ),
    "profile": ("energy {home}/run.sqlite --profile {}", "profiles {}"),
    "chip": ("map {home}/net.qkf --chip {}",),
    "npy": ("simulate {home}/pictures.qkf {} -o {out}/run.sqlite",),
    "npz": ("simulate {home}/pictures.qkf {} --save {out}/run.npz", "energy {home}/pictures.qkf {}"),
    "labels": ("simulate {home}/pictures.qkf {home}/pictures --labels {} -o {out}/run.sqlite",),
    "png": ("simulate {home}/pictures.qkf {} -o {out}/run.sqlite",),
    "jpeg": ("simulate {home}/pictures.qkf {} -o {out}/run.sqlite",),
}  # fmt: skip
#: A trace takes seconds whatever the file: fewer files.
SLOW = {"checkpoint": 4, "safetensors": 4}


class Refused(QkfError):
    """What a command said."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = code


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    graph = network()
    qd.save(graph, home / "net.qkf")
    qd.save(pictures_network(), home / "pictures.qkf")
    images = np.ones((2, graph.time_steps, 2, 4, 4), np.int64)
    qd.save_run(graph, qd.simulate(graph, images, engine="reference"), home / "run.sqlite")
    np.save(home / "frames.npy", images)
    np.savez(home / "frames.npz", images=images, labels=np.arange(2))
    for index in range(50):
        path = home / "pictures" / f"n{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 5 * index, np.uint8)).save(path)
    return home


def arguments(name: str, path: Path, home: Path, out: Path) -> list[str]:
    """One command after the other for the numbered files, the first one for the honest file."""
    commands = COMMANDS[name]
    chosen = commands[int(path.stem) % len(commands)] if path.stem.isdigit() else commands[0]
    return [part.format(path, home=home, out=out) for part in chosen.split()]


def commanded(name: str, home: Path, out: Path) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            code = run(arguments(name, path, home, out))
        left = sorted(p.name for p in out.iterdir())
        errors = [line for line in stderr.getvalue().splitlines() if line.startswith("error: ")]
        if code == 0:
            for each in out.iterdir():
                shutil.rmtree(each) if each.is_dir() else each.unlink()
            return
        if code not in (2, 3) or len(errors) != 1 or left or "Traceback" in stderr.getvalue():
            raise RuntimeError(f"exit {code}, left {left}: {stderr.getvalue()}")
        raise Refused(code, errors[0])

    return read


@pytest.mark.parametrize("name", COMMANDS)
def test_command(name: str, home: Path, tmp_path: Path) -> None:
    reader = readers(tmp_path)[name]
    folder, out = tmp_path / "files", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    paths = [folder / f"honest{reader.suffix}"]
    paths[0].write_bytes(reader.honest())
    for index in range(max(1, _FILES // len(COMMANDS) // SLOW.get(name, 1))):
        rng = random.Random(f"command {name} {_SEED} {index}")
        path = folder / f"{index}{reader.suffix}"
        path.write_bytes(rng.choice(reader.damage)(paths[0].read_bytes(), rng))
        paths.append(path)
    contents = {p: p.read_bytes() for p in paths}
    command = commanded(name, home, out)
    command(paths[0])  # what it imports is there for all children
    found, peak = in_children(replace(reader, read=command), paths)
    assert found[0].code == 0, found[0].message
    bad = {p.name: o for p, o in zip(paths, found, strict=True) if o.code not in (0, 2, 3) or o.seconds >= _SECONDS}
    assert not bad, f"seed {_SEED}: {bad}"
    assert peak < _BYTES
    if "QKF_FUZZ_COMMANDS" in os.environ:
        codes = Counter(o.code for o in found)
        sys.stderr.write(f"{name}: {len(found)} files, codes {dict(codes)}, {max(o.seconds for o in found):.1f} s\n")
    assert {p: p.read_bytes() for p in folder.iterdir()} == contents


def test_the_program_itself_ends_with_that_code(home: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "net.qkf"
    damaged.write_bytes((home / "net.qkf").read_bytes()[:-7])
    line = [sys.executable, "-m", "qkf_deploy.cli", "inspect", str(damaged)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert [text.split(":")[0] for text in done.stderr.splitlines()][:1] == ["error"]
