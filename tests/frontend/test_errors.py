"""What cannot be traced says where and what to do, in one message and without a traceback."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from frontend_networks import traced
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.cli import run
from qkf_deploy.errors import InputError, UnsupportedError, UsageError

BAD = """
import torch
from torch import nn
from spikingjelly.activation_based import neuron


class Net(nn.Module):
    def __init__(self, middle):
        super().__init__()
        self.T = 2
        self.conv, self.middle = nn.Conv2d(3, 4, 3, padding=1), middle
        self.lif = neuron.LIFNode(step_mode="m")
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.middle(self.conv(x)).unsqueeze(0).repeat(self.T, 1, 1, 1, 1)
        return self.head(self.lif(x).mean((0, 3, 4)))


class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Crash(nn.Module):
    def forward(self, x):
        raise RuntimeError("not today")


def fine():
    return Net(nn.Identity())


def raises():
    raise KeyError("no such variant")


def gelu():
    return Net(nn.GELU())


def several():
    return Net(nn.Sequential(nn.GELU(), nn.Softmax(1), nn.GroupNorm(2, 4)))


def branch():
    return Net(Branch())


def crash():
    return Net(Crash())


def tensor():
    return torch.zeros(3)


def needs(spiking_neuron=None):
    return Net(spiking_neuron())
"""


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.py"
    path.write_text(BAD)
    return path


ERRORS = {
    "raises": (InputError, r"bad.py:raises: the factory raised KeyError: 'no such variant' \(at bad.py:\d+\)\n  try: "),
    "gelu": (
        UnsupportedError,
        r"^1 operation cannot be lowered:\n  middle \(bad.py:\d+\): gelu has no spiking or integer form\n"
        r"  try: put a spiking neuron in its place$",
    ),
    "several": (
        UnsupportedError,
        r"(?s)3 operations cannot be lowered:.*middle.0.*gelu.*middle.1.*softmax.*middle.2.*group_norm",
    ),
    "branch": (UnsupportedError, r"(?s)in middle \(bad.py:\d+\)"),
    "crash": (UnsupportedError, r"(?s)as image.*not today in middle \(bad.py:\d+\).*as sequence.*try: check"),
    "tensor": (InputError, "returned a Tensor, not an nn.Module"),
    "needs": (InputError, "--factory-arg spiking_neuron=spikingjelly"),
    "missing": (InputError, r"no factory 'missing' in it\n  try: it has: .*fine"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_model_that_cannot_be_traced(bad: Path, name: str) -> None:
    kind, message = ERRORS[name]
    with pytest.raises(kind) as caught:
        qd.trace(f"{bad}:{name}", image_size=8)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_a_branch_on_values_is_named_by_the_exporter_too(bad: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"torch\.export cannot capture") as caught:
        qd.trace(f"{bad}:branch", image_size=8, input="image", time_steps=2)
    assert caught.value.where is not None
    assert caught.value.where.startswith("middle (bad.py:")
    assert "constant in evaluation mode" in (caught.value.hint or "")


def test_missing_files_modules_and_sizes(tmp_path: Path, bad: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        qd.trace(f"{tmp_path}/none.py:build")
    with pytest.raises(InputError, match="cannot be imported: ModuleNotFoundError"):
        qd.trace("no_such_package_at_all:build")
    with pytest.raises(UsageError, match="does not say its image size"):
        qd.trace(f"{bad}:fine")
    with pytest.raises(InputError, match="no object 'Nothing' in"):
        qd.trace(f"{bad}:needs", image_size=8, factory_arguments={"spiking_neuron": "torch.nn:Nothing"})
    with pytest.raises(UnsupportedError, match="neither images nor sequences"):
        qd.trace(f"{bad}:fine", image_size=8, in_channels=5)


def test_the_command_line_prints_one_message_and_no_traceback(bad: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "qkf_deploy.cli",
        "trace",
        f"{bad}:gelu",
        "--image-size",
        "8",
        "-o",
        tmp_path / "x",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "error: 1 operation cannot be lowered:"
    assert lines[1].startswith("  middle (bad.py:")
    assert lines[2] == "  try: put a spiking neuron in its place"
    assert len(lines) == 3
    assert not (tmp_path / "x").exists()


def test_the_command_line_traces_a_file(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.qkf"
    assert run(["trace", f"{bad}:fine", "--image-size", "8", "--time-steps", "3", "-o", str(out)]) == 0
    assert "1 neuron layer," in capsys.readouterr().out
    assert qd.load(out).time_steps == 3


def test_the_model_is_left_as_it_was() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lif = nn.Conv2d(3, 4, 1), neuron.LIFNode(step_mode="m")

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(self.lif(self.conv(x).unsqueeze(0).repeat(2, 1, 1, 1, 1)).mean((0, 3, 4)), 1)

    model = Net()
    with pytest.raises(UnsupportedError, match="softmax"):
        traced(model, image_size=4)
    assert "forward" not in vars(model.lif)
    assert model(torch.zeros(1, 3, 4, 4)).shape == (1, 4)


def test_a_model_with_1000_classes_is_taken_as_imagenet(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "from torch import nn\n"
        "from spikingjelly.activation_based import neuron\n"
        "def build():\n"
        "    lif = neuron.LIFNode(step_mode='s')\n"
        "    return nn.Sequential(nn.Conv2d(3, 2, 32, 32), lif, nn.Flatten(), nn.Linear(98, 1000))\n"
    )
    graph = qd.trace(f"{tmp_path}/plain.py:build", time_steps=2)
    assert graph.input.type.shape == (3, 224, 224)
    assert graph.preprocessing is not None
    assert graph.preprocessing.mean == (0.485, 0.456, 0.406)
    assert [(a.name, a.value, a.source) for a in graph.assumptions] == [
        ("image size", "224 x 224", "usual for 1000 classes"),
        ("input", "one call per time step, results averaged", "the layout that the model takes"),
        ("mean/std", "imagenet", "usual for 1000 classes"),
    ]


def test_what_a_factory_raises_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def net():\n    raise TypeError('first\\n  second\\n' + 500 * 'x')\n")
    with pytest.raises(InputError) as caught:
        qd.trace(f"{tmp_path}/net.py:net")
    assert re.fullmatch(r"the factory raised TypeError: first second x{287} \(at net.py:2\)", caught.value.message)
