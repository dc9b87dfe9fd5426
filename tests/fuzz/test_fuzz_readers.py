"""Damaged files at every reader: read, or refused with one sentence; within seconds, within 1 GiB, nothing written.

A short seeded run comes with the tests; ``QKF_FUZZ=2000`` damages that many files, ``QKF_FUZZ_SEED`` others.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import resource
import signal
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fuzz_readers import Reader, readers

from qkf_deploy.errors import QkfError

_FILES = int(os.environ.get("QKF_FUZZ", "360"))
_SEED = int(os.environ.get("QKF_FUZZ_SEED", "0"))
_SECONDS, _BYTES = 5, 2**30
#: What a sentence for users does not hold.
_PYTHON = ("Error:", "object is not", "NoneType", "list index", "unhashable", "positional argument")
NAMES = tuple(readers(Path()))


@dataclass(frozen=True)
class Outcome:
    """What became of one file: exit code as of the command line, the message, CPU seconds."""

    code: int
    message: str
    seconds: float


def read(reader: Reader, path: Path) -> Outcome:
    started = time.process_time()
    code, message = 0, ""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            reader.read(path)
    except QkfError as error:
        code, message = error.exit_code, error.message
    except Exception:  # noqa: BLE001 - what the command line calls a bug
        code, message = 70, traceback.format_exc()
    return Outcome(code, message, time.process_time() - started)


def in_children(reader: Reader, paths: list[Path]) -> tuple[list[Outcome], int]:
    """Outcomes of all files, and the most memory (bytes) a child took beyond what it began with.

    One child works through them until one kills it; the next goes on behind that one.
    """
    found: list[Outcome] = []
    peak = 0
    while len(found) < len(paths):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            before = _peak()
            with os.fdopen(writing, "wb") as pipe:
                for path in paths[len(found) :]:
                    signal.setitimer(signal.ITIMER_PROF, 2 * _SECONDS)
                    pickle.dump((read(reader, path), _peak() - before), pipe)
                    pipe.flush()
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            try:
                while True:
                    outcome, used = pickle.load(pipe)
                    found.append(outcome)
                    peak = max(peak, used)
            except EOFError:
                pass
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            found.append(Outcome(-os.WTERMSIG(status), "killed", 2 * _SECONDS))
    return found, peak


def _peak() -> int:
    """Most memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", NAMES)
def test_reader(name: str, tmp_path: Path) -> None:
    reader = readers(tmp_path)[name]
    honest = reader.honest()
    folder = tmp_path / "files"
    folder.mkdir()
    paths = [folder / f"honest{reader.suffix}"]
    paths[0].write_bytes(honest)
    for index in range(max(1, _FILES // len(NAMES))):
        rng = random.Random(f"{name} {_SEED} {index}")
        path = folder / f"{index}{reader.suffix}"
        path.write_bytes(rng.choice(reader.damage)(honest, rng))
        paths.append(path)
    contents = {p: p.read_bytes() for p in paths}
    found, peak = in_children(reader, paths)
    assert found[0].code == 0, found[0].message
    bad = {p.name: o for p, o in zip(paths, found, strict=True) if not _fine(name, o)}
    assert not bad, f"seed {_SEED}: {bad}"
    assert sum(o.code != 0 for o in found) > len(found) // 4  # damage is noticed
    assert peak < _BYTES
    assert {p: p.read_bytes() for p in folder.iterdir()} == contents  # nothing written, nothing changed


def _fine(name: str, outcome: Outcome) -> bool:
    if name == "nir" and outcome.code < 0:
        return True  # the HDF5 library looped or crashed: the importer runs it in a child and refuses the file
    plain = "\n" not in outcome.message and not any(word in outcome.message for word in _PYTHON)
    return outcome.code in (0, 2, 3) and outcome.seconds < _SECONDS and plain


def test_damage_is_repeatable() -> None:
    reader = readers(Path())["npy"]
    honest = reader.honest()
    first, again = (reader.damage[0](honest, random.Random("npy 0 7")) for _ in range(2))
    assert first == again != honest
    assert np.load(io.BytesIO(honest)).shape == (4, 3, 8, 8)
