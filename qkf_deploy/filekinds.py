"""What a file is, by its content: a network in place of a run is called that, and not a damaged run."""

from __future__ import annotations

import contextlib
import json
import zipfile
from pathlib import Path
from typing import Literal

from qkf_deploy.errors import InputError

Wanted = Literal["network", "run", "checkpoint", "data", "hardware result", "NIR file", "TOML file", "table"]
"""What a reader reads."""

#: Our files begin so, or have this in their first bytes.
_RUN, _RUN_AT, _RUN_ID = b"SQLite format 3\x00", 68, b"QKFR"
_NUMPY, _HDF5, _HTML = b"\x93NUMPY", b"\x89HDF\r\n\x1a\n", b"<!doctype html"
#: A pickled number that every torch file has first that is no archive.
_OLD_TORCH = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
#: Longest header of a safetensors file, and longest JSON, that is looked into.
_MOST = 10_000_000

#: What each kind is, in words.
_KINDS = {
    "network": "a network",
    "run": "a run, as `evaluate` and `simulate` write it",
    "checkpoint": "a checkpoint",
    "data": "arrays, as data sets are",
    "hardware result": "a result of `hardware`",
    "NIR file": "an HDF5 file, as NIR files are",
    "page": "a page",
}
#: What may stand for what, because only its reader can tell.
_ALSO: dict[str, tuple[Wanted, ...]] = {"NIR file": ("data",)}

#: What to do for what is wanted; {} is the file.
_HINTS: dict[Wanted, str] = {
    "network": "give a .qkf file; `qkf-deploy trace` makes one of a checkpoint",
    "run": "give what `qkf-deploy evaluate NETWORK DATA -o run.sqlite` wrote",
    "checkpoint": "give a .pth, .pt or .safetensors file, or a factory as module:function",
    "data": "give images, a folder, a .npy or a .npz file, `digits` or `animals`",
    "hardware result": "write one with `qkf-deploy hardware NETWORK DATA --chip CHIP --format json`",
    "NIR file": "give a .nir file; `qkf-deploy export NETWORK --to nir` writes one",
    "TOML file": "give a .toml file, or the name of one that comes with the package",
    "table": "give a .csv file",
}
#: The same where the file at hand is a step on the way.
_WAYS: dict[tuple[str, Wanted], str] = {
    ("network", "run"): "make a run of it with `qkf-deploy evaluate {} DATA -o run.sqlite`",
    ("network", "checkpoint"): "give the checkpoint or the factory that it was traced from",
    ("network", "hardware result"): "make one of it with `qkf-deploy hardware {} DATA --chip CHIP --format json`",
    ("network", "NIR file"): "write one with `qkf-deploy export {} --to nir -o net.nir`",
    ("checkpoint", "network"): "make a network of it with `qkf-deploy trace {} -o net.qkf`",
    ("checkpoint", "run"): "make a network and runs of it with `qkf-deploy run {} DATA -o out/`",
    ("run", "network"): "give the .qkf file that was run",
    ("hardware result", "run"): "show it beside a run with `qkf-deploy report RUN --hardware {} -o report.html`",
    ("NIR file", "network"): "make a network of it with `qkf-deploy import {} -o net.qkf`",
}


def refuse_others(path: str | Path, wanted: Wanted, error: type[InputError] = InputError) -> None:
    """Raises ``error`` for a file that is known to be something else; of any other its reader has to judge."""
    found = kind_of(path)
    if found is None or found == wanted or wanted in _ALSO.get(found, ()):
        return
    hint = _WAYS.get((found, wanted), _HINTS[wanted]).format(path)
    of = "a data set" if wanted == "data" else f"a {wanted}"
    raise error(f"is {_KINDS[found]}, not {of}", where=str(path), hint=hint)


def kind_of(path: str | Path) -> str | None:
    """What a file is, or ``None`` where that is not known from its first bytes (or it is no file)."""
    with contextlib.suppress(OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RecursionError):
        if Path(path).is_file():
            return _kind(Path(path))
    return None


def _kind(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(100)
        if head.startswith(_RUN):
            return "run" if head[_RUN_AT : _RUN_AT + 4] == _RUN_ID else None
        if head.startswith(_NUMPY):
            return "data"
        if head.startswith(_HDF5):
            return "NIR file"
        if head.startswith(b"PK\x03\x04"):
            return _archive(path)
        if head[:1] == b"\x80" and _OLD_TORCH in head[:16]:
            return "checkpoint"
        if head.lstrip().lower().startswith(_HTML):
            return "page"
        size = int.from_bytes(head[:8], "little")
        if head[8:9] == b"{" and size < _MOST:
            file.seek(8)
            return _tensors(json.loads(file.read(size)))
        if head.lstrip()[:1] == b"{" and path.stat().st_size < _MOST:
            file.seek(0)
            data = json.loads(file.read())
            return "hardware result" if isinstance(data, dict) and data.get("kind") == "hardware" else None
    return None


def _archive(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return "checkpoint"
    return "data" if names and all(name.endswith(".npy") for name in names) else None


def _tensors(header: object) -> str | None:
    """Of a file of tensors: our networks say so in its header."""
    if not isinstance(header, dict):
        return None
    about = header.get("__metadata__")
    return "network" if isinstance(about, dict) and "qkf" in about else "checkpoint"
