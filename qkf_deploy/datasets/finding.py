"""Files of a data set below a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from qkf_deploy.errors import InputError, UsageError

_TRAIN = ("train", "training")
_TEST = ("test", "val", "validation", "valid")


def files_below(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files with one of the suffixes, sorted by path, linked folders included; a folder is never entered twice.

    Raises:
        InputError: a folder that cannot be read.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()

    def fail(error: OSError) -> None:
        raise InputError(f"cannot be read: {error.strerror}", where=str(error.filename or root)) from error

    for folder, below, names in os.walk(root, onerror=fail, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found += [Path(folder, name) for name in names if name.lower().endswith(tuple(suffixes))]
    return sorted(found)


def part_of(path: Path, part: str | None, own_split: bool = False) -> tuple[Path, tuple[str, ...]]:
    """The folder of a part of a data set, where it keeps its training and its test part in folders of such names.

    Without ``part`` that is the test part. ``own_split``: the data set is split in another way.

    Raises:
        UsageError: a part of a folder without parts.
    """
    folders = {d.name.lower(): d for d in sorted(path.iterdir()) if d.is_dir()}
    train, test = (next((folders[n] for n in names if n in folders), None) for names in (_TRAIN, _TEST))
    if train is None or test is None:
        if part in ("train", "test") and not own_split:
            raise UsageError(f"--part {part}: the folder keeps no parts apart", hint="name the folder of the part")
        return path, ()
    if part == "all":
        return path, ()
    chosen = train if part == "train" else test
    return chosen, () if part else (f"the part {chosen.name} is read (--part train, --part all)",)


def names_below(root: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """Names of files: their place below the folder."""
    return tuple(file.relative_to(root).as_posix() if root in file.parents else file.name for file in files)
