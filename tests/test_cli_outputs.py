"""Outputs are checked before any work; nothing that exists is destroyed by accident; pipes, disks and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qkf_deploy as qd
from qkf_deploy.cli import run
from qkf_deploy.cli.outputs import Output


@pytest.fixture
def folder(tmp_path: Path, digits_int8: qd.Graph, monkeypatch: pytest.MonkeyPatch) -> Path:
    qd.save(digits_int8, tmp_path / "net.qkf")
    np.save(tmp_path / "x.npy", np.zeros((1, *digits_int8.input.type.shape), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


#: What must fail before any work: the network does not even exist where a command would first read it.
ALREADY = [
    ("simulate", "net.qkf", "x.npy", "-o", "old"),
    ("simulate", "net.qkf", "x.npy", "--save", "old"),
    ("quantize", "net.qkf", "-o", "old"),
    ("report", "net.qkf", "x.npy", "-o", "old"),
    ("export", "net.qkf", "--to", "onnx", "-o", "old"),
    ("import", "net.qkf", "-o", "old"),
    ("trace", "net.qkf", "-o", "old"),
    ("paper", "net.qkf", "x.npy", "--figure", "old"),
]


@pytest.mark.parametrize("command", ALREADY, ids=lambda c: f"{c[0]} {c[-2]}")
def test_existing_files_need_force(folder: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "old").write_bytes(b"old")
    before = snapshot(folder)
    assert run(list(command)) == 3
    assert "old: exists already\n  try: --force replaces it" in capsys.readouterr().err
    assert snapshot(folder) == before


@pytest.mark.parametrize("command", ALREADY, ids=lambda c: f"{c[0]} {c[-2]}")
def test_inputs_are_never_replaced(folder: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "link").symlink_to("net.qkf")
    os.link("net.qkf", "twin")
    before = snapshot(folder)
    for name in ("net.qkf", "link", "twin", str(folder / "net.qkf")):
        assert run([*command[:-1], name, "--force"]) == 2
        assert "would replace an input" in capsys.readouterr().err
    assert snapshot(folder) == before


@pytest.mark.parametrize("command", ALREADY, ids=lambda c: f"{c[0]} {c[-2]}")
def test_places_that_cannot_be_written(
    folder: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe")
    before = snapshot(folder)
    for name in ("nowhere/out", "x.npy/out", "pipe", "/dev/null"):
        assert run([*command[:-1], name, "--force"]) == 3, name
        error = capsys.readouterr().err
        assert "cannot write here" in error
        assert "Traceback" not in error
    assert snapshot(folder) == before


def test_two_outputs_in_one_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "net.qkf", "x.npy", "-o", "a", "--save", "./a"]) == 2
    assert "the same place" in capsys.readouterr().err


def test_force_replaces_files_and_folders_stay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "run.sqlite").write_text("old")
    command = ["simulate", "net.qkf", "x.npy", "--engine", "reference"]
    assert run([*command, "-o", "run.sqlite", "--force"]) == 0
    assert qd.load_run("run.sqlite").ledger.images == 1
    assert run([*command, "--events", "events"]) == 0
    assert run([*command, "--events", "events", "--force"]) == 3
    assert "events: exists already and has files" in capsys.readouterr().err


def test_every_command_that_writes_checks() -> None:
    """An option called output, or whose help says that something is written, has the type that is checked."""
    from qkf_deploy.cli import COMMANDS, group

    for name in COMMANDS:
        command = group.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        for param in command.params:
            help_text = getattr(param, "help", None) or ""
            if (param.name == "output" or help_text.startswith("Write ")) and name not in (
                "demo",
                "run",
            ):  # those add to a folder
                assert isinstance(param.type, Output), (name, param.name)


#: Commands that add to a folder.
_ADDING = ("demo", "run")
PROGRAM = [sys.executable, "-m", "qkf_deploy.cli"]


def test_a_closed_pipe_is_no_failed_check(folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m qkf_deploy.cli inspect net.qkf | head -c 9; echo \" ${{PIPESTATUS[0]}}\""],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert int(done.stdout.split()[-1]) in (0, 141)  # 0 if everything was written before the pipe closed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_stdout(folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, "inspect", "net.qkf"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 3
    assert done.stderr == "error: cannot be read or written: No space left on device\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing_behind(folder: Path, number: signal.Signals, code: int) -> None:
    """Sent while a folder of events is being written (fsync is made slow)."""
    slow = (
        "import os, sys, time; real = os.fsync\n"
        "def fsync(handle):\n    print('writing', flush=True); time.sleep(30)\n"
        "os.fsync = fsync\nfrom qkf_deploy.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", slow, "simulate", "net.qkf", "x.npy", "--engine", "reference", "--events", "out"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    while "writing" not in process.stdout.readline():
        assert process.poll() is None
    before = sorted(os.listdir())
    assert any(name.endswith(".partial") for name in before)
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    process.stdout.close()
    assert sorted(os.listdir()) == ["net.qkf", "x.npy"]
