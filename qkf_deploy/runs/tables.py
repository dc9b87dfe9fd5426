"""A stored run as plain tables for other programs: samples, and counts per sample and layer."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from qkf_deploy.errors import MissingComponent
from qkf_deploy.ledger import COUNT_CLASSES
from qkf_deploy.options import RunFormat
from qkf_deploy.runs.file import chosen
from qkf_deploy.runs.packing import unpack
from qkf_deploy.runs.store import Head, Row, Store
from qkf_deploy.writing import new_folder

#: Samples that are unpacked together.
_CHUNK = 500
_SAMPLES = {"sample": int, "name": str, "label": int, "prediction": int, "top": str, "error": str}
_COUNTS = {"sample": int, "layer": str, **dict.fromkeys(COUNT_CLASSES, int), "spikes_per_step": str}

Parts = Iterable[Sequence[Mapping[str, Any]]]


class _Writer(Protocol):
    def __call__(self, path: Path, columns: Mapping[str, type], rows: Parts) -> None: ...


def write_tables(path: str | Path, folder: str | Path, fmt: RunFormat, which: int | str | None = None) -> None:
    """Write ``samples`` and ``counts`` in the format, and ``run.json`` about both; the folder is new.

    A class that cannot occur in a layer is empty there. Lists are texts, numbers with spaces between them. The same run
    gives the same bytes, in whatever order its samples ran.

    Args:
        path: of the run file.
        folder: a place where nothing is, or an empty folder.
        fmt: ``csv``, ``json`` (lists of objects) or ``parquet``.
        which: number or name of a run, where the file holds several.

    Raises:
        UsageError: several runs and none chosen.
        InputError: a damaged run file, or a folder that cannot be written.
        MissingComponent: parquet, and pyarrow is not installed.
    """
    write = _WRITERS[fmt]
    if fmt == "parquet":
        _arrow("pyarrow")
    with Store.open(path) as store, new_folder(folder) as out:
        number = chosen(store, which)
        head = store.runs[number]
        write(out / f"samples.{fmt}", _SAMPLES, ([_sample(row) for row in part] for part in _parts(store, number)))
        write(out / f"counts.{fmt}", _COUNTS, (list(_counts(head, part)) for part in _parts(store, number)))
        text = json.dumps(_about(head, store.notices(number)), sort_keys=True, indent=1, allow_nan=False)
        (out / "run.json").write_text(text + "\n", encoding="utf-8")


def _about(head: Head, notices: Sequence[str]) -> dict[str, Any]:
    static = [layer.to_dict() for layer in head.ledger]
    return {
        "network": head.network, "data": head.data, "samples": head.samples, "config": dict(head.config),
        "time_steps": head.ledger.time_steps, "arithmetic": head.ledger.arithmetic,
        "class_names": list(head.class_names), "provenance": dict(head.provenance),
        "notices": [*head.notices, *notices], "assumptions": head.graph["assumptions"],
        "layers": [{k: v for k, v in layer.items() if k not in ("counts", "spikes_per_step")} for layer in static],
    }  # fmt: skip


def _parts(store: Store, number: int) -> Iterator[list[Row]]:
    part: list[Row] = []
    for row in store.rows(number):
        part.append(row)
        if len(part) == _CHUNK:
            yield part
            part = []
    if part:
        yield part


def _sample(row: Row) -> dict[str, Any]:
    top = " ".join(map(str, row.top))
    return {
        "sample": row.index, "name": row.name, "label": row.label, "prediction": row.prediction, "top": top,
        "error": row.error,
    }  # fmt: skip


def _counts(head: Head, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    ran = [row for row in rows if row.error is None]
    if not ran:
        return
    layers = unpack(head.ledger.layers, [row.counts for row in ran], head.ledger.time_steps)
    for place, row in enumerate(ran):
        for layer in layers:
            found = {name: int(layer.counts[name][place]) if name in layer.counts else None for name in COUNT_CLASSES}
            steps = layer.spikes_per_step
            text = None if steps is None else " ".join(map(str, steps[:, place].tolist()))
            yield {"sample": row.index, "layer": layer.name, **found, "spikes_per_step": text}


def _csv(path: Path, columns: Mapping[str, type], rows: Parts) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        for part in rows:
            writer.writerows(part)


def _json(path: Path, columns: Mapping[str, type], rows: Parts) -> None:
    with path.open("w", encoding="utf-8") as file:
        mark = "["
        for part in rows:
            for row in part:
                file.write(f"{mark}\n{json.dumps(row)}")
                mark = ","
        file.write("[]\n" if mark == "[" else "\n]\n")


def _parquet(path: Path, columns: Mapping[str, type], rows: Parts) -> None:
    arrow = _arrow("pyarrow")
    kinds = {int: arrow.int64(), str: arrow.string()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with _arrow("pyarrow.parquet").ParquetWriter(path, schema) as writer:
        for part in rows:
            writer.write_table(arrow.Table.from_pylist(list(part), schema=schema))


def _arrow(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingComponent("pyarrow is not installed", hint='pip install "qkf-deploy[parquet]"') from error


_WRITERS: Mapping[RunFormat, _Writer] = {"csv": _csv, "json": _json, "parquet": _parquet}
