"""DVS128 Gesture as published: long recordings, each with a table of the gestures in it.

Source: A. Amir et al., "A Low Power, Fully Event-Based Gesture Recognition System", CVPR 2017. `userNN_LIGHT.aedat` has
its gestures in `userNN_LIGHT_labels.csv` as `class,startTime_usec,endTime_usec`, classes from 1 to 11;
`trials_to_train.txt` and `trials_to_test.txt` list the recordings of each part.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from qkf_deploy import limits
from qkf_deploy.errors import InputError

_CLASSES = 11
_BYTES_PER_BYTE = 40
_LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}


@dataclass(frozen=True)
class Gesture:
    """One sample.

    Attributes:
        file: the recording.
        label: from 0.
        start, end: µs, the end excluded.
        name: as SpikingJelly names it.
    """

    file: Path
    label: int
    start: int
    end: int
    name: str


def is_gesture_folder(path: Path) -> bool:
    """Whether a folder has the published lists of recordings."""
    return any((path / name).is_file() for name in _LISTS.values())


def gestures(root: Path, part: str) -> list[Gesture]:
    """The samples of a part, in the order of SpikingJelly's files: by class, then by name.

    Raises:
        InputError: lists or tables that are damaged.
    """
    parts = ("train", "test") if part == "all" else (part,)
    found = [g for p in parts for name in _lines(root / _LISTS[p]) for g in _of_recording(root, name)]
    if not found:
        raise InputError("lists no gestures", where=str(root / _LISTS[parts[-1]]))
    return sorted(found, key=lambda g: (str(g.label), g.name))


def _lines(path: Path) -> list[str]:
    text = limits.read_whole(path, bytes_per_byte=_BYTES_PER_BYTE).decode("utf-8", "replace")
    names = [line.strip() for line in text.splitlines() if line.strip()]
    for name in names:
        if "/" in name or "\\" in name or "\0" in name or not name.endswith(".aedat"):
            raise InputError(f"lists {name[:60]!r}, which is no recording beside it", where=str(path))
    return names


def _of_recording(root: Path, name: str) -> list[Gesture]:
    stem = name.removesuffix(".aedat")
    path = root / f"{stem}_labels.csv"
    try:
        text = limits.read_whole(path, bytes_per_byte=_BYTES_PER_BYTE).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row][1:]
        numbers = [tuple(_number(cell) for cell in row) for row in rows]
    except (csv.Error, ValueError) as error:
        raise InputError(f"not a table of gestures: {error}".replace("\n", " "), where=str(path)) from error
    seen = [0] * _CLASSES
    found: list[Gesture] = []
    for row in numbers:
        if len(row) != 3 or not 1 <= row[0] <= _CLASSES:
            raise InputError("a row is not class (1 to 11), start and end in µs", where=str(path))
        label, start, end = row
        found.append(Gesture(root / name, label - 1, start, end, f"{label - 1}/{stem}_{seen[label - 1]}"))
        seen[label - 1] += 1
    return found


def _number(cell: str) -> int:
    cell = cell.strip()
    if not (cell.isascii() and cell.isdecimal() and len(cell) <= 18):
        raise ValueError(f"{cell[:40]!r} is not a whole number")
    return int(cell)
