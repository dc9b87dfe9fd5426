"""Tracing leaves nothing behind: not in the model, not in torch, not in Python."""

from __future__ import annotations

import functools
import random
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import InputError, UnsupportedError
from qkf_deploy.ir import Graph


@functools.lru_cache
def _ramp(channels: int) -> Tensor:
    """A constant that code keeps outside of every module."""
    return torch.arange(1.0, channels + 1).view(1, channels, 1, 1)


class Busy(nn.Module):
    """A model that does everything it should not: every call leaves something behind."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.T = 3
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.lif, self.drop = neuron.LIFNode(step_mode="m"), nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)
        self.register_buffer("seen", torch.zeros(()))
        self.mask: Tensor | None = None
        self.kept: dict[str, Any] = {"last": None, "list": [torch.ones(2)]}
        self.lock, self.library = threading.Lock(), np  # neither can be copied
        self.hooked: list[int] = []
        self.conv.register_forward_hook(lambda *_: None)

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.T = int(self.T)
        if self.mask is None:
            self.mask = torch.arange(4.0).view(1, 4, 1, 1)
        torch.rand(3), np.random.rand(), random.random()
        self.kept["last"] = x
        self.kept["list"].append(x)
        with torch.no_grad():
            self.conv.weight.clamp_(-0.2, 0.2)
        self.extra = x
        y = self.norm(self.conv(x)) * self.mask * _ramp(4)
        y = self.drop(self.lif(y.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)))
        return self.head(y.mean((0, 3, 4)))


def test_what_its_code_prints_is_not_among_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chatty.py").write_text(
        "import torch\nfrom spikingjelly.activation_based import neuron\nprint('IMPORTED')\n"
        "class Chatty(torch.nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        print('RUN', x.shape)\n"
        "        return super().forward(x[None].repeat(2, 1, 1, 1, 1)).mean(0).flatten(1)\n"
        "def net():\n"
        "    print('MADE')\n"
        "    return Chatty(neuron.LIFNode(step_mode='m'))\n"
    )
    graph = qd.fold(qd.trace(f"{tmp_path}/chatty.py:net", image_size=2, in_channels=1, time_steps=2))
    qd.verify(
        graph, np.zeros((1, 1, 2, 2), np.uint8), f"{tmp_path}/chatty.py:net", image_size=2, in_channels=1, time_steps=2
    )
    seen = capsys.readouterr()
    assert seen.out == ""
    assert all(word in seen.err for word in ("IMPORTED", "MADE", "RUN"))


def everything(model: nn.Module) -> dict[str, Any]:
    """Every attribute of every module, tensors as bytes, containers flattened, and torch's and Python's own state."""
    found: dict[str, Any] = {}

    def note(place: str, value: Any) -> None:
        if isinstance(value, Tensor):
            assert type(value) in (Tensor, nn.Parameter), place
            found[place] = (value.dtype, value.requires_grad, value.detach().numpy().tobytes(), value.data_ptr())
        elif isinstance(value, dict):
            found[place] = sorted(map(str, value))
            for key, item in value.items():
                note(f"{place}/{key}", item)
        elif isinstance(value, list | tuple):
            found[place] = len(value)
            for index, item in enumerate(value):
                note(f"{place}/{index}", item)
        elif isinstance(value, int | float | str | None):
            found[place] = value
        else:
            found[place] = id(value)

    for path, module in model.named_modules():
        for name, value in vars(module).items():
            note(f"{path}.{name}", value)
    note("generators", (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()))
    note("torch", (str(torch.get_default_dtype()), torch.is_grad_enabled(), torch.get_num_threads()))
    note("python", (list(sys.path), sorted(m for m in sys.modules if "qkf_user" in m)))
    return found


@pytest.fixture
def busy() -> Busy:
    _ramp.cache_clear()
    model = Busy().train()
    model.lif(torch.ones(2, 1, 4, requires_grad=True))  # a membrane with a gradient, as after a training step
    return model


@pytest.mark.parametrize("options", [{}, {"input": "image", "time_steps": 3}], ids=["layout found", "layout given"])
def test_nothing_is_left_behind(busy: Busy, options: dict[str, Any]) -> None:
    before = everything(busy)
    assert before["lif._memories/v"][1]
    graph = qd.trace(busy, image_size=4, **options)
    assert everything(busy) == before
    assert all(module.training for module in busy.modules())
    assert type(_ramp(4)) is Tensor
    assert [n.op.kind for n in graph].count("neuron") == 1
    qd.verify(qd.fold(graph), np.zeros((1, 2, 4, 4), np.uint8), busy, image_size=4, **options)
    assert everything(busy) == before
    assert busy(torch.zeros(2, 2, 4, 4)).shape == (2, 5)  # and it trains on


def test_nothing_is_left_behind_by_a_model_that_is_refused(busy: Busy) -> None:
    busy.drop = nn.Softmax(1)
    before = everything(busy)
    with pytest.raises(UnsupportedError, match="softmax"):
        qd.trace(busy, image_size=4)
    with pytest.raises(UnsupportedError, match="neither images nor sequences"):
        qd.trace(busy, image_size=4, in_channels=3)
    assert everything(busy) == before


def test_the_graph_does_not_change_when_training_goes_on(busy: Busy) -> None:
    graph = qd.trace(busy, image_size=4)
    before = {(n.name, k): a.copy() for n in graph for k, a in n.params.items()}
    with torch.no_grad():
        for tensor in (*busy.parameters(), *busy.buffers()):
            tensor += 1
    assert all((array == before[n.name, k]).all() for n in graph for k, array in n.params.items())


def test_weights_without_values_are_refused() -> None:
    with torch.device("meta"):
        meta = nn.Sequential(nn.Conv2d(1, 2, 1), neuron.IFNode(), nn.Flatten(), nn.Linear(8, 2))
    lazy = nn.Sequential(nn.LazyConv2d(2, 1), neuron.IFNode(), nn.Flatten(), nn.Linear(8, 2))
    for model in (meta, lazy):
        with pytest.raises(InputError, match=r"0\.weight: this parameter has no values yet"):
            qd.trace(model, image_size=2, in_channels=1, time_steps=2)


def test_where_a_model_fails_is_named_by_its_own_path() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("not today")

    model = nn.Sequential(nn.Conv2d(1, 2, 1), Fails())
    with pytest.raises(UnsupportedError, match=r"not today in 1 \(test_untouched.py:"):
        qd.trace(model, image_size=2, time_steps=2)


FACTORY = """
import os, random, sys
import numpy as np
import torch
from torch import nn
from spikingjelly.activation_based import neuron


def build():
    torch.manual_seed(1); np.random.seed(1); random.seed(1)
    torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)
    sys.path.append("/nowhere")
    return nn.Sequential(nn.Conv2d(1, 2, 1), neuron.IFNode(), nn.Flatten(), nn.Linear(8, 2))
"""


def traced(path: Path) -> Graph:
    return qd.trace(f"{path}:build", image_size=2, time_steps=2)


def test_a_factory_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(FACTORY)
    nothing, modules = nn.Module(), set(sys.modules)
    before = everything(nothing)
    first, second = traced(tmp_path / "model.py"), traced(tmp_path / "model.py")
    assert everything(nothing) == before
    assert {m for m in set(sys.modules) - modules if "model" in m.split(".")[-1].split("_")} == set()
    assert (first["0"].params["weight"] == second["0"].params["weight"]).all()


def test_two_projects_may_have_modules_of_the_same_name(tmp_path: Path) -> None:
    for project, kernel in (("one", 1), ("two", 3)):
        folder = tmp_path / project
        folder.mkdir()
        (folder / "layers.py").write_text(f"KERNEL = {kernel}\n")
        model = FACTORY.replace("nn.Conv2d(1, 2, 1)", "nn.Conv2d(1, 2, KERNEL, padding=KERNEL // 2)")
        (folder / "model.py").write_text("from layers import KERNEL\n" + model)
    kernels = [traced(tmp_path / project / "model.py")["0"].params["weight"].shape[-1] for project in ("one", "two")]
    assert kernels == [1, 3]
    assert "layers" not in sys.modules


def test_a_copy_of_spikingjelly_in_a_project_gives_way_to_the_installed_one(tmp_path: Path) -> None:
    copied = tmp_path / "spikingjelly"
    copied.mkdir()
    (copied / "__init__.py").write_text("raise ImportError('another one')\n")
    (tmp_path / "model.py").write_text(FACTORY)
    net = traced(tmp_path / "model.py")
    assert any("own copy of spikingjelly was not used" in text for text in net.notices)
    assert Path(sys.modules["spikingjelly"].__file__ or "").parent != copied


MODELS = f"""
from . import layers
from .layers import KERNEL
{FACTORY.replace("(1, 2, 1)", "(1, 2, KERNEL, padding=1)")}

class Late(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = build()

    def forward(self, x):
        from ..size import KERNEL
        return self.net(x)
"""
PACKAGE = {
    "__init__.py": "",
    "size.py": "KERNEL = 3\n",
    "sub/__init__.py": "",
    "sub/layers.py": "from ..size import KERNEL\n",
    "sub/models.py": MODELS,
}


@pytest.mark.parametrize("regular", [True, False], ids=["packages", "folders without __init__.py"])
@pytest.mark.parametrize("name", ["project", "project-1.0"])
def test_relative_imports(tmp_path: Path, regular: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for file, text in PACKAGE.items():
        if regular or not file.endswith("__init__.py"):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    monkeypatch.chdir(tmp_path)
    sources = [f"{tmp_path}/{name}/sub/models.py", f"{name}/sub/models.py"]
    if "." not in name:
        sources.append(f"{name}.sub.models")
    before = set(sys.modules)
    for source in sources:
        graph = qd.trace(f"{source}:Late", image_size=2, time_steps=2)
        assert graph["net.0"].params["weight"].shape == (2, 1, 3, 3)
    assert {m for m in set(sys.modules) - before if m.startswith("project")} == set()
    late = f"{tmp_path}/{name}/sub/models.py:Late"
    integer = qd.quantize(qd.trace(late, image_size=2, time_steps=2))
    found, _ = qd.verify(integer, np.zeros((1, 1, 2, 2), np.uint8), late, image_size=2, time_steps=2)
    assert found.differ_free == 0


def test_random_numbers_are_not_frozen_into_the_graph() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lif = nn.Conv2d(1, 2, 1), neuron.LIFNode(step_mode="m")

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x) + torch.rand(1, 2, 1, 1)
            return self.lif(y.unsqueeze(0).repeat(2, 1, 1, 1, 1)).mean((0, 3, 4))

    class Masked(Noisy):
        def forward(self, x: Tensor) -> Tensor:
            y = self.lif(self.conv(x).unsqueeze(0).repeat(2, 1, 1, 1, 1))
            return (y * torch.rand(y.shape).gt(0.2)).mean((0, 3, 4))

    for model in (Noisy(), Masked()):
        with pytest.raises(UnsupportedError, match="uses random numbers"):
            qd.trace(model, image_size=2)
