"""What a source does not hold is asked for, excluded, or recorded as assumed: in the graph, its file, its run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from spikingjelly.activation_based import neuron
from torch import nn

import qkf_deploy as qd
from qkf_deploy.cli import run
from qkf_deploy.converters.torch.checkpoint import load_model
from qkf_deploy.converters.torch.source import resolve
from qkf_deploy.errors import CheckpointError, InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ir.assumption import lines
from qkf_deploy.models import QKFormer, QKFormerConfig, build
from qkf_deploy.runs.file import read_run, write_run


@pytest.fixture(scope="session")
def bare(digits_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits weights without what their file says about them."""
    path = tmp_path_factory.mktemp("bare") / "digits.pth"
    torch.save(load_file(digits_checkpoint), path)
    return path


def names(graph: Graph) -> list[str]:
    return [a.name for a in graph.assumptions]


def test_a_file_that_says_everything_needs_no_assumption(digits_checkpoint: Path) -> None:
    graph = qd.trace(digits_checkpoint)
    assert graph.assumptions == ()
    assert lines(graph.assumptions) == ()


def test_a_bare_state_dict(bare: Path) -> None:
    graph = qd.trace(bare)
    assert lines(graph.assumptions) == (
        "not in the file, assumed: heads 4, T 4, image size 16 x 16 (published for qkformer-digits)",
        "  neurons LIF τ 2, V_th 1, attention 0.5, shortcut activation before addition (as in the official code)",
        "  mean/std none, byte / 255 (nothing says otherwise)",
        "  if one is wrong, give --heads, --time-steps, --image-size, --preset or --mean and --std",
    )
    assert all(line in str(graph) for line in lines(graph.assumptions)[:1])


def test_what_is_given_is_no_assumption(bare: Path) -> None:
    graph = qd.trace(bare, heads=2, time_steps=3, preset="none")
    assert names(graph) == ["image size", "neurons", "shortcut"]
    assert graph.provenance["given"] == "time_steps 3, heads 2, preset none"
    named = qd.trace(bare, arch="qkformer-digits", mean=[0.5], std=[0.25])
    assert named.assumptions == ()
    assert named.provenance["given"] == "arch qkformer-digits, mean 0.5, std 0.25"


def test_the_official_imagenet_file_needs_three_lines(tmp_path: Path) -> None:
    from qkf_deploy.converters.torch import assumed, pixels
    from qkf_deploy.options import TraceOptions

    torch.save(build("qkformer-10-384").state_dict(), tmp_path / "w.pth")
    model, checkpoint = load_model(tmp_path / "w.pth")
    _, found = pixels.normalization(TraceOptions(), 3, "imagenet", assumed.CODE, None)
    assert lines([*assumed.of_checkpoint(checkpoint, model.config, {}), *found]) == (
        "not in the file, assumed: heads 6, T 4, image size 224 x 224 (published for qkformer-10-384)",
        "  neurons LIF τ 2, V_th 1, attention 0.5, shortcut activation before addition, mean/std imagenet "
        "(as in the official code)",
        "  if one is wrong, give --heads, --time-steps, --image-size, --preset or --mean and --std",
    )


def test_a_factorys_own_values_are_no_assumptions() -> None:
    assert names(qd.trace(build("qkformer-digits"))) == ["mean/std"]
    assert names(qd.trace(build("qkformer-digits"), preset="none")) == []


def test_what_only_the_caller_of_a_model_knows() -> None:
    graph = qd.trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 4), neuron.IFNode()), image_size=2, time_steps=2)
    assert [(a.name, a.value) for a in graph.assumptions] == [
        ("channels", "3"),
        ("input", "one call per time step, results averaged"),
        ("mean/std", "none, byte / 255"),
    ]
    said = {"in_channels": 3, "input": "step", "preset": "none"}
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), neuron.IFNode())
    assert names(qd.trace(model, image_size=2, time_steps=2, **said)) == []


def test_heads_that_do_not_divide_are_never_assumed(tmp_path: Path) -> None:
    config = QKFormerConfig("cifar", 1, 3, 8, 24, (1, 1, 1), (3, 3, 3), ("qkta", "qkta", "ssa"))
    torch.save(QKFormer(config).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="8 heads do not divide 6 channels\n  try: give --heads"):
        qd.trace(tmp_path / "w.pth")
    assert "heads" not in names(qd.trace(tmp_path / "w.pth", heads=3, image_size=8))


def test_they_stay_with_the_network_its_file_and_its_run(bare: Path, tmp_path: Path) -> None:
    graph = qd.trace(bare)
    integer = qd.quantize(qd.fold(graph))
    assert integer.assumptions == graph.assumptions
    qd.save(integer, tmp_path / "net.qkf")
    assert qd.load(tmp_path / "net.qkf").assumptions == graph.assumptions
    write_run(tmp_path / "run.sqlite", integer, qd.simulate(integer, np.zeros((1, 1, 16, 16), np.uint8)))
    stored = read_run(tmp_path / "run.sqlite")
    assert stored.assumed == lines(graph.assumptions)
    stored.check_network(integer)
    with pytest.raises(InputError, match="the run belongs to another network"):
        stored.check_network(graph)


def test_verify_says_what_it_shares_with_the_network(bare: Path) -> None:
    integer = qd.quantize(qd.fold(qd.trace(bare)))
    images = np.zeros((1, 1, 16, 16), np.uint8)
    first, _ = qd.verify(integer, images, bare)
    assert first.shared == integer.assumptions
    first, _ = qd.verify(integer, images, bare, preset="none")
    assert [a.name for a in first.shared] == ["heads", "T", "image size", "neurons", "shortcut"]
    with pytest.raises(InputError, match=r"\(4, 1, 256\) in the network and \(2, 1, 256\) in the model"):
        qd.verify(integer, images, bare, heads=2)


def test_a_source_keeps_its_assumptions(bare: Path) -> None:
    from qkf_deploy.options import TraceOptions

    assert [a.name for a in resolve(bare, TraceOptions(heads=4)).assumptions][:2] == ["T", "image size"]


def test_options_and_labels_that_would_be_lost(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = tmp_path / "net.qkf"
    qd.save(qd.quantize(qd.fold(qd.trace(bare))), net)
    images = np.zeros((2, 1, 16, 16), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.array([0, 10]))
    np.savez(tmp_path / "floats.npz", images=images, labels=np.array([0.5, 1.0]))
    np.save(tmp_path / "x.npy", images)
    assert run(["simulate", str(net), str(tmp_path / "x.npz")]) == 3
    assert "label 10 of image 1 is not a class\n  try: classes are 0 to 9" in capsys.readouterr().err
    assert run(["simulate", str(net), str(tmp_path / "floats.npz")]) == 3
    assert run(["simulate", str(net), str(tmp_path / "x.npy"), "--record", "head"]) == 2
    assert "--record keeps values for --save" in capsys.readouterr().err
    with pytest.raises(UsageError, match="of a fixed input"):
        qd.quantize(qd.trace(bare), 8, input_bits=4)
    with pytest.raises(UsageError, match="of a fixed input"):
        qd.quantize(qd.trace(bare), 8, input_max=2.0)


def test_the_commands_print_them(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, integer, images = (str(tmp_path / name) for name in ("net.qkf", "int.qkf", "x.npy"))
    np.save(images, np.zeros((1, 1, 16, 16), np.uint8))
    assert run(["trace", str(bare), "-o", net]) == 0
    assert "not in the file, assumed: heads 4, T 4" in capsys.readouterr().err
    assert run(["inspect", net]) == 0
    assert "not in the file, assumed: heads 4, T 4" in capsys.readouterr().out
    assert run(["quantize", net, "-o", integer]) == 0
    assert run(["verify", integer, images, "--against", str(bare)]) == 0
    assert "a wrong one shows no difference here: heads 4, T 4" in capsys.readouterr().err
    assert run(["simulate", net, images, "-o", str(tmp_path / "run.sqlite")]) == 0
    assert run(["map", integer, "--run", str(tmp_path / "run.sqlite")]) == 3
    assert "the run belongs to another network" in capsys.readouterr().err
