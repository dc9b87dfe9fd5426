"""Networks with several outputs: class logits, maps, boxes; each with a name and its own readout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from frontend_networks import assert_exact, assert_faithful, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.cli import group
from qkf_deploy.datasets.images import Images
from qkf_deploy.errors import GraphError, InputError, UnsupportedError, UsageError
from qkf_deploy.ir.values import Timing, ValueType
from qkf_deploy.ops import Output

STEPS = 3


class Heads(nn.Module):
    """A classifier, an auxiliary classifier of the last step, and a map; ``form`` is how they are returned."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.conv, self.bn, self.lif = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        self.fc, self.aux, self.mask = nn.Linear(6, 5), nn.Linear(6, 4), nn.Conv2d(6, 2, 1)
        self.form = form

    def forward(self, x: Tensor) -> object:
        y = self.lif(self.bn(self.conv(x))[None].repeat(STEPS, 1, 1, 1, 1))
        tokens = y.mean((3, 4))
        mask = self.mask(y.flatten(0, 1)).unflatten(0, (STEPS, -1))  # one map per step
        logits, aux = self.fc(tokens).sum(0), self.aux(tokens)[-1]
        if self.form == "tuple":
            return logits, [aux, mask]
        if self.form == "constant":
            return torch.ones(1, 5), torch.zeros(1, 4)
        if self.form == "two":
            return logits, mask
        return {"mask": mask, "logits": logits} if self.form == "dict" else mask


def heads(form: str, *outputs: str):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return traced_with(Heads(form), outputs)


def traced_with(model: nn.Module, outputs: tuple[str, ...]):  # type: ignore[no-untyped-def]
    return traced(model, image_size=(4, 6), outputs=outputs)


CASES = {
    "all": ("two", ("all",), {"0": (5,), "1": (2, 4, 6)}),
    "in another order": ("tuple", ("1.0", "1.1", "0"), {"1.0": (4,), "1.1": (2, 4, 6), "0": (5,)}),
    "by key": ("dict", ("logits", "mask"), {"logits": (5,), "mask": (2, 4, 6)}),
    "one of them": ("dict", ("mask",), {"mask": (2, 4, 6)}),
    "a map": ("map", (), {"output": (2, 4, 6)}),
}


@pytest.mark.parametrize("name", CASES)
def test_outputs(name: str) -> None:
    """Equal to the model's in float64, equal integers in every engine, each under its name."""
    form, asked, shapes = CASES[name]
    net = heads(form, *asked)
    assert_faithful(net)
    integer = assert_exact(net.graph, net.images)
    runs = {e: qd.simulate(integer, net.images, engine=e) for e in ("reference", "event", "torch", "onnx")}
    for run in runs.values():
        assert {n: v.shape[1:] for n, v in run.named_outputs.items()} == shapes
        for output, values in run.named_outputs.items():
            assert np.array_equal(values, runs["reference"].named_outputs[output])
    float_run = qd.simulate(net.graph, net.images)
    for output, values in runs["event"].named_outputs.items():
        assert np.abs(values - float_run.named_outputs[output]).max() < 0.2


def test_accuracy_is_that_of_the_class_logits() -> None:
    """The first output that is one number per class, wherever it stands."""
    net = heads("dict", "all")
    run = qd.simulate(net.graph, net.images)
    assert np.array_equal(run.class_logits, run.named_outputs["logits"])
    assert run.accuracy(run.named_outputs["logits"].argmax(1)) == 1.0
    with pytest.raises(InputError, match="label 7 of image 0 is not a class"):
        run.accuracy([7] * len(net.images))
    with pytest.raises(UsageError, match=r"0, 1\.0 could all be class logits") as caught:
        heads("tuple", "all")
    assert "--outputs 0,1.0,1.1" in str(caught.value.hint)
    with pytest.raises(UsageError, match="returns no 'boxes'"):
        heads("dict", "boxes")
    with pytest.raises(UnsupportedError, match="no result of the model is a tensor computed from its input"):
        heads("constant", "all")


def test_names_of_classes_are_those_of_the_class_logits(tmp_path: Path) -> None:
    net = heads("dict", "all")
    graph = replace(qd.quantize(net.graph, 8), class_names=tuple("abcde"))
    qd.save_run(graph, qd.simulate(graph, net.images), tmp_path / "run.sqlite")
    assert qd.load_run(tmp_path / "run.sqlite").class_names == tuple("abcde")
    wrong = replace(graph, class_names=tuple("abcdef"))
    qd.save_run(wrong, qd.simulate(wrong, net.images), tmp_path / "wrong.sqlite")
    with pytest.raises(InputError, match="6 names of 5 classes"):
        qd.load_run(tmp_path / "wrong.sqlite")


def test_answers_at_every_step_and_every_width_are_the_class_logits() -> None:
    """Beside other outputs, which have larger numbers."""
    net = heads("dict", "all")
    answers = qd.simulate(net.graph, net.images).predicted
    assert np.array_equal(qd.over_time(net.graph, net.images).predicted[-1], answers)
    images = Images(net.images, [str(i) for i in answers], answers)
    best = qd.sensitivity(net.graph, images, candidates=(24, 16)).report.curve[-1]
    assert (best.accuracy, best.same_class) == (1.0, 1.0)
    with pytest.raises(UnsupportedError, match="no output is one number per class"):
        qd.over_time(heads("dict", "mask").graph, net.images)


def test_without_being_asked_the_first_result_is_the_output() -> None:
    net = heads("tuple")
    assert not net.graph.output.op.parts
    assert "the model returns 3 results; the first one is the output (--outputs gives more: 0, 1.0, 1.1, or all)" in (
        net.graph.notices
    )


def test_files_commands_and_exports_keep_the_names(tmp_path: Path) -> None:
    net = heads("dict", "all")
    integer = qd.quantize(net.graph, 8)
    qd.save(integer, tmp_path / "net.qkf")
    assert qd.load(tmp_path / "net.qkf").output.op == integer.output.op
    np.save(tmp_path / "x.npy", net.images)
    runner = CliRunner()
    arguments = [str(tmp_path / "net.qkf"), str(tmp_path / "x.npy")]
    shown = runner.invoke(group, ["simulate", *arguments, "--save", str(tmp_path / "run.npz")])
    assert shown.exit_code == 0, shown.output
    assert "output mask (2x4x6): " in shown.output + shown.stderr
    run = qd.simulate(integer, net.images)
    with np.load(tmp_path / "run.npz") as stored:
        assert np.array_equal(stored["output/mask"], run.named_outputs["mask"])
    assert json.loads(json.dumps(run.to_dict()))["outputs"]["logits"] == run.named_outputs["logits"].tolist()
    np.savez(tmp_path / "labelled.npz", images=net.images, labels=run.predicted)
    labelled = str(tmp_path / "labelled.npz")
    scored = runner.invoke(group, ["evaluate", arguments[0], labelled, "-o", str(tmp_path / "e.sqlite")])
    assert scored.exit_code == 0, scored.output
    assert "100.00 %" in scored.output
    qd.export_onnx(integer, tmp_path / "net.onnx", form="sequence")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    names = ["output/mask", "output/logits"]
    for name, values in zip(names, session.run(names, {"input": net.images}), strict=True):
        assert np.array_equal(values, run.named_outputs[name.removeprefix("output/")])


@pytest.mark.parametrize(
    ("names", "shapes", "message"),
    [
        (("a", "a"), ((2,), (3,)), "a name and a shape each"),
        (("a",), ((2,), (3,)), "a name and a shape each"),
        (("a", ""), ((2,), (3,)), "a name and a shape each"),
        (("a", "b"), ((2,), (4,)), "do not lie side by side in a value of shape (5,)"),
        (("a", "b"), ((-2,), (-3,)), "do not lie side by side"),
    ],
)
def test_outputs_that_do_not_fit(names, shapes, message: str) -> None:  # type: ignore[no-untyped-def]
    vector = ValueType.drive((5,), Timing.IMAGE)
    with pytest.raises(GraphError) as caught:
        Output(names, shapes).infer([vector], {})
    assert message in str(caught.value)
