"""Child processes that run this package's own modules and nothing of the folder they are started in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

#: The paths come last: what the interpreter itself has goes first, whatever lies in them.
_START = (
    "import json, runpy, sys\n"
    "paths, module, *arguments = sys.argv[1:]\n"
    "sys.path += [p for p in json.loads(paths) if p not in sys.path]\n"
    "sys.argv = [module, *arguments]\n"
    "runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def isolated_command(module: str, *arguments: str) -> list[str]:
    """Command line that runs a module in this interpreter, isolated (``-I``).

    The child imports from where this process does, except the current folder, which Python puts first for ``python -m``
    and where anything may lie.

    Args:
        module: of this package, run as ``__main__``.
        *arguments: for the module.
    """
    package = str(Path(__file__).resolve().parents[1])
    here = os.path.realpath(os.curdir)
    paths = [p for p in sys.path if p and os.path.realpath(p) != here]
    return [sys.executable, "-I", "-c", _START, json.dumps([*paths, package]), module, *arguments]
