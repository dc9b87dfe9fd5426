"""A CSV of labels: which files a data set has, in which order, and what they show."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from qkf_deploy import limits
from qkf_deploy.datasets import labels
from qkf_deploy.errors import InputError
from qkf_deploy.filekinds import refuse_others
from qkf_deploy.ir import Graph

_FILES = ("file", "filename", "file_name", "image", "image_id", "name", "path", "id")
_LABELS = ("label", "class", "class_name", "target", "category", "y")
#: Memory that a byte of the file may take as rows of text.
_BYTES_PER_BYTE = 40
_HINT = "write a line `file,label` per sample, the label as the network's class name or index"


def read_table(path: Path, root: Path, graph: Graph) -> tuple[list[Path], labels.Labels]:
    """Files below ``root`` in the order of the table, and their labels.

    The first line may name the columns; without one, the first column is the file and the second the label.

    Raises:
        InputError: not such a table, files outside the folder, files named twice, or labels that are no classes.
    """
    rows = _rows(path)
    head = [cell.strip().lower() for cell in rows[0]]
    file_at, label_at = (next((head.index(n) for n in names if n in head), None) for names in (_FILES, _LABELS))
    if file_at is not None and label_at is not None:
        rows = rows[1:]
    else:
        file_at, label_at = 0, 1
    short = [i for i, row in enumerate(rows, 1) if len(row) <= max(file_at, label_at)]
    if short or not rows:
        line = short[0] if short else 1
        raise InputError(f"sample {line} has no file and label", where=str(path), hint=_HINT)
    files = [_inside(root, row[file_at].strip(), path) for row in rows]
    seen: set[Path] = set()
    for file in files:
        if file in seen:
            raise InputError(f"names {file.name} twice", where=str(path))
        seen.add(file)
    return files, _understood([row[label_at].strip() for row in rows], graph, str(path))


def _rows(path: Path) -> list[list[str]]:
    refuse_others(path, "table")
    try:
        text = limits.read_whole(path, bytes_per_byte=_BYTES_PER_BYTE).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"not a readable CSV file: {error}".replace("\n", " "), where=str(path), hint=_HINT) from error
    if not rows:
        raise InputError("has no rows", where=str(path), hint=_HINT)
    return rows


def _inside(root: Path, name: str, where: Path) -> Path:
    if not name or "\0" in name or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise InputError(f"{name[:60]!r} is no file below {root}", where=str(where), hint=_HINT)
    return root / name


def _understood(texts: Sequence[str], graph: Graph, where: str) -> labels.Labels:
    """Class names of the network, indices, or other names that are as many as its classes."""
    names = graph.class_names
    if names and set(texts) <= set(names):
        return np.array([names.index(text) for text in texts], np.int64), ()
    if all(text.isdecimal() and text.isascii() and len(text) < 10 for text in texts):
        return labels.checked(np.array([int(text) for text in texts], np.int64), len(texts), graph, where), ()
    found = sorted(set(texts))
    if len(found) != labels.classes_of(graph) or names:
        strange = next(text for text in texts if text not in names)
        raise InputError(f"the label {strange[:60]!r} is no class of the network", where=where, hint=_HINT)
    return np.array([found.index(text) for text in texts], np.int64), (labels.sorted_notice(found),)
