"""Run files: what was written comes back; what is damaged is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from digits_network import DigitsNetwork

from qkf_deploy.errors import InputError
from qkf_deploy.report.widths import width_sheet
from qkf_deploy.runs.content import run_data
from qkf_deploy.runs.file import read_run, write_run
from qkf_deploy.runs.gates import gate_nodes, gate_pictures
from qkf_deploy.runs.widths import width_rows


@pytest.fixture(scope="module")
def path(network: DigitsNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run.json"
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
        (lambda d: d.pop("kind"), "not a run file"),
        (lambda d: d.update(schema_version=99), "run schema 99"),
        (lambda d: d.pop("widths"), "damaged run file"),
        (lambda d: d["ledger"].update(schema_version=0), "ledger schema"),
        (lambda d: d["ledger"]["layers"][3].pop("counts"), "not a ledger layer"),
        (lambda d: d.update(predictions="x"), "damaged run file"),
    ],
)
def test_damaged_content(network: DigitsNetwork, tmp_path: Path, change: object, text: str) -> None:
    data = json.loads(json.dumps(run_data(network.integer_graph, network.run)))
    change(data)  # type: ignore[operator]
    path = tmp_path / "run.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=text) as caught:
        read_run(path)
    assert str(path) in str(caught.value.where)


def test_files_that_are_no_run(network: DigitsNetwork, path: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "half.json"
    truncated.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a complete JSON file"):
        read_run(truncated)
    with pytest.raises(InputError, match="cannot be read"):
        read_run(tmp_path / "absent.json")
    with pytest.raises(InputError, match="cannot write here"):
        write_run(tmp_path / "no" / "folder.json", network.integer_graph, network.run)


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


def test_mutated_files_are_read_or_refused(network: DigitsNetwork) -> None:
    """Whatever is changed in a run file: an InputError, or a page without a traceback."""
    from qkf_deploy.errors import QkfError
    from qkf_deploy.report.page import render_page
    from qkf_deploy.runs.file import from_data

    rng = random.Random(11)
    source = json.dumps(run_data(network.integer_graph, network.run))
    junk = [None, -1, 0, 10**30, 1.5, "x", [], {}, True, [[]], {"a": 1}]
    refused = 0
    for _ in range(60):
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
        try:
            run = from_data(data)
        except QkfError:
            refused += 1
            continue
        assert "</html>" in render_page(run, ["exact-fp32"])
    assert 15 < refused < 60
