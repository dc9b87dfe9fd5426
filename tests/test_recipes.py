"""docs/architecture.md: its diffs are applied to a copy of the package, and what they add works as computed by hand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()

MODEL = """
from spikingjelly.activation_based.neuron import IFNode
from torch import nn
import torch

class Model(nn.Module):
    \"\"\"Pixels x in 0..1: `a` integrates x, `b` integrates 1 - x, both fire at 1.\"\"\"

    def __init__(self):
        super().__init__()
        self.conv_a, self.conv_b = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        self.a, self.b = (IFNode(v_threshold=1.0, v_reset=0.0, step_mode="m") for _ in "ab")
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            for layer, weight, bias in ((self.conv_a, 1.0, 0.0), (self.conv_b, -1.0, 1.0)):
                layer.weight.fill_(weight)
                layer.bias.fill_(bias)
            self.head.weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]))
            self.head.bias.zero_()

    def forward(self, x):
        x = x.unsqueeze(0).repeat(4, 1, 1, 1, 1)
        a = self.a(self.conv_a(x.flatten(0, 1)).reshape(x.shape))
        b = self.b(self.conv_b(x.flatten(0, 1)).reshape(x.shape))
        return self.head(torch.maximum(a, b).flatten(2).mean(0))
"""

# Of 4 steps, a fires at all for pixel 255, b for pixel 0. Pixel 128 (x = 0.502): a at steps 2 and 4, b (0.498) at 3.
SCRIPT = """
import numpy as np
import qkf_deploy as qd
from model import Model
from qkf_deploy.converters.onnx.export import unsupported_reasons

net = qd.trace(Model().eval(), time_steps=4, image_size=2, in_channels=1, mean=(0.0,), std=(1.0,))
integer = qd.quantize(net, 8)
either = next(n.name for n in net if n.op.kind == "either")
pixels = np.array([[[[255, 0], [128, 255]]], [[[128, 128], [0, 0]]]], np.uint8)
first, second, every = [[1, 1], [0, 1]], [[0, 0], [1, 1]], [[1, 1], [1, 1]]
runs = [qd.simulate(net, pixels, record="all")]
runs += [qd.simulate(integer, pixels, record="all", engine=e) for e in ("reference", "event", "onnx")]
assert not unsupported_reasons(integer)
for run in runs:
    assert run.values[either][:, 0, 0].tolist() == [first, every, every, every]
    assert run.values[either][:, 1, 0].tolist() == [second, every, every, every]
    counts = run.ledger[either].counts
    assert counts["pool_comparisons"].tolist() == [16, 16]
    assert counts["events_in_unary"].tolist() == [10 + 5, 4 + 10]
    assert counts["events_out_unary"].tolist() == [15, 14]
    assert run.ledger[either].spikes_per_step.tolist() == [[3, 2], [4, 4], [4, 4], [4, 4]]
assert runs[0].logits.tolist() == [[15 / 4, 4 / 4], [14 / 4, 3 / 4]]
for run in runs[1:]:
    assert run.raw_output[0].tolist() == [[15, 4], [14, 3]]  # weights 0 and 1 are integers already
assert runs[1].ledger == runs[2].ledger == runs[3].ledger
report = qd.price(runs[1].ledger, "two-prices")
adds, macs = runs[1].ledger.total("ac_unary"), runs[1].ledger.total("mac")
assert macs == 2 * 2 * 4
assert str(report.total_energy_pj.normalize()) == str((adds * 3 + macs * 23) / 100), report.total_energy_pj
assert report.unpriced["pool_comparisons"] == 32
qd.save(integer, "net.qkf")
assert qd.simulate(qd.load("net.qkf"), pixels, engine="event").ledger == runs[2].ledger
print("as computed by hand")
"""


def apply(diff: str, root: Path) -> None:
    """A unified diff; a hunk is found by its lines, not by their numbers."""
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        head, *hunks = re.split(r"^@@.*@@\n", part, flags=re.MULTILINE)
        path = root / re.findall(r"^\+\+\+ b/(.+)$", head, re.MULTILINE)[0]
        text = path.read_text() if path.exists() else ""
        for hunk in hunks:
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            assert text.count(before) == 1 or not text, f"{path.name}: not one place like\n{before}"
            text = text.replace(before, after, 1) if text else after
        path.write_text(text)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with every diff of the page, and a model that uses what they add."""
    root = tmp_path_factory.mktemp("recipes")
    shutil.copytree(ROOT / "qkf_deploy", root / "qkf_deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for diff in re.findall(r"^```diff\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        apply(diff, root)
    (root / "model.py").write_text(MODEL)
    return root


def python(root: Path, script: str) -> subprocess.CompletedProcess[str]:
    lines = "import sys\nsys.path.insert(0, '.')\n" + script
    return subprocess.run([sys.executable, "-c", lines], cwd=root, capture_output=True, text=True, timeout=300)


def test_an_operator_and_a_profile_added_by_the_recipes(extended: Path) -> None:
    done = python(extended, SCRIPT)
    assert done.stdout == "as computed by hand\n", done.stderr[-3000:]


def test_backends_without_a_function_say_so(extended: Path) -> None:
    done = python(
        extended,
        "import qkf_deploy as qd\nfrom model import Model\n"
        "from qkf_deploy.converters import formats\nfrom qkf_deploy.converters.nir.export import offenders\n"
        "net = qd.trace(Model().eval(), time_steps=4, image_size=2, in_channels=1, mean=(0.0,), std=(1.0,))\n"
        "print([why for name, why in offenders(net).items() if net[name].op.kind == 'either'])\n"
        "print(formats.support('either', 'nir').verdict)\n",
    )
    assert done.stdout.splitlines() == ["['either has no NIR form here']", "no"], done.stderr[-3000:]


def test_this_package_has_no_such_operator() -> None:
    from qkf_deploy.ops import OPERATORS

    assert "either" not in OPERATORS


def test_the_page_names_every_room() -> None:
    rooms = {p.name for p in (ROOT / "qkf_deploy").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert {room for room in rooms if f"{room}/" not in PAGE} == set()
