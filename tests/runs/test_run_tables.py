"""Runs as plain tables for other programs."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from digits_network import DigitsNetwork

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.runs import content
from qkf_deploy.runs.store import Row, Store

LABELS = (3, 1, -1)


@pytest.fixture(scope="module")
def path(network: DigitsNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run.sqlite"
    images = network.run.ledger.images
    head = content.head(network.integer_graph, "", images + 1, {})
    labels = [LABELS[i % 3] for i in range(images)]
    rows = content.rows(network.run, content.About([f'{i},\n"é".png' for i in range(images)], labels))
    rows.append(Row(images, "broken", 2, None, (), b"", "a damaged image"))
    random.Random(0).shuffle(rows)
    with Store.create(path, [head]) as store:
        for row in rows:
            store.add(0, [row], notices=["one notice"])
    return path


def check(samples: list[dict[str, object]], counts: list[dict[str, object]], network: DigitsNetwork) -> None:
    run = network.run
    assert [s["sample"] for s in samples] == list(range(run.ledger.images + 1))
    assert [s["prediction"] for s in samples] == [*run.predicted.tolist(), None]
    assert [s["label"] for s in samples][:3] == [3, 1, None]
    assert [s["error"] for s in samples] == [None] * run.ledger.images + ["a damaged image"]
    assert samples[1]["name"] == '1,\n"é".png'
    assert str(samples[0]["top"]).split()[0] == str(run.predicted[0])
    found = {(row["sample"], row["layer"]): row for row in counts}
    assert len(found) == len(counts) == run.ledger.images * len(run.ledger.layers)
    for layer in run.ledger:
        for image in range(run.ledger.images):
            row = found[image, layer.name]
            assert {k: row[k] for k in layer.counts} == {k: int(v[image]) for k, v in layer.counts.items()}
            assert all(row[k] is None for k in set(row) - set(layer.counts) - {"sample", "layer", "spikes_per_step"})
            steps = layer.spikes_per_step
            assert row["spikes_per_step"] == (None if steps is None else " ".join(map(str, steps[:, image].tolist())))


def from_csv(path: Path, texts: tuple[str, ...]) -> list[dict[str, object]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: None if v == "" else v if k in texts else int(v) for k, v in row.items()} for row in rows]


def test_csv(network: DigitsNetwork, path: Path, tmp_path: Path) -> None:
    assert command(["export", str(path), "--to", "csv", "-o", str(tmp_path / "out")]) == 0
    samples = from_csv(tmp_path / "out" / "samples.csv", ("name", "top", "error"))
    check(samples, from_csv(tmp_path / "out" / "counts.csv", ("layer", "spikes_per_step")), network)
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["samples"] == network.run.ledger.images + 1
    assert about["notices"][-1] == "one notice"
    assert [layer["name"] for layer in about["layers"]] == [layer.name for layer in network.ledger]


def test_json(network: DigitsNetwork, path: Path, tmp_path: Path) -> None:
    qd.export_run(path, tmp_path / "out", "json")
    tables = [json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("samples", "counts")]
    check(*tables, network)


def test_parquet(network: DigitsNetwork, path: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    qd.export_run(path, tmp_path / "out", "parquet")
    check(*(parquet.read_table(tmp_path / "out" / f"{n}.parquet").to_pylist() for n in ("samples", "counts")), network)


def test_the_same_run_gives_the_same_bytes(network: DigitsNetwork, path: Path, tmp_path: Path) -> None:
    ordered = tmp_path / "ordered.sqlite"
    with Store.open(path) as source, Store.create(ordered, [replace(source.runs[0])]) as store:
        store.add(0, list(source.rows()), notices=source.notices())
    for fmt in ("csv", "json", "parquet"):
        qd.export_run(path, tmp_path / f"a-{fmt}", fmt)
        qd.export_run(ordered, tmp_path / f"b-{fmt}", fmt)
        for file in sorted((tmp_path / f"a-{fmt}").iterdir()):
            assert file.read_bytes() == (tmp_path / f"b-{fmt}" / file.name).read_bytes(), file.name


def test_what_cannot_be_exported(network: DigitsNetwork, path: Path, tmp_path: Path) -> None:
    qd.save(network.integer_graph, tmp_path / "net.qkf")
    with pytest.raises(InputError, match="is a network, not a run"):
        qd.export_run(tmp_path / "net.qkf", tmp_path / "out")
    with pytest.raises(UsageError, match="no format"):
        qd.export_run(path, tmp_path / "out", "xml")  # type: ignore[arg-type]
    assert command(["export", str(path), "--to", "onnx", "-o", str(tmp_path / "x.onnx")]) == 3
    assert command(["export", str(path), "--to", "csv", "--check", "-o", str(tmp_path / "out")]) == 2
    assert command(["export", str(path), "--to", "csv", "--point", "7", "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
