"""Hostile files: a typed error and exit 3, within bounds of memory and time, and nothing half-written."""

from __future__ import annotations

import os
import resource
import signal
import traceback
from pathlib import Path

import hostile
import pytest

from qkf_deploy.cli import run
from qkf_deploy.converters.nir import read
from qkf_deploy.converters.nir.safety import read_content
from qkf_deploy.converters.onnx.file import load_onnx
from qkf_deploy.errors import QkfError

EXIT_BAD_FILE = 3
_MEMORY = 2**30  # beyond what the process has already
_SECONDS = 60


def guarded(call) -> int:
    """Run in a forked process with limits; its exit code, or a failure for a crash, a time-out or too much memory."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
            signal.alarm(_SECONDS)
            code = call()
        except BaseException:  # noqa: BLE001 - the parent sees exit 99
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status), f"killed by signal {os.WTERMSIG(status)}"
    return os.WEXITSTATUS(status)


def read_onnx(path: Path) -> int:
    try:
        load_onnx(path)
    except QkfError as error:
        return error.exit_code if error.message else 99
    return 0


def import_nir(path: Path, out: Path) -> int:
    """The import command, without its child process (this one is a child with limits already, and starting is slow)."""
    if path.stat().st_size % 4:  # every fourth file with it
        read.read_isolated = read_content
    return run(["import", str(path), "-o", str(out)])


def outcome(kind: str, path: Path, out: Path) -> int:
    if kind == "nir":
        return guarded(lambda: import_nir(path, out))
    if kind == "qkf":
        return guarded(lambda: run(["export", str(path), "--to", "onnx", "-o", str(out)]))
    return guarded(lambda: read_onnx(path))


CASES = [
    *(("nir", n, m) for n, m in hostile.NIR.items()),
    *(("qkf", n, m) for n, m in hostile.QKF.items()),
    *(("onnx", n, m) for n, m in hostile.ONNX.items()),
]
FLIPPED = [
    *(("nir", n, m) for n, m in hostile.NIR_FLIPPED.items()),
    *(("qkf", n, m) for n, m in hostile.QKF_FLIPPED.items()),
    *(("onnx", n, m) for n, m in hostile.ONNX_FLIPPED.items()),
]


def ids(cases):
    return [f"{kind}: {name}" for kind, name, _ in cases]


@pytest.mark.parametrize(("kind", "name", "make"), CASES, ids=ids(CASES))
def test_refused(kind, name, make, tmp_path):
    path, out = tmp_path / f"file.{kind}", tmp_path / "out"
    make(path)
    assert outcome(kind, path, out) == EXIT_BAD_FILE
    assert not out.exists()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("kind", "name", "make"), FLIPPED, ids=ids(FLIPPED))
def test_flipped_bits_are_refused_or_harmless(kind, name, make, tmp_path):
    """A flipped bit inside a weight is a different, valid file; anywhere else it must be noticed without a crash."""
    path, out = tmp_path / f"file.{kind}", tmp_path / "out"
    make(path)
    code = outcome(kind, path, out)
    assert code in (0, EXIT_BAD_FILE)
    assert out.exists() == (code == 0 and kind != "onnx")


def test_enough_cases():
    assert len(CASES) >= 100
    assert min(len(c) for c in (hostile.NIR, hostile.QKF, hostile.ONNX)) >= 20
