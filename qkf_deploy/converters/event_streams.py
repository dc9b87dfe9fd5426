"""Event streams as files, for test benches: every spike of every recorded layer as ``t, c, y, x, value``.

A directory holds ``manifest.json`` and one folder per image with one file per layer, ``.npz`` or address-event text.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from qkf_deploy.errors import InputError, UsageError, told
from qkf_deploy.ir.values import EVENT_KINDS
from qkf_deploy.simulators.run import Run
from qkf_deploy.writing import new_folder

Format = Literal["npz", "aer"]
_MANIFEST = "manifest.json"
_VERSION = 1
_LONGEST_STEM = 120  # characters; common file systems allow 255 bytes
_COLUMNS = ("t", "c", "y", "x", "value")
#: Largest tensor that is rebuilt from a file, in elements: a manifest is data from elsewhere.
_MOST_ELEMENTS = 2**32


@dataclass(frozen=True)
class Layer:
    """One layer of a recording.

    Attributes:
        name: node name.
        shape: ``(T, *shape)`` of one image.
        stem: of its files' names.
    """

    name: str
    shape: tuple[int, ...]
    stem: str

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """``(T, C, H, W)``; without lines H is 1, without tokens W too, and of more axes the last two are y and x."""
        steps, *rest = self.shape
        height, width = rest[-2:] if len(rest) > 2 else (1, rest[-1] if len(rest) > 1 else 1)
        return steps, math.prod(rest) // (height * width), height, width

    def file(self, directory: Path, image: int, format_: str) -> Path:
        """Where the events of an image are."""
        return directory / f"image_{image:05d}" / f"{self.stem}.{format_}"


def _layers(shapes: Mapping[str, tuple[int, ...]]) -> list[Layer]:
    names = stems(shapes)
    return [Layer(name, shape, names[name]) for name, shape in shapes.items()]


def stems(names: Iterable[str]) -> dict[str, str]:
    """File names that are their own everywhere: escaped, short, numbered where only case differs."""
    taken: set[str] = set()
    out: dict[str, str] = {}
    for name in names:
        short = quote(name, safe=".#")[:_LONGEST_STEM]
        stem, count = short, 1
        while stem.lower() in taken:
            count += 1
            stem = f"{short}#{count}"
        taken.add(stem.lower())
        out[name] = stem
    return out


def write_events(run: Run, directory: str | Path, fmt: Format = "npz") -> Path:
    """Write the events of every recorded value that consists of spikes or counts, of either polarity.

    Args:
        run: a run with recorded values.
        directory: does not exist yet, or is empty.
        fmt: ``npz`` (one array per column, u32; i32 of a layer with negative spikes) or ``aer`` (text: a header line,
            then one event per line, in order of t, c, y, x).

    Returns:
        The manifest's path.

    Raises:
        UsageError: an unknown format, or nothing was recorded.
        InputError: the directory has files, or cannot be written.
    """
    writers: Mapping[str, Callable[[Layer, np.ndarray], bytes]] = {"npz": _to_npz, "aer": _to_aer}
    if fmt not in writers:
        raise UsageError(f"unknown event format {fmt!r}", hint=f"one of: {', '.join(writers)}")
    kinds = {layer.name: layer.output_kind for layer in run.ledger}
    recorded = {n: v for n, v in run.values.items() if kinds.get(n) in EVENT_KINDS}
    if not recorded:
        raise UsageError("no layer with events was recorded", hint="record the values of some neurons")
    root = Path(directory)
    layers = _layers({name: (v.shape[0], *v.shape[2:]) for name, v in recorded.items()})
    images = next(iter(recorded.values())).shape[1]
    manifest = {
        "version": _VERSION,
        "format": fmt,
        "images": images,
        "columns": _COLUMNS,
        "layers": [{"name": layer.name, "shape": layer.shape, "file": layer.stem} for layer in layers],
    }
    with new_folder(root) as folder:
        for image in range(images):
            for layer in layers:
                path = layer.file(folder, image, fmt)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(writers[fmt](layer, recorded[layer.name][:, image]))
        (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return root / _MANIFEST


def _events(layer: Layer, values: np.ndarray) -> np.ndarray:
    """Non-zero elements of ``(T, *shape)``, int64 ``(n, 5)`` in order of t, c, y, x."""
    grid = values.reshape(layer.grid)
    at = np.nonzero(grid)
    return np.stack([*at, grid[at]], axis=1).astype(np.int64)


def _to_npz(layer: Layer, values: np.ndarray) -> bytes:
    events = _events(layer, values)
    kind = np.int32 if (events[:, 4] < 0).any() else np.uint32  # polarities need a sign
    buffer = io.BytesIO()
    columns: dict[str, Any] = {name: events[:, i].astype(kind) for i, name in enumerate(_COLUMNS)}
    np.savez_compressed(buffer, **columns)
    return buffer.getvalue()


def _to_aer(layer: Layer, values: np.ndarray) -> bytes:
    steps, channels, height, width = layer.grid
    lines = [f"# t c y x value; T={steps} C={channels} H={height} W={width}"]
    lines += [" ".join(map(str, row)) for row in _events(layer, values).tolist()]
    return ("\n".join(lines) + "\n").encode()


def read_events(directory: str | Path) -> dict[str, np.ndarray]:
    """The recorded tensors, by layer: int64 ``(T, B, *shape)``.

    Raises:
        InputError: files that are missing, truncated, or do not fit the manifest.
    """
    root = Path(directory)
    images, format_, layers = _read_manifest(root / _MANIFEST)
    readers: Mapping[str, Callable[[Path], np.ndarray]] = {"npz": _from_npz, "aer": _from_aer}
    out = {}
    for layer in layers:
        tensors = [
            _rebuild(layer, readers[format_](p), p) for p in (layer.file(root, i, format_) for i in range(images))
        ]
        out[layer.name] = np.stack(tensors, axis=1)
    return out


def _read_manifest(path: Path) -> tuple[int, str, list[Layer]]:
    try:
        manifest = json.loads(path.read_text())
        layers = _layers({str(e["name"]): tuple(int(n) for n in e["shape"]) for e in manifest["layers"]})
        images, format_ = int(manifest["images"]), str(manifest["format"])
        known = manifest["version"] == _VERSION and format_ in ("npz", "aer")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"not a recording of events: {told(error)}", where=str(path)) from error
    size = sum(math.prod(layer.shape) for layer in layers) * images
    if not known or images < 1 or any(n < 1 for layer in layers for n in layer.shape) or size > _MOST_ELEMENTS:
        raise InputError("a manifest this version cannot read", where=str(path))
    return images, format_, layers


def _from_npz(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as columns:
            return np.stack([columns[name].astype(np.int64) for name in _COLUMNS], axis=1)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"not a file of events: {told(error)}", where=str(path)) from error


def _from_aer(path: Path) -> np.ndarray:
    try:
        rows = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
        events = np.array(rows, np.int64) if rows else np.empty((0, len(_COLUMNS)), np.int64)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"not a file of events: {told(error)}", where=str(path)) from error
    if events.shape[1:] != (len(_COLUMNS),):
        raise InputError("every line holds t, c, y, x and value", where=str(path))
    return events


def _rebuild(layer: Layer, events: np.ndarray, path: Path) -> np.ndarray:
    grid = np.zeros(layer.grid, np.int64)
    places = events[:, :4]
    if (places < 0).any() or (places >= np.array(grid.shape)).any() or (events[:, 4] == 0).any():
        raise InputError("an event lies outside its layer", where=str(path))
    grid[tuple(places.T)] = events[:, 4]
    return grid.reshape(layer.shape)
