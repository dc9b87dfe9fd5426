"""How much commands say: tables as a terminal takes them, --quiet, --verbose, progress in logs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from netbuild import small_transformer

import qkf_deploy as qd
from qkf_deploy.cli import run, talk
from qkf_deploy.cli.talk import ProgressLines
from qkf_deploy.display.screen import SCREEN, Screen, on_screen
from qkf_deploy.display.tables import Column, Sheet, to_text

IMAGES = 60
SHEET = Sheet(
    "many", tuple(Column(f"c{i}", f"column {i}") for i in range(9)),
    tuple(tuple(f"{row}.{column}" for column in range(9)) for row in range(50)), footer=("total", *["9"] * 8),
)  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    graph = qd.quantize(small_transformer(), 8)
    qd.save(graph, tmp_path / "net.qkf")
    shape = graph.input.type.shape
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (IMAGES, *shape), dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(*options: str, before: tuple[str, ...] = ()) -> int:
    return run([*before, "simulate", "net.qkf", "images.npy", "--engine", "reference", *options])


def drawn(rows: int | None, width: int | None) -> str:
    token = SCREEN.set(Screen(rows, width))
    try:
        return on_screen(SHEET)
    finally:
        SCREEN.reset(token)


def test_without_a_screen_a_table_is_whole() -> None:
    assert drawn(None, None) == to_text(SHEET)


def test_rows_that_are_left_out_are_counted() -> None:
    text = drawn(7, None)
    assert "6.8" in text
    assert "7.0" not in text
    assert "43 more rows (--rows all)" in text
    assert "total" in text


@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_columns_fit_and_none_is_lost(width: int) -> None:
    text = drawn(None, width)
    assert max(map(len, text.splitlines())) <= max(width, 27)
    assert all(cell in text for row in SHEET.rows for cell in row)
    assert all(f"column {i}" in text for i in range(9))


def test_a_pipe_gets_all_rows(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown() == 0
    assert sum(line.startswith("  images.npy[") for line in capsys.readouterr().out.splitlines()) == IMAGES


@pytest.mark.parametrize("behind", [True, False])
def test_rows_on_request(files: Path, capsys: pytest.CaptureFixture[str], behind: bool) -> None:
    assert (shown("--rows", "3") if behind else shown(before=("--rows", "3"))) == 0
    out = capsys.readouterr().out
    assert sum(line.startswith("  images.npy[") for line in out.splitlines()) == 3
    assert f"{IMAGES - 3} more rows" in out
    assert SCREEN.get() == Screen(), "a command leaves no screen behind"


def test_a_terminal_gets_a_screen(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    assert shown() == 0
    out = capsys.readouterr().out
    assert f"{IMAGES - talk.ROWS} more rows" in out
    table = out.split("counts per image")[0]
    assert max(map(len, table.splitlines())) <= 60
    assert shown("--rows", "all") == 0
    assert "more rows" not in capsys.readouterr().out


@pytest.mark.parametrize("rows", ["0", "-1", "few", "²", ""])
def test_wrong_rows(files: Path, rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("--rows", rows) == 2
    assert "neither a number of rows nor all" in capsys.readouterr().err


def test_quiet_and_verbose(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("-o", "a.sqlite") == 0
    assert "wrote a.sqlite" in capsys.readouterr().err
    assert shown("-o", "b.sqlite", "-q") == 0
    assert capsys.readouterr().err == ""
    assert shown("-v") == 0
    assert "simulating: " in capsys.readouterr().err


def test_progress_in_a_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 4.0, 11.0, 12.0, 22.0])
    monkeypatch.setattr(talk.time, "monotonic", lambda: next(now))
    lines = ProgressLines("simulating")
    for done in (10, 20, 30, 40):
        lines.tick(done, 80)
    assert capsys.readouterr().err.splitlines() == [
        "simulating: 20 of 80 (25%) after 11 s", "simulating: 40 of 80 (50%) after 22 s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words", [("-q", "-v"), ("--verbose", "--quiet"), ("-v", "profiles", "-q"), ("profiles", "-qv")]
)
def test_quiet_and_verbose_exclude_each_other(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, *(() if "profiles" in words else ("profiles",))]) == 2
    captured = capsys.readouterr()
    assert "--quiet and --verbose say the opposite of each other" in captured.err
    assert captured.out == ""
