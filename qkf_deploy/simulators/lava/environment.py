"""Finds the Python 3.10 interpreter that has Lava, and says precisely what is wrong with one that has not."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from qkf_deploy.errors import MissingComponent

VARIABLE = "QKF_LAVA_PYTHON"
FOLDER = ".venv-lava"
#: Published for CPython 3.8 to 3.10 only; later ones fail at import (a dataclass with a mutable default).
PYTHON = "3.10"
LAVA = "0.10"
_SECONDS = 60
_INSTALL = (
    f"make a Python {PYTHON} environment: `python{PYTHON} -m venv {FOLDER} && "
    f"{FOLDER}/bin/pip install 'qkf-deploy[lava]'`, or name one in {VARIABLE}"
)
_PROBE = """
import json, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
names = ("lava-nc", "numpy", "qkf-deploy")
print(json.dumps({"python": "%d.%d.%d" % sys.version_info[:3], **{n: version(n) for n in names}}))
"""


@dataclass(frozen=True)
class LavaEnvironment:
    """A usable interpreter.

    Attributes:
        python: path of the interpreter.
        version, lava, numpy: their versions.
    """

    python: Path
    version: str
    lava: str
    numpy: str


def candidates() -> list[Path]:
    """Interpreters to try, in order. One named in ``QKF_LAVA_PYTHON`` is the only one."""
    named = os.environ.get(VARIABLE)
    if named:
        return [Path(named).absolute()]  # not resolved: the link is what makes it an environment
    here = [Path(sys.executable)] if sys.version_info[:2] == (3, 10) else []
    project = Path(__file__).resolve().parents[3]
    return [*here, project / FOLDER / "bin" / "python"]  # never what the current folder holds: it would be run


def find_lava() -> LavaEnvironment:
    """The first usable interpreter.

    Raises:
        MissingComponent: none is there, or the one that is there lacks something (said which).
    """
    present = [p for p in candidates() if p.is_file()]
    if not present:
        named = os.environ.get(VARIABLE)
        what = f"{VARIABLE} names no file: {named}" if named else f"no Python {PYTHON} environment with Lava was found"
        raise MissingComponent(what, where="lava", hint=_INSTALL)
    problems = []
    for python in present:
        try:
            return check(python)
        except MissingComponent as error:
            problems.append(error)
    raise problems[-1]


@functools.cache
def check(python: Path) -> LavaEnvironment:
    """Versions of an interpreter and its packages.

    Raises:
        MissingComponent: wrong Python, wrong or missing Lava, numpy 2, or another version of this package.
    """
    found = _ask(python)
    version, lava, numpy, own = (found[k] or "" for k in ("python", "lava-nc", "numpy", "qkf-deploy"))
    mine = _own_version()
    problem = None
    if not version.startswith(f"{PYTHON}."):
        problem = f"is Python {version}; Lava {LAVA} needs CPython {PYTHON}"
    elif not lava:
        problem = "has no lava-nc"
    elif not lava.startswith(f"{LAVA}."):
        problem = f"has lava-nc {lava}; this version works with {LAVA}"
    elif numpy.split(".")[0] != "1":
        problem = f"has numpy {numpy}; Lava {LAVA} deadlocks with numpy 2"
    elif own != mine:
        problem = f"has qkf-deploy {own or 'not installed'}, here is {mine}"
    if problem is not None:
        raise MissingComponent(problem, where=str(python), hint=_INSTALL)
    return LavaEnvironment(python, version, lava, numpy)


def _ask(python: Path) -> dict[str, str | None]:
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter the user chose
            [str(python), "-I", "-c", _PROBE], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
        return json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise MissingComponent(f"cannot be run: {error}", where=str(python), hint=_INSTALL) from error


def _own_version() -> str:
    try:
        return metadata.version("qkf-deploy")
    except metadata.PackageNotFoundError:
        return ""
