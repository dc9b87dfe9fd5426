"""Run files: what was written comes back; what is damaged is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from digits_network import DigitsNetwork
from stored_runs import put_together, taken_apart

from qkf_deploy.errors import InputError, QkfError
from qkf_deploy.report.page import render_page
from qkf_deploy.report.widths import width_sheet
from qkf_deploy.runs.file import read_run, write_run
from qkf_deploy.runs.gates import gate_nodes, gate_pictures
from qkf_deploy.runs.widths import width_rows


@pytest.fixture(scope="module")
def path(network: DigitsNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run.sqlite"
    write_run(path, network.integer_graph, network.run)
    return path


def test_round_trip(network: DigitsNetwork, path: Path) -> None:
    back = read_run(path)
    assert back.ledger.to_dict() == network.ledger.to_dict()
    assert list(back.widths) == width_rows(network.integer_graph)
    assert [n["name"] for n in back.graph["nodes"]] == list(network.integer_graph.nodes)
    assert back.predictions == tuple(network.run.logits.argmax(-1))
    assert back.provenance["source"] == "qkformer_digits.safetensors"
    assert back.provenance["numpy"]


def test_the_same_run_gives_the_same_bytes(network: DigitsNetwork, path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    write_run(again, network.integer_graph, network.run)
    assert again.read_bytes() == path.read_bytes()


def test_gate_pictures_are_the_recorded_spikes(network: DigitsNetwork) -> None:
    names = gate_nodes(network.integer_graph)
    assert names == ("stage1.0.tssa.attn_lif", "stage2.0.tssa.attn_lif")
    for picture in gate_pictures(network.integer_graph, network.run):
        spikes = network.run.values[picture["node"]][:, 0]
        assert picture["heads"] == 4
        assert sum(map(sum, picture["open"])) == spikes.sum() == sum(picture["open_per_step"]) > 0
        assert picture["positions"] * picture["heads"] == spikes[0].size


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda head: head.pop("widths"), "'widths' is missing"),
        (lambda head: head["ledger"].update(schema_version=0), "ledger schema"),
        (lambda head: head["ledger"]["layers"][3].pop("counts"), "not a ledger layer"),
        (lambda head: head["ledger"]["layers"].pop(), "counts are of another network"),
        (lambda head: head.update(provenance="x"), "damaged run file"),
    ],
)
def test_damaged_content(path: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], text: str) -> None:
    tables = taken_apart(path)
    change(tables["run"][0]["head"])
    put_together(tmp_path / "run.sqlite", path, tables)
    with pytest.raises(InputError, match=text) as caught:
        read_run(tmp_path / "run.sqlite")
    assert str(tmp_path) in str(caught.value.where)


def test_files_that_are_no_run(network: DigitsNetwork, path: Path, tmp_path: Path) -> None:
    for size in (0, 50, 99, 1000, 5000, path.stat().st_size - 1):
        truncated = tmp_path / f"{size}.sqlite"
        truncated.write_bytes(path.read_bytes()[:size])
        with pytest.raises(InputError, match="not a run file" if size < 100 else "damaged"):
            read_run(truncated)
    with pytest.raises(InputError, match="cannot be read"):
        read_run(tmp_path / "absent.sqlite")
    with pytest.raises(InputError, match="cannot write here"):
        write_run(tmp_path / "no" / "folder.sqlite", network.integer_graph, network.run)


def test_widths_cover_every_partial_sum(network: DigitsNetwork) -> None:
    graph = network.integer_graph
    rows = {row["layer"]: row for row in width_rows(graph)}
    for node in graph:
        proof = graph.widths[node.name]
        if node.op.kind == "conv":
            row = rows[node.name]
            bits = row["accumulator_bits"]
            assert -(2 ** (bits - 1)) <= proof.partial[0] <= proof.partial[1] < 2 ** (bits - 1)
            assert not (-(2 ** (bits - 2)) <= proof.partial[0] and proof.partial[1] < 2 ** (bits - 2))
            assert row["weight_bits"] == 8
            assert row["bias_bits"] > 1
        if node.op.kind == "integer_neuron":
            theta = node.params["theta"]
            assert 2 ** (rows[node.name]["threshold_bits"] - 1) > theta.max()
            assert rows[node.name]["output_bits"] == 1
    assert rows["patch_embed1.add"]["output_bits"] == 2
    assert len(width_sheet(list(rows.values())).rows) == len(rows)


def test_mutated_files_are_read_or_refused(path: Path, tmp_path: Path) -> None:
    """Whatever is changed in a run file: an InputError, or a page without a traceback."""
    rng = random.Random(11)
    source = json.dumps(taken_apart(path))
    junk = [None, -1, 0, 10**30, 1.5, "x", [], {}, True, [[]], {"a": 1}]
    refused = 0
    for _ in range(80):
        data = json.loads(source)
        place = data
        while True:  # walk to a random place of the tree
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = rng.choice(keys)
            child = place[key]
            if not isinstance(child, dict | list) or not child or rng.random() < 0.2:
                break
            place = child
        if rng.random() < 0.3:
            del place[key]
        else:
            place[key] = rng.choice(junk)
        put_together(tmp_path / "run.sqlite", path, data)
        try:
            run = read_run(tmp_path / "run.sqlite")
        except QkfError:
            refused += 1
            continue
        assert "</html>" in render_page(run, ["exact-fp32"])
    assert 20 < refused < 80
