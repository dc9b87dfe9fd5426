"""Process groups: who is in one, and ending one completely."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

_PATIENCE = ((signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0))
_POLL_SECONDS = 0.02
_PROC = Path("/proc")


def end_group(leader: subprocess.Popen[bytes]) -> None:
    """End every process of the group that ``leader`` leads; returns when none is left.

    SIGTERM first: multiprocessing's resource tracker ignores it, outlives the others and frees their shared memory.
    """
    for number, seconds in _PATIENCE:
        if not _alive(leader):
            break
        try:
            os.killpg(leader.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + seconds
        while _alive(leader) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    leader.wait()


def _alive(leader: subprocess.Popen[bytes]) -> bool:
    leader.poll()  # a leader that ended but was not waited for would still count as a member
    if (_PROC / "self" / "stat").is_file():
        return bool(members(leader.pid))
    try:
        os.killpg(leader.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def members(group: int) -> list[int]:
    """Running processes of a group, from /proc (Linux). Ended ones that nobody has waited for yet are left out."""
    out = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        state, _, its_group = stat.rpartition(")")[2].split()[:3]  # the name before it may hold anything
        if int(its_group) == group and state not in "ZX":
            out.append(int(entry.name))
    return out
