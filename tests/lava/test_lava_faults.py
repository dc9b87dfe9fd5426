"""Runs that fail, hang or are killed end with an error and leave no process and no shared memory behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import lava_cases
import numpy as np
import pytest

from qkf_deploy import cli
from qkf_deploy.bundle import save_graph
from qkf_deploy.errors import EngineError, MissingComponent, ProofError
from qkf_deploy.simulators.lava import bridge, environment
from qkf_deploy.simulators.lava.environment import LavaEnvironment

pytestmark = [
    pytest.mark.lava,
    pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="needs /proc to look for processes"),
]
HERE = Path(__file__).parent
SECONDS = 20.0


def processes(mark: str) -> list[int]:
    """Running processes that name ``mark`` in their command line (a fork keeps that of its parent)."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def segments(pids: list[int]) -> set[Path]:
    """Shared memory these processes have mapped."""
    names: set[str] = set()
    for pid in pids:
        try:
            names |= set(re.findall(r"/dev/shm/psm_\w+", (Path("/proc") / str(pid) / "maps").read_text()))
        except OSError:
            continue
    return {Path(name) for name in names}


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture
def faulty(lava: LavaEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sets the fault; afterwards nothing of the run may be left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setattr(bridge, "_WORKER", "lava_faulty_worker")
    yield lambda fault: monkeypatch.setenv("FAULT", fault)
    assert processes(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def run(granularity: str = "operator", timeout_s: float = 60.0) -> None:
    case = lava_cases.network_case()
    bridge.run(case.graph, case.inputs, timeout_s=timeout_s, granularity=granularity)


@pytest.mark.parametrize("granularity", ["operator", "block"])
def test_an_exception_names_the_node(faulty, granularity: str) -> None:
    faulty("raise")
    with pytest.raises(EngineError, match=r"lif\d: ZeroDivisionError: on purpose") as caught:
        run(granularity)
    assert "in _raise" in str(caught.value.__cause__)


def test_an_error_of_this_package_keeps_its_class(faulty) -> None:
    faulty("refuse")
    with pytest.raises(ProofError, match="on purpose") as caught:
        run()
    assert (caught.value.hint, caught.value.exit_code) == ("nothing to do", 3)


def test_a_hanging_process_ends_at_the_timeout(faulty) -> None:
    faulty("hang")
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"did not end within 3 s \(0 of 3 images"):
        run(timeout_s=3)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("fault", "message"), [("kill", "signal 9"), ("exit", "exit code 3")])
def test_a_dead_process_is_noticed(faulty, fault: str, message: str) -> None:
    faulty(fault)
    started = time.monotonic()
    with pytest.raises(EngineError, match=f"a Lava process was killed: .*{message}"):
        run()
    assert time.monotonic() - started < 15


def test_a_killed_worker_is_noticed(faulty) -> None:
    faulty("kill worker")
    with pytest.raises(EngineError, match="ended with exit code -9"):
        run("block")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ending_the_program_ends_its_processes(faulty, tmp_path: Path, number: int) -> None:
    faulty("hang")
    program = subprocess.Popen(
        [sys.executable, str(HERE / "lava_run_forever.py")], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_until(lambda: len(processes(str(tmp_path))) > 12, "the network never started")
        time.sleep(0.5)
        shared = segments(processes(str(tmp_path)))
        assert shared
    finally:
        os.kill(program.pid, number)
        _, text = program.communicate(timeout=SECONDS)
    assert program.returncode == -number
    assert ("KeyboardInterrupt" in text) == (number == signal.SIGINT)
    wait_until(lambda: not processes(str(tmp_path)), "processes were left behind")
    wait_until(lambda: not any(path.exists() for path in shared), "shared memory was left behind")
    wait_until(lambda: not list(tmp_path.iterdir()), "files were left behind")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"python": "3.11.4"}, "is Python 3.11.4; Lava 0.10 needs CPython 3.10"),
        ({"lava-nc": None}, "has no lava-nc"),
        ({"lava-nc": "0.9.0"}, "has lava-nc 0.9.0; this version works with 0.10"),
        ({"numpy": "2.1.0"}, "has numpy 2.1.0"),
        ({"qkf-deploy": None}, "has qkf-deploy not installed"),
    ],
)
def test_an_unfit_interpreter_is_refused(found: dict[str, str | None], message: str, monkeypatch) -> None:
    good = {"python": "3.10.1", "lava-nc": "0.10.0", "numpy": "1.26.4", "qkf-deploy": environment._own_version()}
    monkeypatch.setattr(environment, "_ask", lambda python: {**good, **found})
    with pytest.raises(MissingComponent, match=re.escape(message)) as caught:
        environment.check.__wrapped__(Path("python"))
    assert caught.value.exit_code == 4
    assert "QKF_LAVA_PYTHON" in (caught.value.hint or "")


def test_the_exit_codes_of_the_command(tmp_path: Path, monkeypatch, capsys) -> None:
    case = lava_cases.network_case()
    save_graph(case.graph, tmp_path / "net.qkf")
    np.save(tmp_path / "images.npy", case.inputs[0].astype(np.uint8))
    command = ["simulate", str(tmp_path / "net.qkf"), str(tmp_path / "images.npy"), "--backend", "lava"]
    monkeypatch.setenv("QKF_LAVA_PYTHON", str(tmp_path / "absent"))
    assert cli.run(command) == 4
    assert cli.run([*command, "--timeout", "0"]) == 2

    def late(*args: object) -> None:
        raise EngineError("the Lava run did not end", where="lava")

    monkeypatch.setattr(bridge, "find_lava", lambda: None)
    monkeypatch.setattr(bridge, "_work", late)
    assert cli.run(command) == 5
    assert "error: lava: the Lava run did not end" in capsys.readouterr().err


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QKF_LAVA_PYTHON", str(tmp_path / "python"))
    with pytest.raises(MissingComponent, match="names no file"):
        environment.find_lava()
    (tmp_path / "python").write_text("not a program")
    with pytest.raises(MissingComponent, match="cannot be run"):
        environment.find_lava()
