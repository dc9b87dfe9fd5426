"""Every command that writes, ended at every moment: what has a final name is whole, nothing else stays.

A child is forked for each command. It ends itself by a signal just before its n-th change of the file system (a file
opened for writing, synced, renamed, removed, a folder made ...), or is ended by this process after a random time.
A seeded sample runs with the tests; ``QKF_KILLS=500`` ends that many.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import wrongfiles

import qkf_deploy as qd
from qkf_deploy.cli import COMMANDS, group, main, run
from qkf_deploy.cli.outputs import Output
from qkf_deploy.datasets import digits
from qkf_deploy.evaluation.paper import check
from qkf_deploy.ir import Graph, Preprocessing
from qkf_deploy.models import build_config
from qkf_deploy.models.qkformer import QKFormer
from qkf_deploy.pipeline import finetuning, training
from qkf_deploy.training.checkpoint import write_checkpoint
from qkf_deploy.training.recipe import Recipe

_KILLS = int(os.environ.get("QKF_KILLS", "36"))
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_ENDED = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
RUN = "out.sqlite"
#: Command lines; what they write is called ``out...``.
WRITERS = {
    "trace": "trace model.py:small --image-size 8 --time-steps 2 -o out.qkf",
    "quantize": "quantize float.qkf -o out.qkf",
    "calibrate": "calibrate merged.qkf images.npy --carry stored --chain 2 --held-out images.npy -o out.qkf",
    "sensitivity": "sensitivity float.qkf images.npy --bits 8,4 --sample 2 --engine reference --budget 1MB -o out.qkf",
    "run": f"simulate integer.qkf images.npy --engine reference -o {RUN}",
    "arrays": "simulate integer.qkf images.npy --engine reference --record all --save out.npz",
    "events": "simulate integer.qkf images.npy --engine reference --events out",
    "everything": f"simulate integer.qkf images.npy --engine reference -o {RUN} --save out.npz --events out",
    "onnx": "export integer.qkf --to onnx -o out.onnx",
    "nir": "export integer.qkf --to nir --annotated -o out.nir",
    "parts": "export integer.qkf --to nir --partitioned -o out",
    "lava": "export integer.qkf --to lava -o out",
    "sana-fe": "export integer.qkf --to sana-fe -o out",
    "memories": "export integer.qkf --to mem -o out",
    "import": "import net.nir -o out.qkf",
    "report": "report run.sqlite -o out.html",
    "tables": "export run.sqlite --to csv -o out",
    "hardware": "hardware integer.qkf images.npy --chip fpga-array --engine reference --explore cores -o out.csv",
    "figure": "paper gated.qkf digits.npz --engine reference --figure out.png",
    "demo": "demo --checkpoint gated.safetensors -o out",
    "train": "train --arch qkformer-digits --data digits.npz --epochs 2 --batch-size 2 --threads 1 -o out.safetensors",
    "finetune": "finetune gated.safetensors --data digits.npz --bits 3 --start 0 --epochs 2 --batch-size 2 --threads 1 "
    "-o out.safetensors",
}
#: Their folder is no whole: each file in it stands for itself, and is replaced for itself.
SEPARATE = {"demo"}
#: A training keeps its state under this name until its weights are written; the next one goes on from it.
STATE = ".training"
#: Events of the interpreter before a change of the file system, with the place of the path in their arguments.
_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "sqlite3.connect")


@dataclass
class Moment:
    """Counts changes of the file system; calls ``then`` before the chosen one."""

    then: Callable[[], None]
    chosen: int = -1
    count: int = 0

    def watch(self) -> None:
        """From now on."""
        real = os.fsync
        os.fsync = lambda handle: (self.change(), real(handle))[1]  # type: ignore[assignment]
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        inside = bool(arguments) and "out" in os.path.basename(str(arguments[0]))
        if (event in _CHANGES and inside) or (writes and inside):
            self.change()

    def change(self) -> None:
        self.count += 1
        if self.count - 1 == self.chosen:
            self.then()


def start(words: list[str], moment: Moment, tell: int | None = None) -> int:
    """Fork a child that runs a command line; its process id."""
    child = os.fork()
    if child:
        return child
    _become(words, moment, tell)


def _become(words: list[str], moment: Moment, tell: int | None) -> NoReturn:
    code = 70
    try:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        tempfile.tempdir = os.path.abspath("temporary")
        moment.watch()
        try:
            main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        if tell is not None:
            os.write(tell, b"%d" % moment.count)
    finally:
        os._exit(code)


def ended(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def complete(words: list[str]) -> int:
    """Run to the end; how often the file system was changed."""
    reading, writing = os.pipe()
    assert ended(start(words, Moment(lambda: None), writing)) == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        return int(pipe.read())


def outputs() -> dict[str, bytes]:
    """Everything under a final name."""
    found = sorted(Path().glob("out*/**/*")) + sorted(Path().glob("out*"))
    return {str(p): p.read_bytes() for p in found if p.is_file() and not p.name.startswith(".") and p.suffix != STATE}


def others() -> dict[str, bytes | None]:
    """Everything else, temporary names and the folder for temporary files included."""
    found = (p for p in sorted(Path().rglob("*")) if not p.parts[0].startswith("out"))
    inner = (p for p in sorted(Path().glob("out*/**/.*")))
    return {str(p): p.read_bytes() if p.is_file() else None for p in (*found, *inner)}


def removed() -> None:
    for path in Path().glob("out*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def stable(content: dict[str, bytes]) -> dict[str, object]:
    """What of the outputs is the same in every run: all of it, but for times in a report and in archives."""
    return {name: _read(Path(name), data) for name, data in content.items()}


def _read(path: Path, data: bytes) -> object:
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    if path.suffix == ".sqlite":
        assert not Path(f"{path}-wal").exists()
        return qd.load_run(path).ledger
    return len(data) if path.suffix in (".html", ".png") else data


@dataclass(frozen=True)
class Kit:
    """A folder of inputs, and what the slow steps of `demo` and `train` come to, which write nothing."""

    folder: Path
    few: digits.Digits
    traced: Graph
    agreement: tuple[Any, Any]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("killed")
    graph = qd.quantize(wrongfiles.network(), 8)
    images = np.random.default_rng(0).integers(0, 256, (2, *wrongfiles.SIZE), dtype=np.uint8)
    (folder / "model.py").write_text(wrongfiles.FACTORIES)
    np.save(folder / "images.npy", images)
    qd.save(wrongfiles.network(), folder / "float.qkf")
    qd.save(wrongfiles.merged(), folder / "merged.qkf")
    qd.save(graph, folder / "integer.qkf")
    qd.export_nir(graph, folder / "net.nir", "annotated")
    qd.save_run(graph, qd.simulate(graph, images, engine="reference"), folder / "run.sqlite")
    (folder / "temporary").mkdir()
    return _gated(folder)


def _gated(folder: Path) -> Kit:
    """A small network with Q-K gates, its checkpoint, and a few digits."""
    data = digits.load_digits()
    few = replace(data, test_images=data.test_images[:6], test_labels=data.test_labels[:6])
    digits.save_held_out(few, folder / "digits.npz")
    torch.manual_seed(0)
    model = QKFormer(build_config("qkformer-digits", embed_dim=16, heads=2, time_steps=1))
    checkpoint = folder / "gated.safetensors"
    write_checkpoint(checkpoint, model, Recipe(), Preprocessing(digits.MEAN, digits.STD), digits.CLASS_NAMES, None)
    traced = qd.trace(checkpoint)
    integer = qd.quantize(qd.fold(traced), 8)
    qd.save(integer, folder / "gated.qkf")
    return Kit(folder, few, traced, qd.verify(integer, few.test_images, checkpoint))


@pytest.fixture
def inside(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(kit.folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(check, "shape_checks", lambda tick, every: [])
    yield
    removed()


def shorten(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `demo` and trainings skip what they would compute before they write."""
    monkeypatch.setattr(digits, "load_digits", lambda: kit.few)
    monkeypatch.setattr(qd, "trace", lambda *_, **__: kit.traced)
    monkeypatch.setattr(training, "trace", lambda *_, **__: kit.traced)
    monkeypatch.setattr(qd, "verify", lambda *_, **__: kit.agreement)
    monkeypatch.setattr(finetuning, "trace_source", _remembering(finetuning.trace_source))


def _remembering(trace: Callable[[Any], Graph]) -> Callable[[Any], Graph]:
    """A tracer that traces equal weights once; forked children know what their parent traced."""
    known: dict[bytes, Graph] = {}

    def remembered(source: Any) -> Graph:
        tensors = [*source.model.state_dict().values(), *map(torch.tensor, source.scales.values())]
        key = hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).digest()
        if key not in known:
            known[key] = trace(source)
        return known[key]

    return remembered


def forced(name: str) -> list[str]:
    """What lets a command replace what is there."""
    return ["--force"] if outputs() and name not in SEPARATE else []


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("inside")
def test_ended(name: str, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("demo", "train", "finetune"):
        shorten(kit, monkeypatch)
    if name in ("train", "finetune") and torch.cuda.is_available():
        pytest.skip("where torch has a GPU, a forked process cannot train")
    words = WRITERS[name].split()
    rng = random.Random(f"{name} {_KILLS}")
    assert run(words) == 0  # what it imports and compiles is there for all children
    removed()
    changes = complete(words)
    inputs = others()
    expected = stable(outputs())
    removed()
    assert changes > 2
    begun = time.monotonic()
    complete(words)
    seconds = time.monotonic() - begun
    counts = {"at a change": 0, "timed": 0, "timed, while writing": 0, "after the end": 0}
    for index in range(max(3, -(-_KILLS // len(WRITERS)))):
        number = _SIGNALS[index % 3]
        replaced = rng.random() < 0.5
        if not replaced or (name not in SEPARATE and any(p.is_dir() for p in Path().glob("out*"))):
            removed()
        force = forced(name)
        before = others()
        if index % 4:
            point = rng.randrange(changes)
            child = start([*words, *force], Moment(lambda n=number: os.kill(os.getpid(), n), point))
            counts["at a change"] += 1
        else:
            child = start([*words, *force], Moment(lambda: None))
            time.sleep(rng.uniform(0.3, 1.1) * seconds)
            counts["timed, while writing"] += any(Path().glob(".out*")) or any(Path().glob("out*/.*"))
            os.kill(child, number)
            counts["timed"] += 1
        code = ended(child)
        assert code in (0, _ENDED[number]), (code, number)
        counts["after the end"] += code == 0
        found = stable(outputs())
        assert {k: v for k, v in expected.items() if k in found} == found, f"half a file: {sorted(found)}"
        inside = {k for k in expected if "/" in k} if name not in SEPARATE else set()
        assert found.keys() >= inside or not any("/" in k for k in found), f"half a folder: {sorted(found)}"
        left = others()
        assert left.items() >= inputs.items()
        if number != signal.SIGKILL:
            assert left.keys() <= before.keys(), f"{number!r} left something"
    if name not in SEPARATE and any(p.is_dir() for p in Path().glob("out*")):
        removed()
    complete([*words, *forced(name)])
    assert stable(outputs()) == expected
    assert not any(Path().glob(f"out*{STATE}"))
    assert others() == inputs
    if "QKF_KILLS" in os.environ:
        sys.stderr.write(f"{name}: {changes} changes, {counts}\n")


def test_every_command_that_writes_is_here() -> None:
    flags = set()
    for name in COMMANDS:
        command = group.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        flags |= {(name, p.opts[0]) for p in command.params if isinstance(p.type, Output) or p.name == "output"}
    here = {(w.split()[0], o) for w in WRITERS.values() for o in w.split() if o.startswith("-")}
    # An evaluation leaves what it has on purpose, to be resumed: evaluation/test_kills.py and test_evaluate_command.py.
    # So does a whole run: test_run.py.
    flags -= {("evaluate", "-o"), ("run", "-o")}
    assert flags <= here, flags - here
