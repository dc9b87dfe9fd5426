"""SIGKILL at any time: what was acknowledged stays, and the end is that of an undisturbed run.

``QKF_KILLS=100 pytest tests/evaluation/test_kills.py`` kills a hundred times over all held-out digits; the suite does
it a few times. ``-rP`` shows what was killed.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from evaluations import ENVIRONMENT, rows, spawned

import qkf_deploy as qd

KILLS = int(os.environ.get("QKF_KILLS", "0"))
#: Runs or resumes, and says on stdout what is stored as soon as it is. Arguments: network, data, store, jobs, shard.
PROGRAM = """
import os, sys
import qkf_deploy as qd
if __name__ == "__main__":
    network, data, out, jobs, shard = sys.argv[1:]
    options = {"jobs": int(jobs), "shard": int(shard), "tick": lambda tally: print(tally.stored, flush=True)}
    if os.path.exists(out):
        qd.resume(out, **options)
    else:
        qd.evaluate(network, data, out, **options)
"""


def killed_until_done(
    place, data: Path, wanted, folder: Path, kills: int, jobs: list[int], seed: int
) -> dict[str, int]:
    """Kill programs and workers at random until so many have been killed; start again whenever a run is complete."""
    rng = random.Random(seed)
    script = folder / "program.py"
    script.write_text(PROGRAM)
    counts = {"coordinators": 0, "workers": 0, "runs": 0, "lost": 0, "twice": 0}
    out = folder / "run-0.sqlite"
    while counts["coordinators"] + counts["workers"] < kills or out.exists() or not counts["runs"]:
        said = folder / "said"
        arguments = [script, place.network, data, out, rng.choice(jobs), rng.choice([1, 3, 8])]
        before = rows(out) if out.exists() else []
        with said.open("w") as stdout:
            program = subprocess.Popen(
                [sys.executable, *map(str, arguments)], stdout=stdout, stderr=subprocess.DEVNULL, env=ENVIRONMENT
            )
            finished = False
            if counts["coordinators"] + counts["workers"] < kills:
                finished = disturb(program, rng, counts, 2.0 if jobs == [1] else 10.0)
            code = program.wait()
        assert finished or code in (0, -9), code
        acknowledged = int([0, *said.read_text().split()][-1])
        after = rows(out) if out.exists() else []
        counts["lost"] += max(0, acknowledged - len(after)) + sum(row not in after for row in before)
        counts["twice"] += len(after) - len({row.index for row in after})
        assert [row for row in after if row != wanted[row.index]] == []
        if code == 0:
            assert after == wanted
            counts["runs"] += 1
            out = folder / f"run-{counts['runs']}.sqlite"
    return counts


def disturb(program: subprocess.Popen[bytes], rng: random.Random, counts: dict[str, int], longest: float) -> bool:
    """Kill workers now and then, in the end the program; True if it was done before that."""
    end = time.monotonic() + rng.uniform(0.3, longest)
    while program.poll() is None:
        time.sleep(rng.uniform(0.05, 0.5))
        workers = spawned(psutil.Process(program.pid)) if program.poll() is None else []
        if workers and rng.random() < 0.3:
            rng.choice(workers).kill()
            counts["workers"] += 1
        if time.monotonic() > end and program.poll() is None:
            program.kill()
            counts["coordinators"] += 1
            return False
    return True


def test_a_few_kills(place, tmp_path) -> None:
    counts = killed_until_done(place, place.data, place.rows, tmp_path, kills=3, jobs=[1], seed=1)
    assert (counts["lost"], counts["twice"]) == (0, 0)
    assert counts["runs"] >= 1


if KILLS:

    def test_many_kills(place, digits_data, tmp_path) -> None:
        data = tmp_path / "digits.npz"
        np.savez(data, images=digits_data.test_images, labels=digits_data.test_labels)
        qd.evaluate(place.network, data, tmp_path / "undisturbed.sqlite")
        wanted = rows(tmp_path / "undisturbed.sqlite")
        assert len(wanted) == 360
        counts = killed_until_done(place, data, wanted, tmp_path, kills=KILLS, jobs=[1, 2], seed=0)
        logging.getLogger(__name__).warning("%s", counts)
        assert (counts["lost"], counts["twice"]) == (0, 0)
        assert counts["coordinators"] + counts["workers"] >= KILLS
