"""Process groups: ending one completely."""

from __future__ import annotations

import os
import signal
import subprocess
import time

_PATIENCE = ((signal.SIGTERM, 3.0), (signal.SIGKILL, 2.0))
_POLL_SECONDS = 0.02


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
    try:
        os.killpg(leader.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
