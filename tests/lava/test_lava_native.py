"""Starts the tests that import Lava, in the Lava environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qkf_deploy.simulators.lava.environment import LavaEnvironment

SECONDS = 170


@pytest.mark.lava
@pytest.mark.slow
def test_in_the_lava_environment(lava: LavaEnvironment) -> None:
    """Every operator alone, processes by themselves, Lava's own processes, imports on Python 3.10."""
    if Path(sys.executable) == lava.python:
        pytest.skip("this is the Lava environment: its tests run by themselves")
    folder = Path(__file__).parent / "native"
    done = subprocess.run(
        [str(lava.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", str(folder)],
        capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
