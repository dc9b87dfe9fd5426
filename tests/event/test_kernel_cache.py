"""Stored kernels: damage counts as absence and is replaced, races end well, a disk that takes nothing is said once."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import qkf_deploy
from qkf_deploy.simulators.event.kernels import disk
from qkf_deploy.simulators.event.kernels.disk import CheckedFiles
from qkf_deploy.simulators.event.kernels.streams import totals

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "one bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "first byte": lambda data: bytes([data[0] ^ 128]) + data[1:],
    "text": lambda data: b"hello\n" * 100,
    "zeros": lambda data: bytes(len(data)),
    "a pickle that ends the program": lambda data: b"cbuiltins\nexit\n(I0\ntR.",
}


def files(folder: Path) -> CheckedFiles:
    return CheckedFiles(str(folder), "kernel", "stamp")


def test_kernels_use_it() -> None:
    assert isinstance(totals._cache._cache_file, CheckedFiles)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_damage(damage: Callable[[bytes], bytes], suffix: str, tmp_path: Path) -> None:
    files(tmp_path).save("signature", [1, 2])
    assert files(tmp_path).load("signature") == [1, 2]
    (path,) = tmp_path.glob(f"*.{suffix}")
    path.write_bytes(damage(path.read_bytes()))
    assert files(tmp_path).load("signature") is None
    files(tmp_path).save("signature", [3])
    assert files(tmp_path).load("signature") == [3]


def test_two_signatures_under_one_name(tmp_path: Path) -> None:
    """Two processes that began with an empty index take the same file name: neither gets the other's code."""
    files(tmp_path).save("one", [1])
    (data,) = tmp_path.glob("*.nbc")
    kept = data.read_bytes()
    for path in tmp_path.iterdir():
        path.unlink()
    files(tmp_path).save("two", [2])
    data.write_bytes(kept)
    assert files(tmp_path).load("two") is None


def test_other_sources(tmp_path: Path) -> None:
    files(tmp_path).save("signature", [1])
    assert CheckedFiles(str(tmp_path), "kernel", "another stamp").load("signature") is None


def test_a_full_disk_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: CheckedFiles, path: str) -> None:
        raise OSError(28, "No space left on device")

    disk.not_stored.cache_clear()
    monkeypatch.setattr(CheckedFiles, "_open_for_write", full)
    with caplog.at_level(logging.WARNING):
        for key in ("one", "two"):
            files(tmp_path).save(key, [1])
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        "compiled kernels cannot be stored (No space left on device)"
    ]
    assert files(tmp_path).load("one") is None


_ADD = """
import numpy as np
from qkf_deploy.simulators.event import cpu
from qkf_deploy.simulators.event.kernels.streams import add_streams
out = np.zeros((1, 32), np.uint8)
add_streams(cpu.select().tag, np.zeros((1, 32), np.uint8), np.full((1, 1), 6, np.uint32), 1, out)
print(out.sum())
"""


def cached_in(folder: Path) -> dict[str, str]:
    root = str(Path(qkf_deploy.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": root, "NUMBA_CACHE_DIR": str(folder)}


@pytest.mark.parametrize("processes", [int(os.environ.get("QKF_RACE", "2"))])
def test_cold_cache_race(processes: int, tmp_path: Path) -> None:
    """Several processes fill an empty cache at once (``QKF_RACE=8``); a damaged one is compiled again."""
    environment = cached_in(tmp_path)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _ADD], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    assert {p.communicate() for p in [start() for _ in range(processes)]} == {("2\n", "")}
    stored = [p for p in tmp_path.rglob("*") if p.suffix in (".nbi", ".nbc")]
    assert stored
    for path in stored:
        path.write_bytes(path.read_bytes()[:-7])
    assert start().communicate() == ("2\n", "")


def said(line: list[str], folder: Path) -> list[str]:
    """What the program warns of, once its result is right; skips where the line itself cannot be run."""
    environment = {**cached_in(folder), "HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300, check=False)
    if done.returncode in (1, 77, 127) and any(tool in done.stderr for tool in ("setpriv", "unshare", "mount")):
        pytest.skip(f"this machine does not let us: {done.stderr.splitlines()[-1]}")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    return done.stderr.splitlines()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_the_cache_of_another_user(tmp_path: Path) -> None:
    """A user who can read everything and write nowhere, before and after the cache holds the kernels."""
    reads = "+dac_read_search"
    nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", reads, "--ambient-caps", reads]
    expected = [
        "compiled kernels cannot be stored (no folder for them can be written): they are compiled again each time"
    ]
    line = ["setpriv", *nobody, sys.executable, "-c", _ADD]
    assert said(line, tmp_path) == expected
    assert not any(tmp_path.iterdir())
    assert said([sys.executable, "-c", _ADD], tmp_path) == []
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert said(line, tmp_path) == expected
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before != {}


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=8k none {shlex.quote(str(tmp_path))} || exit 77"
    script = f"{mount}\nexec {shlex.join([sys.executable, '-c', _ADD])}"
    expected = "compiled kernels cannot be stored (No space left on device): they are compiled again each time"
    assert said(["unshare", "-rm", "sh", "-c", script], tmp_path) == [expected]
