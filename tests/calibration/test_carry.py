"""Carry modes: the model's own batches, every engine, files, ledger, memory, exporters, and leftovers from images."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qkf_deploy as qd
from qkf_deploy.cli import run as run_command
from qkf_deploy.converters.torch.run import torch_oracle
from qkf_deploy.converters.torch.source import TraceOptions, resolve
from qkf_deploy.errors import GraphError, UnsupportedError, UsageError
from qkf_deploy.evaluation.agreement import Oracle, compare_chain
from qkf_deploy.ir import Graph, GraphBuilder
from qkf_deploy.ir.digest import digest
from qkf_deploy.models import QKFormer, build, calibrate_batchnorm, randomize_norms
from qkf_deploy.ops import Input, IntegerNeuron, Linear, Neuron, Output, Readout
from qkf_deploy.ops.exact import signed_bits
from qkf_deploy.passes.carry import channel_means, merged, with_carry
from qkf_deploy.passes.neurons import integer_neuron
from qkf_deploy.report.layer_table import facts
from qkf_deploy.simulators.run import is_neuron

SIZE = 16
STEPS = 2
NAMES = ("stage3.0.ssa.proj_lif", "stage3.1.ssa.proj_lif")


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Smooth byte images: blobs, so that neighbouring pixels are alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 1, SIZE // 2, SIZE // 2))
    fine = coarse.repeat(2, axis=2).repeat(2, axis=3) + rng.integers(-40, 40, (count, 1, SIZE, SIZE))
    return np.clip(fine, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model() -> QKFormer:
    torch.manual_seed(3)
    made = build(
        "qkformer-digits", embed_dim=32, image_size=SIZE, depths=(1, 1, 2), heads=(2, 2, 1), mlp_ratio=2.0,
        time_steps=STEPS, merge_batch_into_time=True,
    )  # fmt: skip
    randomize_norms(made)
    calibrate_batchnorm(made, torch.from_numpy(pictures(24, 9) / 255.0).float())
    return made


@pytest.fixture(scope="module")
def float_graph(model: QKFormer) -> Graph:
    return qd.trace(model, mean=[0.0], std=[1.0])


@pytest.fixture(scope="module")
def graphs(float_graph: Graph) -> dict[str, Graph]:
    """One network in every carry mode, quantized; chains of the integer network itself."""
    integer, chain = qd.quantize(float_graph, 8), pictures(12, 1)
    return {
        "own": integer,
        "official": qd.carry(integer, "official"),
        "full": qd.carry(integer, "stored", chain),
        "channel": qd.carry(integer, "stored", chain, per_channel=True),
    }


def neurons(graph: Graph) -> list[str]:
    return [n.name for n in graph if is_neuron(n.op.kind)]


def batched(model: QKFormer) -> Oracle:
    """The model run on whole batches in float64."""
    return torch_oracle(resolve(model, TraceOptions(mean=[0.0], std=[1.0])), together=True)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_official_is_the_model_run_in_that_batch(model: QKFormer, float_graph: Graph, batch: int) -> None:
    """Every neuron in float64, three orders of the images; and another order is another result."""
    official = qd.carry(float_graph, "official")
    images = pictures(8)
    seen = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(8)
        (found,) = compare_chain(batched(model), (official,), images[order], batch)
        assert (found.differ_forced, found.differ_free, found.differ_ties) == (0, 0, 0)
        assert found.logit_difference < 1e-12
        assert [layer.name for layer in found.layers] == neurons(official)
        assert all(layer.spikes for layer in found.layers)
        run = qd.simulate(official, images[order], batch=batch)
        seen.append(run.logits[np.argsort(order)])
    assert all(np.array_equal(seen[0], other) for other in seen[1:]) == (batch == 1)


def test_the_comparison_with_the_model_can_fail(model: QKFormer, float_graph: Graph) -> None:
    official = qd.carry(float_graph, "official")
    node = official[NAMES[0]]
    wrong = replace(official, nodes={**official.nodes, NAMES[0]: replace(node, op=replace(node.op, carry="own"))})
    (found,) = compare_chain(batched(model), (wrong,), pictures(6), 6)
    assert next(layer.name for layer in found.layers if layer.differ_forced) == NAMES[0]


def test_verify_runs_the_model_in_batches(model: QKFormer, graphs: dict[str, Graph]) -> None:
    torch_float, rounded = qd.verify(graphs["official"], pictures(4), model, mean=[0.0], std=[1.0], batch=4)
    assert (torch_float.differ_forced, torch_float.differ_free) == (0, 0)
    alone = qd.verify(graphs["own"], pictures(4), model, mean=[0.0], std=[1.0], batch=4)[0]
    assert alone.layers != torch_float.layers
    assert rounded.outputs == torch_float.outputs


def test_stored_networks_are_not_compared_with_the_model(model: QKFormer, graphs: dict[str, Graph]) -> None:
    with pytest.raises(UsageError, match="starts from stored membranes, and the model has none"):
        qd.verify(graphs["full"], pictures(2), model, mean=[0.0], std=[1.0])


@pytest.mark.parametrize("lossless", [False, True])
def test_stored_is_the_last_of_a_long_batch(float_graph: Graph, lossless: bool) -> None:
    """Float64, and 32-bit integers: an image alone gives the logits it gives behind the calibration images."""
    graph = qd.quantize(float_graph, 32) if lossless else float_graph
    chain, images = pictures(31, 5), pictures(10, 6)
    stored = qd.simulate(qd.carry(graph, "stored", chain), images).logits
    official = qd.carry(graph, "official")
    last = [qd.simulate(official, np.concatenate([chain, image[None]])).logits[-1] for image in images]
    assert np.array_equal(stored, last)
    assert not np.array_equal(stored, qd.simulate(qd.carry(graph, "own"), images).logits)
    assert not np.array_equal(stored, qd.simulate(qd.carry(graph, "stored", chain, per_channel=True), images).logits)


@pytest.mark.parametrize("mode", ["own", "official", "full", "channel"])
def test_engines_agree(graphs: dict[str, Graph], mode: str) -> None:
    graph, images = graphs[mode], pictures(5)
    want = qd.simulate(graph, images, engine="reference", record=neurons(graph), membranes=NAMES)
    others: dict[str, dict[str, Any]] = {"event": {"threads": 2}, "torch": {}}
    if mode != "official":
        others["onnx"] = {"form": "sequence"}
    for engine, options in others.items():
        got = qd.simulate(graph, images, engine=engine, record=neurons(graph), membranes=NAMES, **options)
        assert np.array_equal(got.raw_output, want.raw_output), engine
        assert got.ledger == want.ledger, engine
        for name in neurons(graph):
            assert np.array_equal(got.spikes[name], want.spikes[name]), (engine, name)
        for name in NAMES:
            assert np.array_equal(got.membranes[name], want.membranes[name]), (engine, name)
    if mode != "own":
        assert not np.array_equal(want.raw_output, qd.simulate(graphs["own"], images, engine="reference").raw_output)


@pytest.mark.parametrize("mode", ["official", "stored"])
def test_float_engines_agree(float_graph: Graph, mode: Any) -> None:
    graph = qd.carry(float_graph, mode, pictures(12, 1) if mode == "stored" else None)
    images = pictures(4)
    want = qd.simulate(graph, images, engine="reference", record=neurons(graph))
    got = qd.simulate(graph, images, engine="torch", record=neurons(graph))
    assert np.array_equal(got.logits, want.logits)
    assert got.ledger == want.ledger
    assert all(np.array_equal(got.spikes[name], want.spikes[name]) for name in neurons(graph))
    if mode == "stored":
        onnx = qd.simulate(graph, images, engine="onnx", form="sequence", precision="float64", record=neurons(graph))
        assert all(np.array_equal(onnx.spikes[name], want.spikes[name]) for name in neurons(graph))


@pytest.mark.parametrize("mode", ["official", "full", "channel"])
def test_files(graphs: dict[str, Graph], mode: str, tmp_path: Path) -> None:
    qd.save(graphs[mode], tmp_path / "net.qkf")
    again = qd.load(tmp_path / "net.qkf")
    assert digest(again) == digest(graphs[mode])
    assert qd.audit(again) == qd.audit(graphs[mode])
    assert again.widths == graphs[mode].widths


def test_every_mode_can_be_chosen_from_every_other(graphs: dict[str, Graph]) -> None:
    chain = pictures(12, 1)
    for graph in graphs.values():
        assert digest(replace(qd.carry(graph, "own"), provenance={})) == digest(replace(graphs["own"], provenance={}))
        assert digest(qd.carry(graph, "official")) == digest(graphs["official"])
        assert digest(qd.carry(graph, "stored", chain)) == digest(graphs["full"])


def test_images_of_a_chain_run_together_unless_said_otherwise(graphs: dict[str, Graph]) -> None:
    """A hidden batch size would be a hidden result."""
    images = pictures(7)
    whole = qd.simulate(graphs["official"], images)
    assert np.array_equal(whole.logits, qd.simulate(graphs["official"], images, batch=7).logits)
    assert any("results belong to batches of 7" in text for text in whole.notices)
    assert any("batches of 3" in text for text in qd.simulate(graphs["official"], images, batch=3).notices)
    assert not any("batches" in text for text in qd.simulate(graphs["own"], images).notices)


def test_leftovers_for_another_number_of_steps_are_refused(graphs: dict[str, Graph]) -> None:
    node = graphs["full"][NAMES[0]]
    for left in (node.params["leftover"][:1], np.concatenate([node.params["leftover"]] * 2)):
        wrong = replace(node, params={**node.params, "leftover": left})
        with pytest.raises(GraphError, match=f"leftovers of {len(left)} steps, the network has {STEPS}"):
            replace(graphs["full"], nodes={**graphs["full"].nodes, NAMES[0]: wrong}).verify()


def test_memory_of_leftovers(graphs: dict[str, Graph]) -> None:
    """Own: each membrane is read and written at every step. Stored: one for every step is kept, and only read."""
    images = pictures(3)
    sizes = {}
    for mode, graph in graphs.items():
        ledger = qd.simulate(graph, images, engine="reference").ledger
        (row,) = [r for r in qd.movement(ledger) if r.layer == NAMES[0]]
        size, node = graph[NAMES[0]].type.size, graph[NAMES[0]]
        if "leftover" in node.params:
            left = node.params["leftover"]
            word = -(-signed_bits(int(left.min()), int(left.max())) // 8)
            assert (row.state_size, row.state_traffic) == (left.size * word, STEPS * size * word)
            assert ledger[NAMES[0]].leftovers == left.size
        else:
            membrane = graph.widths[NAMES[0]].membrane
            assert membrane is not None
            word = -(-signed_bits(*membrane) // 8)
            assert (row.state_size, row.state_traffic) == (size * word, 2 * STEPS * size * word)
        sizes[mode] = row.state_size
    channels = graphs["own"][NAMES[0]].type.shape[0]
    assert graphs["channel"][NAMES[0]].params["leftover"].size == STEPS * channels
    assert sizes["channel"] < sizes["full"]


def test_memory_of_a_core_holds_leftovers(graphs: dict[str, Graph]) -> None:
    chip = qd.load_chip("generic-digital")
    units = {
        mode: next(p.unit for p in qd.map_network(graph, chip).placements if p.unit.name == NAMES[0])
        for mode, graph in graphs.items()
    }

    def bits(mode: str) -> int:
        left = graphs[mode][NAMES[0]].params["leftover"]
        return STEPS * signed_bits(int(left.min()), int(left.max()))

    assert units["full"].leftover_bits == bits("full")
    assert units["channel"].leftover_bits == units["own"].leftover_bits == units["official"].leftover_bits == 0
    assert units["channel"].channel_bits == units["own"].channel_bits + bits("channel")
    memory = {
        mode: next(p for p in qd.map_network(graph, chip).placements if p.unit.name == NAMES[0]).memory_per_core_bytes
        for mode, graph in graphs.items()
    }
    channels, positions = units["own"].channels, units["own"].positions  # one core holds them all
    more = (bits("full") * positions - bits("channel")) * channels + positions * channels * (
        units["full"].state_bits - units["channel"].state_bits
    )
    assert memory["full"] - memory["channel"] == more // 8
    assert memory["own"] == memory["official"]


def test_exporters(graphs: dict[str, Graph], tmp_path: Path) -> None:
    """Said, or done: ONNX runs stored leftovers where it runs all steps."""
    qd.export_onnx(graphs["full"], tmp_path / "net.onnx", form="sequence")
    with pytest.raises(UnsupportedError, match=r"a graph of one step does not know which"):
        qd.export_onnx(graphs["full"], tmp_path / "step.onnx")
    for form in ("step", "sequence"):
        with pytest.raises(UnsupportedError, match="carried over between images of a batch"):
            qd.export_onnx(graphs["official"], tmp_path / "official.onnx", form=form)
    for mode, words in (("official", "carried over between images"), ("full", r"between images \(stored\)")):
        with pytest.raises(UnsupportedError, match=words):
            qd.export_nir(graphs[mode], tmp_path / "net.nir", "portable")
    with pytest.raises(UnsupportedError, match="carry-over from image to image"):
        qd.export_lava(graphs["official"], tmp_path / "lava")
    assert {p.name for p in tmp_path.iterdir()} == {"net.onnx"}


def test_inspect_says_where(graphs: dict[str, Graph]) -> None:
    text = facts(graphs["own"], ())
    assert (
        "stage3.*.ssa.proj_lif: time axis merged with batch (2 neurons); released accuracy assumes batches; carry own"
    ) in text
    assert "carry stored here" in facts(graphs["full"], ())
    assert [f.node for f in qd.audit(graphs["own"]) if "merged with the batch" in f.text] == list(NAMES)


@pytest.mark.parametrize("bits", [0, 3])
def test_quantized_leftovers_fire_for_the_same_drives(bits: int) -> None:
    """For every whole drive, scales as coarse as those of two-bit weights; another decay too."""
    rng = np.random.default_rng(bits)
    for tau in (2.0, 3.7, None):
        channels, steps = 40, 3
        scale = rng.uniform(0.05, 0.9, (channels, 1))
        left = rng.normal(0, 0.6, (steps, channels, 1))
        op = Neuron(tau, 1.0, 0.0, carry="stored", time_merged_with_batch=True)
        b = GraphBuilder()
        b.add("input", Input((channels, 1)))
        b.add("lif", op, ["input"], {"leftover": left})
        node = b.nodes["lif"]
        made = integer_neuron(node, op, scale, bits, 12)
        drives = np.arange(-30, 60).reshape(1, -1, 1, 1) + np.zeros((steps, 1, channels, 1), np.int64)
        float_spikes = op.run((drives * scale,), node.params, steps)
        assert np.array_equal(made.op.run((drives,), made.params, steps), float_spikes)
        assert 0 < float_spikes.mean() < 1


def test_thresholds_that_are_never_reached_stay_so_with_any_carry() -> None:
    """A channel without weights: its threshold lies above what a membrane reaches when images carry it over, too."""
    b = GraphBuilder()
    b.add("input", Input((4,)))
    b.add("first", Linear(), ["input"], {"weight": np.eye(4)})
    b.add("lif0", Neuron(2.0, 1.0, 0.0), ["first"])
    weight = np.array([[1.0, 2.0, -1.0, 0.5], [0.0] * 4])
    b.add("fc", Linear(), ["lif0"], {"weight": weight, "bias": np.array([0.1, 1e-300])})
    b.add("lif", Neuron(2.0, 1.0, 0.0, time_merged_with_batch=True), ["fc"])
    b.add("total", Readout(), ["lif"])
    b.add("output", Output(), ["total"])
    integer = qd.quantize(b.build(time_steps=1), 8, input="fixed", input_max=1.0)
    official = with_carry(integer, "official")
    membrane = official.widths["lif"].membrane
    assert membrane is not None
    images = np.ones((40, 4))
    run = qd.simulate(official, images, engine="reference", record=["lif"])
    assert not run.spikes["lif"][..., 1].any()


def test_averages_follow_channels_through_views() -> None:
    """Tokens x channels behind a linear layer; heads are kept apart from tokens."""
    b = GraphBuilder()
    b.add("input", Input((5, 4)))
    b.add("fc", Linear(), ["input"], {"weight": np.ones((6, 4))})
    b.add("lif", Neuron(2.0, 1.0, 0.0, time_merged_with_batch=True), ["fc"])
    b.add("total", Readout(), ["lif"])
    b.add("output", Output(), ["total"])
    graph = b.build(time_steps=2)
    left = np.random.default_rng(0).normal(size=(2, 5, 6))
    assert np.array_equal(channel_means(graph, "lif", left), left.mean(axis=1, keepdims=True))
    assert merged(graph) == ("lif",)


def test_no_channels_in_front_is_said() -> None:
    b = GraphBuilder()
    b.add("input", Input((5, 4)))
    b.add("lif", Neuron(2.0, 1.0, 0.0, time_merged_with_batch=True), ["input"])
    b.add("total", Readout(), ["lif"])
    b.add("output", Output(), ["total"])
    graph = b.build(time_steps=2)
    with pytest.raises(UnsupportedError, match="no synapse in front of it"):
        channel_means(graph, "lif", np.zeros((2, 5, 4)))


def test_integer_leftovers_are_whole(graphs: dict[str, Graph]) -> None:
    for mode in ("full", "channel"):
        for name in NAMES:
            op, left = graphs[mode][name].op, graphs[mode][name].params["leftover"]
            assert isinstance(op, IntegerNeuron)
            assert left.dtype == np.int64
            assert left.any()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images with and without labels, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    labels = np.random.default_rng(4).integers(0, 10, 14)
    np.savez(tmp_path / "data.npz", images=pictures(14, 2), labels=labels)
    np.save(tmp_path / "bare.npy", pictures(14, 2))
    return tmp_path


def test_evaluate_in_batches_and_on(graphs: dict[str, Graph], data: Path) -> None:
    """The official evaluation, whatever the file's own carry is; what is missing runs in the same batches."""
    qd.save(graphs["full"], "net.qkf")
    with pytest.raises(UsageError, match="results depend on which run together"):
        qd.evaluate("net.qkf", "data.npz", "run.sqlite", carry="official")
    images = pictures(14, 2)
    for carry, batch, graph in (("official", 4, "official"), ("own", 4, "own"), (None, 5, "full")):
        path = f"{carry}.sqlite"
        ended = qd.evaluate("net.qkf", "data.npz", path, carry=carry, batch=batch, shard=4)  # type: ignore[arg-type]
        assert ended.complete
        want = qd.simulate(graphs[graph], images, batch=batch).logits.argmax(axis=1)
        assert list(qd.load_run(path).predictions) == want.tolist()
    with closing(sqlite3.connect("official.sqlite")) as stored, stored:
        stored.execute("DELETE FROM sample WHERE position > 5")
    assert len(qd.load_run("official.sqlite").predictions) < 14
    assert qd.resume("official.sqlite").complete
    official = qd.simulate(graphs["official"], images, batch=4).logits.argmax(axis=1)
    assert list(qd.load_run("official.sqlite").predictions) == official.tolist()


def test_a_sweep_in_batches(float_graph: Graph, data: Path) -> None:
    qd.save(float_graph, "net.qkf")
    qd.evaluate("net.qkf", "bare.npy", "run.sqlite", carry="official", batch=7, bits=(4, 8))
    for run, bits in zip(qd.load_runs("run.sqlite").values(), (4, 8), strict=True):
        graph = qd.quantize(qd.carry(float_graph, "official"), bits)
        want = qd.simulate(graph, pictures(14, 2), batch=7).logits.argmax(axis=1)
        assert list(run.predictions) == want.tolist()


def test_calibrate(graphs: dict[str, Graph], data: Path) -> None:
    """The report against the modes run by hand; the network is the one that was asked for."""
    found = qd.calibrate(graphs["own"], "data.npz", carry="stored", per_channel=True, chain=6, batch_size=4, seed=1)
    order = np.random.default_rng(1).permutation(14)
    images, rest = pictures(14, 2), np.sort(order[6:])
    with np.load("data.npz") as arrays:
        labels = arrays["labels"][rest]
    report = found.carry
    assert report is not None
    assert (report.images, report.chain, report.batch) == (8, 6, 4)
    modes = {
        "own": graphs["own"],
        "official": graphs["official"],
        "stored, full": qd.carry(graphs["own"], "stored", images[order[:6]]),
        "stored, per channel": qd.carry(graphs["own"], "stored", images[order[:6]], per_channel=True),
    }
    answers = {name: qd.simulate(graph, images[rest], batch=4).logits.argmax(axis=1) for name, graph in modes.items()}
    for row in report.modes:
        hits = int((answers[row.name] == labels).sum())
        assert row.accuracy is not None
        assert (row.accuracy.hits, row.accuracy.n) == (hits, len(rest))
        assert row.agreement.hits == int((answers[row.name] == answers["official"]).sum())
        assert row.test is not None
        assert row.flips is not None
    assert report["own"].leftover_values == 0
    assert report["stored, per channel"].leftover_values == sum(
        modes["stored, per channel"][name].params["leftover"].size for name in NAMES
    )
    assert digest(found.graph) == digest(modes["stored, per channel"])
    assert "stored, full" in str(report)
    assert report.to_dict()["modes"][1]["difference"] == 0


def test_calibrate_without_labels_and_with_held_out_images(float_graph: Graph, data: Path) -> None:
    held = {"chain": 14, "held_out": "bare.npy"}
    report = qd.calibrate(float_graph, "bare.npy", carry="stored", **held).carry  # type: ignore[arg-type]
    assert report is not None
    assert (report.images, report.chain) == (14, 14)
    assert all(row.accuracy is None and row.flips is None for row in report.modes)
    assert report["official"].agreement.value == 1
    assert "accuracy" not in report.to_dict()["modes"][0]
    with pytest.raises(UsageError, match="14 images, and all of them are in the chain"):
        qd.calibrate(float_graph, "bare.npy", carry="stored")
    with pytest.raises(UsageError, match="nothing to calibrate"):
        qd.calibrate(float_graph, "bare.npy")


def test_calibrate_command(graphs: dict[str, Graph], data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qd.save(graphs["own"], "net.qkf")
    words = "calibrate net.qkf data.npz --carry stored --chain 6 --batch-size 4 -o out.qkf --format json"
    assert run_command(words.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["carry"] for row in rows] == ["own", "official", "stored, full", "stored, per channel"]
    assert all(0 <= row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] <= 1 for row in rows)
    assert qd.load("out.qkf")[NAMES[0]].op.carry == "stored"  # type: ignore[attr-defined]
