"""Results under their final names are whole or absent; nothing but regular files is ever replaced."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qkf_deploy.errors import InputError
from qkf_deploy.writing import check_file, check_folder, new_folder, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_new_files_and_folders_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"x")
        with new_folder(tmp_path / "folder") as folder:
            (folder / "inside").write_bytes(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE((tmp_path / "folder" / "inside").stat().st_mode) == 0o666 & ~mask


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o640)


def test_links_to_files_stay_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert names(tmp_path / "elsewhere") == ["real"]


def not_files(folder: Path) -> dict[str, Path]:
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "to-null").symlink_to("/dev/null")
    (folder / "read-only").write_bytes(b"old")
    (folder / "read-only").chmod(0o444)
    (folder / "folder").mkdir()
    (folder / "file").write_bytes(b"old")
    return {
        "regular": folder / "pipe",
        "link to nothing": folder / "dangling",
        "not a regular": folder / "to-null",
        "read-only": folder / "read-only",
        "a folder": folder / "folder",
        "cannot write": folder / "file" / "x",
        "no such folder|No such file": folder / "nowhere" / "x",
    }


def test_anything_else_is_refused_before_and_at_writing(tmp_path: Path) -> None:
    places = not_files(tmp_path)
    before = names(tmp_path)
    null = os.lstat("/dev/null")
    for what, path in places.items():
        for write in (check_file, lambda p: write_atomically(p, b"new")):
            with pytest.raises(InputError, match=what) as caught:
                write(path)
            assert caught.value.hint
    with pytest.raises(InputError, match="not a regular file"):
        write_atomically("/dev/null", b"new")
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)
    assert os.lstat("/dev/null").st_ino == null.st_ino
    assert names(tmp_path) == before
    assert (tmp_path / "read-only").read_bytes() == b"old"


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def stopped() -> None:
        with new_folder(target) as folder:
            (folder / "a").write_text("x")
            assert not target.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert names(tmp_path) == []
    target.mkdir()
    with new_folder(target) as folder:
        (folder / "a").write_text("x")
    assert names(target) == ["a"]
    with pytest.raises(InputError, match="has files"), new_folder(target):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        check_folder(tmp_path / "file")


_WRITER = """
import sys, time
from pathlib import Path
from qkf_deploy import writing
path = Path(sys.argv[1])
if sys.argv[2] == "folder":
    with writing.new_folder(path) as folder:
        (folder / "a").write_text("half")
        print("ready", flush=True)
        time.sleep(60)
writing.os.fsync = lambda handle: (print("ready", flush=True), time.sleep(60))
writing.write_atomically(path, b"half")
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(target), kind], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        held = names(tmp_path)
        assert len(held) == 1
        assert held[0] != "out"
        write_atomically(target, b"other")  # while the first one lives: its temporary name is not touched
        assert set(names(tmp_path)) == {*held, "out"}
        target.unlink()
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert names(tmp_path) == held
    write_atomically(target, b"new")
    assert names(tmp_path) == ["out"]
    assert target.read_bytes() == b"new"


def test_two_writers_of_one_place_leave_one_whole_file(tmp_path: Path) -> None:
    code = (
        "import sys; from qkf_deploy.writing import write_atomically\n"
        "for _ in range(40): write_atomically(sys.argv[1], sys.argv[2].encode() * 100_000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "f"), letter]) for letter in "abc"]
    deadline = time.monotonic() + 60
    assert [w.wait(timeout=max(1.0, deadline - time.monotonic())) for w in writers] == [0, 0, 0]
    assert names(tmp_path) == ["f"]
    data = (tmp_path / "f").read_bytes()
    assert data in (b"a" * 100_000, b"b" * 100_000, b"c" * 100_000)
