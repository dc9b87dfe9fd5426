"""The public functions as the documentation shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from netbuild import Net, random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.datasets.digits import Digits
from qkf_deploy.errors import InputError, MissingComponent, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.models import build


def test_the_pipeline(tmp_path: Path, digits_checkpoint: Path, digits_data: Digits) -> None:
    net = qd.trace(str(digits_checkpoint))
    folded = qd.fold(net)
    net8 = qd.quantize(folded, bits=8)
    images = digits_data.test_images[:6]
    run = qd.simulate(net8, images, record=["stage1.0.tssa.q_lif"])
    assert run.logits.shape == (6, 10)
    assert run.spikes["stage1.0.tssa.q_lif"].shape == (4, 6, 16, 256)
    assert set(np.unique(run.spikes["stage1.0.tssa.q_lif"])) == {0, 1}
    assert qd.price(run.ledger, "paper-eq23").total_energy_pj > 0
    qd.save(net8, tmp_path / "net.qkf")
    again = qd.simulate(qd.load(tmp_path / "net.qkf"), images, engine="reference")
    assert np.array_equal(again.raw_output, run.raw_output)
    assert again.ledger.to_dict() == run.ledger.to_dict()
    assert net.class_names == tuple("0123456789")
    assert net.provenance["source"] == "qkformer_digits.safetensors"
    assert (run.ledger.images, run.ledger.time_steps) == (6, 4)


def test_verify(digits_checkpoint: Path, digits_int8: Graph, digits_data: Digits) -> None:
    first, second = qd.verify(digits_int8, digits_data.test_images[:5], digits_checkpoint)
    assert (first.differ_forced, first.differ_free, first.same_class) == (0, 0, 5)
    assert second.differ_free > 0  # 8 bits change some spikes
    assert second.differ_forced < 0.05 * second.outputs
    alone = qd.compare(digits_int8, qd.fold(qd.trace(digits_checkpoint)), digits_data.test_images[:5])
    assert alone.differ_free == second.differ_free
    with pytest.raises(InputError, match=r"at T=4, the model \(1, 16, 16\) at T=2"):
        qd.verify(digits_int8, digits_data.test_images[:1], digits_checkpoint, time_steps=2)


def test_one_image_and_batches_are_the_same() -> None:
    graph, images = qd.quantize(small_transformer(0), 8), random_pixels(0, (3, 9, 7), 5)
    whole = qd.simulate(graph, images, record="all", membranes="all", engine="reference")
    parts = qd.simulate(graph, images, record="all", membranes="all", engine="reference", batch=2)
    single = qd.simulate(graph, images[2], record="all", engine="reference")
    for name, value in whole.values.items():
        assert np.array_equal(value, parts.values[name])
        assert np.array_equal(value[:, 2:3], single.values[name])
    assert all(np.array_equal(v, parts.membranes[n]) for n, v in whole.membranes.items())
    assert np.array_equal(whole.logits, parts.logits)
    assert np.array_equal(whole.logits[2:3], single.logits)


def test_progress_is_reported() -> None:
    seen: list[tuple[int, int]] = []
    graph = small_transformer(0)
    qd.simulate(graph, random_pixels(0, (3, 9, 7), 5), batch=2, progress=lambda *step: seen.append(step))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_what_can_be_recorded() -> None:
    graph = qd.quantize(small_transformer(0), 8)
    images = random_pixels(0, (3, 9, 7), 2)
    run = qd.simulate(graph, images, record=["embed_conv", "embed_lif"], membranes=["embed_lif"], engine="reference")
    assert set(run.values) == {"embed_conv", "embed_lif"}
    assert set(run.spikes) == {"embed_lif"}
    assert run.values["embed_conv"].shape == (1, 2, 8, 5, 4)  # constant over time
    theta = graph["embed_lif"].params["theta"]
    assert np.array_equal(run.membranes["embed_lif"] >= theta, run.spikes["embed_lif"] == 1)
    with pytest.raises(qd.QkfError, match="nothing: no such node"):
        qd.simulate(graph, images, record=["nothing"])
    with pytest.raises(InputError, match="embed_conv: is not a neuron, it has no membrane"):
        qd.simulate(graph, images, membranes=["embed_conv"])


INPUTS = {
    "size": (
        np.zeros((2, 3, 8, 7), np.uint8),
        r"axis 2 \(H\) is 8, not 9; the network takes \(B, 3, 9, 7\)",
    ),
    "channels": (np.zeros((2, 1, 9, 7), np.uint8), "the network takes"),
    "rank": (np.zeros((1, 2, 3, 9, 7), np.uint8), "the network takes"),
    "channels last": (np.zeros((2, 9, 7, 3), np.uint8), r"axis 1 \(C\) is 9, not 3.*\n.*channels are last"),
    "grey": (np.zeros((2, 1, 9, 7), np.uint8), r"axis 1 \(C\) is 1, not 3.*\n.*grey images"),
    "channels and size": (
        np.zeros((2, 6, 8, 8), np.uint8),
        r"axis 1 \(C\) is 6, not 3.*\n.*convert the input to 3 channels",
    ),
    "empty": (np.zeros((0, 3, 9, 7), np.uint8), "the input is empty"),
    "integers": (np.zeros((2, 3, 9, 7), np.int64), "images of type int64"),
    "text": (np.full((2, 3, 9, 7), "a"), "the input has type <U1"),
    "complex": (np.zeros((2, 3, 9, 7), complex), "the input has type complex128"),
    "nan": (np.full((2, 3, 9, 7), np.nan), "values that are not finite"),
    "infinite": (np.full((2, 3, 9, 7), np.inf, np.float32), "values that are not finite"),
}


@pytest.mark.parametrize(("images", "message"), INPUTS.values(), ids=INPUTS)
def test_images_that_do_not_fit(images: np.ndarray, message: str) -> None:
    for graph in (small_transformer(0), qd.quantize(small_transformer(0), 8)):
        with pytest.raises(InputError, match=message):
            qd.simulate(graph, images)


RANGES = {
    "normalized": ((-1.5, 2.0), None),
    "pixels / 255": ((0.0, 1.0), "lie in 0 to 1 but are taken as normalized already"),
    "pixels": ((0.0, 255.0), "outside what normalized pixels can be"),
}


@pytest.mark.parametrize(("ends", "message"), RANGES.values(), ids=RANGES)
def test_floats_that_look_like_pixels_are_said_so(ends: tuple[float, float], message: str | None) -> None:
    graph = small_transformer(0)
    assert graph.preprocessing is not None
    images = np.linspace(*ends, 3 * 9 * 7).reshape(1, 3, 9, 7)
    notices = qd.simulate(graph, images, engine="reference").notices
    assert [message is not None and message in n for n in notices] == ([True] if message else [])


def test_engines() -> None:
    graph, images = small_transformer(0), random_pixels(0, (3, 9, 7), 2)
    with pytest.raises(UsageError, match="no engine 'warp'"):
        qd.simulate(graph, images, engine="warp")
    with pytest.raises(UsageError, match="runs integer graphs only"):
        qd.simulate(graph, images, engine="event")
    with pytest.raises(UsageError, match="has no option 'speed'"):
        qd.simulate(graph, images, engine="reference", speed=11)


def test_integer_networks_run_on_the_event_engine_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from qkf_deploy.simulators import event

    runs, run = [], event.run

    def counted(*arguments: object, **options: object) -> object:
        runs.append(arguments)
        return run(*arguments, **options)

    monkeypatch.setattr(event, "run", counted)
    graph, images = small_transformer(0), random_pixels(0, (3, 9, 7), 1)
    qd.simulate(qd.quantize(graph, 8), images)
    assert len(runs) == 1
    qd.simulate(qd.quantize(graph, 8), images, engine="reference")
    qd.simulate(graph, images)
    assert len(runs) == 1


def test_a_missing_engine_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from qkf_deploy.simulators import engines

    monkeypatch.setattr(engines, "_installed", lambda info: info.module.endswith("reference"))
    graph = qd.quantize(small_transformer(0), 8)
    with pytest.raises(
        MissingComponent, match=r'the event engine is not installed\n  try: pip install "qkf-deploy\[event\]"'
    ):
        qd.simulate(graph, random_pixels(0, (3, 9, 7), 1), engine="event")
    assert qd.simulate(graph, random_pixels(0, (3, 9, 7), 1)).logits.shape == (1, 4)


def test_a_network_without_readout_answers_at_every_step() -> None:
    net = Net(0, (2, 4, 4))
    net.lif("lif", net.conv("conv", "input", 3))
    from qkf_deploy.ops import Output

    net.add("output", Output(), "lif")
    run = qd.simulate(net.build(3), random_pixels(0, (2, 4, 4), 2))
    assert run.logits.shape == (3, 2, 3, 4, 4)


def test_tracing_a_module() -> None:
    torch.manual_seed(0)
    model = build("qkformer-digits")
    graph = qd.trace(model, mean=(0.5,), std=(0.25,), class_names=tuple("abcdefghij"))
    assert graph.preprocessing is not None
    assert (graph.preprocessing.mean, graph.preprocessing.std) == ((0.5,), (0.25,))
    assert graph.class_names == tuple("abcdefghij")
    assert model.training  # tracing leaves a module as it was
    again = qd.trace(model, mean=(0.5,), std=(0.25,))
    assert list(again.nodes) == list(graph.nodes)
    with pytest.raises(UsageError, match="no option 'flavour'"):
        qd.trace(model, flavour="x")
    with pytest.raises(UsageError, match="--mean and --std go together"):
        qd.trace(model, mean=(0.5,))
    with pytest.raises(UsageError, match="mean and std need 1 values each"):
        qd.trace(model, mean=(0.5, 0.5), std=(1.0, 1.0))
    with pytest.raises(UsageError, match="no preset 'mnist'"):
        qd.trace(model, preset="mnist")


def test_audit_and_gates(digits_int8: Graph) -> None:
    findings = {f.node: f for f in qd.audit(digits_int8)}
    assert findings["patch_embed1.proj_conv"].text == "input real (pixels): multiply-accumulates"
    assert findings["patch_embed1.proj1_conv"].text == "input binary: additions only"
    assert findings["stage1.0.mlp.mlp1_conv"].text == "input count up to 3: additions only"
    assert findings["stage3.0.ssa.matmul"].text == "input binary x binary: additions only"
    assert findings["head"].severity == "ok"
    assert [f.node for f in findings.values() if f.severity == "warning"] == []
    from qkf_deploy.passes.audit import or_gates

    assert or_gates(digits_int8) == ("stage1.0.tssa.attn_lif", "stage2.0.tssa.attn_lif")


def test_carry_modes() -> None:
    model = build("qkformer-digits", merge_batch_into_time=True)
    graph = qd.trace(model)
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 16, 16)).astype(np.uint8)
    merged = [n.name for n in graph if getattr(n.op, "time_merged_with_batch", False)]
    assert merged == ["stage3.0.ssa.proj_lif"]
    stored = qd.carry(graph, "stored", images)
    assert stored[merged[0]].params["leftover"].shape == (4, 64, 16)
    integer = qd.quantize(stored, 8)
    assert integer[merged[0]].op.carry == "stored"
    assert integer[merged[0]].params["leftover"].dtype == np.int64
    assert qd.simulate(integer, images, engine="reference").logits.shape == (3, 10)
    official = qd.quantize(qd.carry(graph, "official"), 8)
    assert official[merged[0]].op.carry == "official"
    with pytest.raises(UsageError, match="needs calibration images"):
        qd.carry(graph, "stored")
    with pytest.raises(UsageError, match="needs calibration images"):
        qd.carry(graph, "own", images)
    own = qd.carry(integer, "own")[merged[0]]
    assert own.op.carry == "own"
    assert "leftover" not in own.params
    with pytest.raises(UsageError, match="no neuron of this network"):
        qd.carry(small_transformer(0), "official")


def test_places_that_moved_still_lead_there() -> None:
    from qkf_deploy.converters import checkpoint, trace
    from qkf_deploy.converters.torch import checkpoint as new_checkpoint
    from qkf_deploy.converters.torch import trace as new_trace

    assert trace.register_neuron is new_trace.register_neuron
    assert checkpoint.load_model is new_checkpoint.load_model
