"""Arguments, imports and habits of model files written for SpikingJelly 0.0.0.0.4 to 0.0.0.0.14."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
import torch
from frontend_networks import assert_sound, traced
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.neuron import LIFNode
from torch import nn

import qkf_deploy as qd
from qkf_deploy.converters.torch.compat import old_names
from qkf_deploy.converters.torch.factory import call_factory
from qkf_deploy.errors import InputError

HEAD = """
import torch
from torch import nn
{imports}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.lif = {neuron}
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.bn(self.conv(x))
        return self.fc(self.lif(x[None].repeat(4, 1, 1, 1, 1)).mean((3, 4))).mean(0)
"""
OLD = "from spikingjelly.clock_driven import neuron, surrogate"
LIF = "3.0, True, 0.75, 0.0, surrogate.Sigmoid(), True"
NEW = "from spikingjelly.activation_based import neuron, surrogate, functional"
#: Imports, the neuron as the file makes it, and the threshold, reset voltage and time constant it must have.
WRITTEN = {
    "0.0.0.0.12 in order": (OLD, f"neuron.MultiStepLIFNode({LIF}, 'torch')", 3.0),
    "0.0.0.0.12, lava scale": (OLD, f"neuron.MultiStepLIFNode({LIF}, 'cupy', 64)", 3.0),
    "0.0.0.0.12 IF": (OLD, "neuron.MultiStepIFNode(0.75, 0.0, surrogate.Sigmoid(), True, 'cupy')", None),
    "0.0.0.0.12 PLIF": (OLD, f"neuron.MultiStepParametricLIFNode({LIF}, 'cupy')", 3.0),
    "0.0.0.0.14 by name": (NEW, "neuron.LIFNode(tau=3.0, v_threshold=0.75, step_mode='m', backend='cupy')", 3.0),
    "0.0.0.0.14 in order": (
        NEW, f"neuron.LIFNode({LIF}, 'm', 'cupy', False)", 3.0,
    ),
    "0.0.0.0.14 subclass": (
        NEW + "\nclass Mine(neuron.IFNode):\n    def __init__(self):\n"
        "        super().__init__(0.75, backend='cupy', step_mode='m')",
        "Mine()", None,
    ),
    "cext": ("from spikingjelly.cext import neuron", "neuron.MultiStepIFNode(0.75, 0.0, 'ATan', 2.0, True)", None),
    "cext LIF": ("from spikingjelly.cext.neuron import MultiStepLIFNode", "MultiStepLIFNode(3.0, False, 0.75)", 3.0),
    "cext PLIF": (
        "from spikingjelly.cext.neuron import MultiStepParametricLIFNode as PLIF",
        "PLIF(init_tau=3.0, v_threshold=0.75, detach_reset=True)", 3.0,
    ),
    "summaries and counters": (
        f"{NEW}\nfrom torchinfo import summary\nimport thop\nfrom fvcore.nn import FlopCountAnalysis\n"
        "import einops.layers.torch\nfrom einops import rearrange, repeat\nimport wandb",
        "neuron.IFNode(0.75, step_mode='m')", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("imports", "made", "tau"), WRITTEN.values(), ids=WRITTEN)
def test_old_neurons_are_what_they_were(tmp_path: Path, imports: str, made: str, tau: float | None) -> None:
    (tmp_path / "model.py").write_text(HEAD.format(imports=imports, neuron=made))
    before = set(sys.modules)
    model, _ = call_factory(f"{tmp_path}/model.py:Net", {}, {})
    lif = model.lif
    assert (lif.v_threshold, lif.v_reset, lif.step_mode) == (0.75, 0.0, "m")
    net = traced(model, image_size=8)
    op = next(n.op for n in net.graph if n.op.kind == "neuron")
    assert op.tau == (None if tau is None else pytest.approx(tau))
    assert_sound(net)
    assert not {
        m for m in set(sys.modules) - before if m.startswith(("einops", "thop", "torchinfo", "spikingjelly.cext"))
    }


def test_backend_is_taken_only_while_a_file_is_loaded() -> None:
    signatures = [inspect.signature(c.__init__) for c in (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode)]
    with old_names():
        neuron.LIFNode(backend="cupy")
        functional.set_backend(nn.Module(), "cupy")
    assert [
        inspect.signature(c.__init__) for c in (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode)
    ] == signatures
    assert not hasattr(functional, "set_backend")
    with pytest.raises(TypeError, match="backend"):
        neuron.LIFNode(backend="cupy")


def test_what_is_used_must_be_installed(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from einops import rearrange\ndef build():\n    return rearrange(1, 'a -> a')\n"
    )
    with pytest.raises(InputError, match="einops is not installed, and rearrange is used: pip install einops"):
        call_factory(f"{tmp_path}/model.py:build", {}, {})


class InPlace(nn.Module):
    """Views in place, of the input too, as ImageNet files of residual networks write them."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.lif = LIFNode(step_mode="m")
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.form == "input":
            x.unsqueeze_(1)
            x = x.repeat(1, 4, 1, 1, 1).transpose(0, 1)
            x = self.bn(self.conv(x.flatten(0, 1))).reshape(4, -1, 8, 8, 8)
        else:
            x = self.bn(self.conv(x))
            x.unsqueeze_(0)
            x = x.repeat(4, 1, 1, 1, 1)
        x = self.lif(x)
        if self.form == "squeeze":
            x = x.mean((3, 4), keepdim=True)
            x.squeeze_(-1).squeeze_(-1)
            x.t_() if x.ndim == 2 else x.transpose_(0, 1).transpose_(0, 1)
        else:
            x = x.mean((3, 4))
        return self.fc(x).mean(0)


@pytest.mark.parametrize("form", ["feature map", "input", "squeeze"])
def test_views_in_place(form: str) -> None:
    plain, odd = traced(InPlace("feature map"), image_size=8), traced(InPlace(form), image_size=8, time_steps=4)
    assert_sound(odd)
    assert len(odd.graph.nodes) == len(plain.graph.nodes)


def test_an_input_is_as_it_was() -> None:
    x = torch.zeros(1, 3, 8, 8)
    qd.trace(InPlace("input"), image_size=8, time_steps=4)
    assert x.shape == (1, 3, 8, 8)
