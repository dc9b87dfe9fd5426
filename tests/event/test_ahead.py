"""Compiling with helpers: what is listed is what runs, helpers store what they make, and none is relied on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import typeof

import qkf_deploy as qd
from qkf_deploy.simulators.event import ahead, attention_steps, cpu, layers, neurons, steps, values
from qkf_deploy.simulators.event.engine import Engine
from qkf_deploy.simulators.event.kernels import lists
from qkf_deploy.simulators.event.needed import needed

#: Where kernels are called from, by the names they have there.
CALLS = {
    layers: ("event_synapse", "dense_synapse"),
    neurons: ("pool_fire",),
    values: ("class_counts", "column_sums"),
    lists: ("list_rows",),
    steps: ("add_streams",),
    attention_steps: ("token_gate", "channel_gate", "self_attention"),
}


def test_what_is_listed_is_what_a_run_calls(digits_int8: qd.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    called: set[Any] = set()

    def noted(kernel: Any) -> Any:
        def call(*arguments: Any) -> Any:
            called.add((kernel, tuple(typeof(a) for a in arguments)))
            return kernel(*arguments)

        return call

    for module, names in CALLS.items():
        for name in names:
            monkeypatch.setattr(module, name, noted(getattr(module, name)))
    engine = Engine(digits_int8)
    images = np.random.default_rng(1).integers(0, 17, (1, 3, *digits_int8.input.type.shape))
    engine.run(images.astype(np.int64))
    assert {(job.kernel, job.types) for job in needed(digits_int8, engine.plan, engine.isa)} == called


_HELPED = """
import numpy as np
from numba import typeof
from qkf_deploy.simulators.event import ahead, cpu
from qkf_deploy.simulators.event.needed import Job
from qkf_deploy.simulators.event.kernels.streams import add_streams
streams = [np.zeros((1, 1), np.uint32), np.zeros((1, 32), np.uint8)]
tag, out = cpu.PLAIN.tag, streams[1]
jobs = [Job(add_streams, tuple(map(typeof, (tag, a, out, 1, out))), 1.0) for a in streams]
helper = ahead._start()
assert not any(job.is_stored for job in jobs)
HOW
print([job.is_stored for job in jobs], len(add_streams.overloads), len(add_streams.stats.cache_misses))
"""


def helped(how: str, folder: Path) -> str:
    root = str(Path(qd.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "NUMBA_CACHE_DIR": str(folder)}
    line = [sys.executable, "-c", _HELPED.replace("HOW", how)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout.strip()


def test_a_helper_stores_what_it_compiles(tmp_path: Path) -> None:
    assert helped("ahead._feed(helper, jobs[:]); helper.communicate()", tmp_path) == "[True, True] 0 0"


def test_a_dead_helper_costs_the_job_it_had(tmp_path: Path) -> None:
    """What it leaves undone is compiled by this process when it is called."""
    how = "waiting = jobs[:]; helper.kill(); helper.wait(); ahead._feed(helper, waiting); print(len(waiting))"
    assert helped(how, tmp_path) == "1\n[False, False] 0 0"


def test_without_an_interpreter_there_are_no_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert ahead._start() is None


def test_one_processor_needs_no_helpers(digits_int8: qd.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Engine(digits_int8).plan
    monkeypatch.setattr(ahead, "_processors", lambda: 1)
    monkeypatch.setattr(ahead, "_missing", lambda jobs: list(jobs))
    monkeypatch.setattr(ahead, "_compile", lambda jobs, helpers: pytest.fail("compiled"))
    ahead.compile_missing(digits_int8, plan, cpu.select())


def test_whoever_comes_second_waits(tmp_path: Path) -> None:
    order: list[Any] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with ahead._alone(tmp_path) as is_first:
            order.append(is_first)

    other = threading.Thread(target=second)
    other.start()
    with ahead._alone(tmp_path) as is_first:
        inside.set()
        other.join(0.3)
        order.append(is_first)
    other.join()
    assert order == [True, False]
