"""Compilations are announced; kernels in the cache are dropped when any code they may have used changes."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.codegen import CPUCodeLibrary

import qkf_deploy
from qkf_deploy.simulators.event import cpu
from qkf_deploy.simulators.event.kernels.alignment import scratch, zeros
from qkf_deploy.simulators.event.kernels.compiling import _OnCompile, kernel, sources_stamp
from qkf_deploy.simulators.event.kernels.event_synapse import width_tag
from qkf_deploy.simulators.event.kernels.inner import inner
from qkf_deploy.simulators.event.kernels.streams import totals

_LOGGER = "qkf_deploy.simulators.event"


def _compiling(function: Callable[..., Any]) -> Any:
    return SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=function)})


def test_first_compilation_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    listener = _OnCompile("AVX2")
    with caplog.at_level(logging.INFO, _LOGGER):
        listener.on_start(_compiling(totals.py_func))
        listener.on_start(_compiling(totals.py_func))
    assert [r.getMessage() for r in caplog.records] == ["compiling kernels for AVX2, once"]


def test_a_long_compilation_says_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    now = 10.0
    listener = _OnCompile("AVX2", lambda: now)
    with caplog.at_level(logging.INFO, _LOGGER):
        for now in (10.0, 11.9, 12.1, 14.0, 14.2):
            listener.on_start(_compiling(totals.py_func))
            listener.on_end(_compiling(np.dot))
            listener.on_end(_compiling(totals.py_func))
    assert [r.getMessage() for r in caplog.records] == [
        "compiling kernels for AVX2, once",
        "compiling kernels: 2 functions done, now totals",
        "compiling kernels: 4 functions done, now totals",
    ]


def test_kernels_of_others_are_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, _LOGGER):
        _OnCompile("AVX2").on_start(_compiling(np.dot))
    assert not caplog.records


def test_a_kernel_is_stamped_with_all_sources() -> None:
    assert totals._cache._cache_file._source_stamp[1] == sources_stamp()


def test_vector_code_is_compiled_by_tile_width_and_plain_loops_once() -> None:
    assert [len(width_tag(cpu.AVX2, units)) for units in (1, 2, 3, 4, 6)] == [1, 2, 3, 4, 6]
    assert {width_tag(cpu.PLAIN, units) for units in (1, 2, 3, 4, 6)} == {(0,)}


def test_what_kernels_call_is_finished_within_them_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished, finish = [], CPUCodeLibrary._optimize_final_module

    def noted(library: CPUCodeLibrary) -> None:
        finished.append(library.name.split(".")[-1])
        finish(library)

    monkeypatch.setattr(CPUCodeLibrary, "_optimize_final_module", noted)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    half = inner()(lambda x: x >> 1)
    quarter = inner()(lambda x: half(half(x)))

    @kernel()
    def eighth(x: int) -> Any:
        return half(quarter(x))

    assert eighth(80) == 10
    assert [name for name in finished if name != "nrt"] == ["eighth"]


def test_scratch_is_aligned_and_zeros_are_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    @kernel()
    def arrays(n: int) -> Any:
        return scratch(n, np.int16), scratch((n, 5), np.int32), zeros(n, np.uint8), zeros((3, n), np.int64)

    for n in (0, 1, 1000):
        made = arrays(n)
        assert [(a.shape, a.dtype.name) for a in made] == [
            ((n,), "int16"), ((n, 5), "int32"), ((n,), "uint8"), ((3, n), "int64")
        ]  # fmt: skip
        assert all(a.flags.c_contiguous and a.ctypes.data % 64 == 0 for a in made)
        assert not made[2].any()
        assert not made[3].any()


_ADD = """
import numpy as np
from qkf_deploy.simulators.event import cpu
from qkf_deploy.simulators.event.kernels.streams import add_streams
out = np.zeros((1, 32), np.uint8)
add_streams(cpu.select().tag, np.zeros((1, 32), np.uint8), np.full((1, 1), 6, np.uint32), 1, out)
print(out.sum(), sum(add_streams.stats.cache_hits.values()))
"""


def test_a_changed_helper_is_compiled_again(tmp_path: Path) -> None:
    """The helper lies in another file than the kernel: numba alone would run the old one."""
    package = tmp_path / "qkf_deploy"
    shutil.copytree(Path(qkf_deploy.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run() -> str:
        command = [sys.executable, "-c", _ADD]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert run() == "2 0"
    assert run() == "2 1"
    helper = package / "simulators" / "event" / "kernels" / "vector_ir.py"
    code = helper.read_text()
    assert code.count("ir.Constant(kind, [1] * 32)") == 1
    helper.write_text(code.replace("ir.Constant(kind, [1] * 32)", "ir.Constant(kind, [3] * 32)"))
    assert run() == "5 0"
