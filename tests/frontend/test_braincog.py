"""Files on BrainCog's neurons, without BrainCog."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from frontend_networks import assert_sound, traced

from qkf_deploy.converters.torch.factory import call_factory
from qkf_deploy.errors import InputError

HEAD = """
from braincog.base.node.node import *
from braincog.base.strategy.surrogate import *
from braincog.model_zoo.base_module import BaseModule
from torchvision.ops import DeformConv2d
import torchvision.transforms.functional, seaborn
"""

NET = (
    HEAD
    + """
class Own(BaseNode):
    def __init__(self, act_fun=SigmoidGrad, **kwargs):
        super().__init__(threshold=0.75, **kwargs)
        self.act_fun = act_fun(alpha=4.0, requires_grad=False)

    def integral(self, inputs):
        self.mem = self.mem + inputs

    def calc_spike(self):
        self.spike = self.act_fun(self.mem - self.get_thres())
        self.mem = self.mem * (1 - self.spike.detach())


class Net(BaseModule):
    def __init__(self, node=LIFNode, step=3):
        super().__init__(step=step, encode_type="direct", layer_by_layer=True)
        made = lambda: node(step=step, layer_by_layer=True)
        self.conv, self.bn, self.lif = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), made()
        self.conv2, self.bn2, self.lif2 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), made()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        self.reset()
        x = self.encoder(x)
        x = self.lif(self.bn(self.conv(x)))
        x = self.lif2(self.bn2(self.conv2(x))) + x
        return self.head(x.reshape(self.step, -1, *x.shape[1:]).flatten(3).mean(3).mean(0))
"""
)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("LIFNode", "LIF, decay 0.5, threshold 0.5, reset to 0"),
        ("IFNode", "IF, threshold 0.5, reset to 0"),
        ("PLIFNode", "LIF, .*threshold 1, reset to 0"),
        ("Own", "IF, threshold 0.75, reset to 0"),
    ],
)
def test_neurons(tmp_path: Path, node: str, words: str) -> None:
    (tmp_path / "model.py").write_text(f"{NET}\ndef build():\n    return Net({node})\n")
    model, _ = call_factory(f"{tmp_path}/model.py:build", {}, {})
    net = traced(model, image_size=6)
    assert (net.source.layout, net.source.time_steps) == ("image", 3)
    notices = [text for text in net.graph.notices if "found in" in text]
    assert len(notices) == 2
    assert [text for text in notices if not re.search(words, text)] == []
    assert_sound(net, written=2)
    assert not {m for m in sys.modules if m.startswith(("braincog", "torchvision.ops", "seaborn"))}


def test_event_frames(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(NET)
    model, _ = call_factory(f"{tmp_path}/model.py:Net", {}, {})
    net = traced(model, image_size=6, input="frames", time_steps=3)
    assert_sound(net, written=2)


def test_other_encodings_are_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(f"{HEAD}\ndef build():\n    return BaseModule(step=4, encode_type='rate')\n")
    with pytest.raises(InputError, match="NotImplementedError: encoding 'rate'"):
        call_factory(f"{tmp_path}/model.py:build", {}, {})
