"""`qkf-deploy evaluate`: what it prints and how it ends, on disks that are full and folders that cannot be written."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from evaluations import ENVIRONMENT, command, rows, run, wait_for
from PIL import Image

import qkf_deploy as qd
from qkf_deploy import cli
from qkf_deploy.cli import evaluation_progress
from qkf_deploy.cli.evaluation_progress import described, duration, watched
from qkf_deploy.evaluation.tally import Tally


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def call(*arguments: str | Path) -> int:
    return cli.run([*map(str, arguments)])


def test_results_on_stdout_and_progress_on_stderr(place, out, capsys, monkeypatch) -> None:
    monkeypatch.setattr(evaluation_progress, "INTERVAL_S", 0.02)
    assert call("evaluate", place.network, place.data, "-o", out, "--shard", "1") == 0
    said = capsys.readouterr()
    right = sum(row.prediction == row.label for row in place.rows)
    assert f"{right} of 48" in said.out
    lines = said.err.splitlines()
    assert len(lines) > 1
    assert all(
        re.fullmatch(r"evaluating: \d+ of 48 \(.*\)(, .* per second, .* left)?(, top-1 .*%)?(, .* per sample .*)?", li)
        for li in lines
    )


def test_without_a_terminal_a_short_run_says_nothing_on_stderr(place, out, capsys) -> None:
    assert call("evaluate", place.network, place.data, "-o", out) == 0
    assert capsys.readouterr().err == ""


def test_how_the_data_were_understood_is_said_before_they_run(place, tmp_path, capsys, digits_data) -> None:
    """Folders that are no classes: on stderr, when it begins and when it goes on, and kept with the run."""
    (tmp_path / "val" / "only").mkdir(parents=True)
    Image.fromarray(digits_data.test_images[0, 0]).save(tmp_path / "val" / "only" / "1.png")
    wanted = "note: no labels: 1 folder is not the network's 10 classes, nor named like them\n"
    assert call("evaluate", place.network, tmp_path / "val", "-o", tmp_path / "run.sqlite") == 0
    assert capsys.readouterr().err == wanted
    assert call("evaluate", "--resume", tmp_path / "run.sqlite") == 0
    assert capsys.readouterr().err == wanted
    assert call("-q", "evaluate", "--resume", tmp_path / "run.sqlite") == 0
    assert capsys.readouterr().err == ""
    assert wanted[6:-1] in qd.load_run(tmp_path / "run.sqlite").notices


def test_a_bar_on_a_terminal(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with watched() as watch:
        watch.tick(Tally(200, stored=50, before=10, labelled=50, hits=40, seconds=20.0))
    assert "50 of 200 (25.0%), 2 per second, 1 min 15 s left, top-1 80.00%" in terminal.getvalue()


def test_a_tally_on_a_line() -> None:
    assert described(Tally(0)) == "0 of 0 (0.0%)"
    assert described(Tally(50_000, 640, 0, 2, seconds=64.0)) == (
        "640 of 50,000 (1.3%), 2 failed, 10 per second, 1 h 22 min left"
    )
    assert described(Tally(4, 2, labelled=2, hits=1, energy_pj=4.881e6)) == (
        "2 of 4 (50.0%), top-1 50.00%, 4.881 µJ per sample (paper-eq23)"
    )
    assert [duration(s) for s in (0.4, 59.4, 59.6, 3599.6, 41400)] == [
        "0 s", "59 s", "1 min 00 s", "1 h 00 min", "11 h 30 min",
    ]  # fmt: skip


def test_the_same_text_whatever_the_hash_seed_and_the_shards(place, tmp_path) -> None:
    said = []
    for seed, shard in (("1", "1"), ("2", "8")):
        arguments = ("evaluate", place.network, place.data, "-o", tmp_path / f"{seed}.sqlite", "--limit", "12")
        said.append(run(*arguments, "--shard", shard, "--format", "json", env={"PYTHONHASHSEED": seed}))
    assert said[0].returncode == 0
    assert said[0].stdout == said[1].stdout
    assert rows(tmp_path / "1.sqlite") == rows(tmp_path / "2.sqlite") == place.rows[:12]


USAGE = {
    "neither": [],
    "both": ["NET", "DATA", "-o", "OUT", "--resume", "RUN"],
    "no data": ["NET", "-o", "OUT"],
    "no network": ["-o", "OUT"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_usage(place, tmp_path, arguments, capsys) -> None:
    shutil.copy(place.network.parent / "undisturbed.sqlite", tmp_path / "whole.sqlite")
    given = {
        "NET": place.network, "DATA": place.data, "OUT": tmp_path / "new.sqlite", "RUN": tmp_path / "whole.sqlite"
    }  # fmt: skip
    assert call("evaluate", *(given.get(a, a) for a in arguments)) == 2
    assert "try:" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--resize"], ["--limit", "3"], ["--batch", "4"], ["--images-key", "images"]])
def test_what_decides_results_cannot_change_in_a_run(place, tmp_path, option, capsys) -> None:
    whole = shutil.copy(place.network.parent / "undisturbed.sqlite", tmp_path)
    assert call("evaluate", "--resume", whole, *option) == 2
    assert f"{option[0]} cannot change in a run that was begun" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"not a run file", b"SQLite format 3\0" + bytes(200)])
def test_resume_of_something_else(tmp_path, content, capsys) -> None:
    path = tmp_path / "run.sqlite"
    path.write_bytes(content)
    assert call("evaluate", "--resume", path) == 3
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(place, out, number, code) -> None:
    program = subprocess.Popen(
        command("evaluate", place.network, place.data, "-o", out, "--shard", "1"),
        stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    wait_for(lambda: out.exists() and len(rows(out)) >= 2)
    program.send_signal(number)
    said = program.communicate(timeout=60)[1]
    assert program.returncode == code
    found = rows(out)
    assert f"{len(found)} of 48 samples are stored; go on with: qkf-deploy evaluate --resume {out}" in said
    assert found == place.rows[: len(found)]
    assert sorted(out.parent.iterdir()) == [out]  # nothing lies beside it
    assert call("evaluate", "--resume", out) == 0
    assert rows(out) == place.rows


def mounted(folder: Path, options: str, *arguments: str | Path, after: str = "") -> subprocess.CompletedProcess[str]:
    """A command that sees a small file system at a folder."""
    folder.mkdir()
    line = shlex.join(command(*arguments))
    script = (
        f"mount -t tmpfs -o {options} none {shlex.quote(str(folder))} || exit 77\n{line}\ncode=$?\n{after}\nexit $code"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=120, env=ENVIRONMENT
    )
    if done.returncode in (1, 77) and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip("this machine lets nobody mount")
    return done


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_full_disk(place, tmp_path) -> None:
    """What was stored stays readable, and the run goes on where there is room."""
    small, kept = tmp_path / "small", tmp_path / "kept"
    kept.mkdir()
    arguments = ("evaluate", place.network, place.data, "-o", small / "run.sqlite", "--shard", "1")
    done = mounted(small, "size=300k", *arguments, after=f"cp {small}/run.sqlite* {kept}")
    assert done.returncode == 3, done.stderr
    assert "disk is full" in done.stderr
    stored = int(re.search(r"note: (\d+) of 48 samples are stored", done.stderr)[1])
    assert rows(kept / "run.sqlite") == place.rows[:stored]
    assert 0 < stored < 48
    assert run("evaluate", "--resume", kept / "run.sqlite").returncode == 0
    assert rows(kept / "run.sqlite") == place.rows


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit")
def test_files_that_may_not_grow(place, tmp_path) -> None:
    """As with a quota: what was stored stays readable, and the run goes on without the limit."""
    path = tmp_path / "run.sqlite"
    line = ["prlimit", "--fsize=200000", *command("evaluate", place.network, place.data, "-o", path, "--shard", "1")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    assert done.returncode == 3, done.stderr
    assert "a quota or a limit of sizes reached" in done.stderr
    stored = int(re.search(r"note: (\d+) of 48 samples are stored", done.stderr)[1])
    assert 0 < stored < 48
    assert rows(path) == place.rows[:stored]
    assert run("evaluate", "--resume", path).returncode == 0
    assert rows(path) == place.rows


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_folder_that_cannot_be_written(place, tmp_path) -> None:
    folder = tmp_path / "fixed"
    done = mounted(folder, "ro", "evaluate", place.network, place.data, "-o", folder / "run.sqlite")
    assert done.returncode == 3, done.stderr
    assert re.search(r"run\.sqlite: cannot (write here|be written)", done.stderr)
    assert "Traceback" not in done.stderr
