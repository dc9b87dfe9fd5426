"""Files written for `spikingjelly.clock_driven` and timm 0.6 load unmodified; nothing of the stand-ins stays behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from frontend_networks import assert_sound, traced
from safetensors.torch import save_file
from spikingjelly.activation_based.neuron import LIFNode

import qkf_deploy as qd
from qkf_deploy.converters.torch.compat import old_names
from qkf_deploy.converters.torch.compat.timm_names import DropPath, ScaledStdConv2d, to_2tuple
from qkf_deploy.converters.torch.factory import call_factory
from qkf_deploy.converters.torch.imports import Imports
from qkf_deploy.errors import InputError

FILE = Path(__file__).parent / "files" / "old_style.py"
OWN = FILE.with_name("own_nodes.py")
STAND_INS = ("spikingjelly.clock_driven", "timm")


def stand_ins() -> list[str]:
    return [m for m in sys.modules if m.split(".")[0] == "timm" or m.startswith("spikingjelly.clock_driven")]


def test_an_old_file_traces_unmodified_with_its_checkpoint(tmp_path: Path) -> None:
    net = traced(call_factory(f"{FILE}:tiny_old", {"T": 3}, {})[0], image_size=16)
    assert_sound(net)
    path = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in net.source.model.state_dict().items()}, path)
    graph = qd.trace(f"{FILE}:tiny_old", checkpoint=path, time_steps=3, image_size=16)
    assert graph.time_steps == 3
    first = qd.simulate(qd.fold(graph), net.images, engine="reference")
    assert np.array_equal(first.logits, qd.simulate(net.graph, net.images, engine="reference").logits)
    assert not any(n.op.kind == "batch_norm" for n in qd.fold(graph))
    assert stand_ins() == []


@pytest.mark.parametrize("kinds", [("early", "late", "own"), ("late", "own", "early"), ("kept", "late", "kept")])
def test_neurons_on_the_old_base_class(kinds: tuple[str, ...]) -> None:
    model = call_factory(f"{OWN}:small", {"T": 3, "kinds": kinds}, {})[0]
    assert model.nodes == 3  # those that the file defines, and SpikingJelly's
    net = traced(model, image_size=8)
    assert_sound(net)
    ops = {n.name: n.op for n in net.graph if n.op.kind == "neuron"}
    late = next(op for op in ops.values() if op.v_threshold == 0.5)
    assert (late.decay, late.v_reset, net.graph.time_steps, len(ops)) == (0.75, None, 3, 3)
    assert stand_ins() == []


def test_batch_norms_behind_linear_layers_fold_into_them() -> None:
    net = traced(call_factory(f"{FILE}:tiny_old", {}, {})[0], image_size=16)
    assert [n.name for n in net.graph if n.op.kind == "linear"] == [
        *(f"attn.{name}_linear" for name in ("q", "k", "v", "proj")),
        "head",
    ]
    assert not any("depthwise" in text for text in net.graph.notices)


def test_stand_ins_last_as_long_as_the_context() -> None:
    with old_names():
        from spikingjelly.clock_driven import functional, layer, neuron, surrogate  # type: ignore[import]
        from timm.models.layers import trunc_normal_  # type: ignore[import]

        assert stand_ins()
        assert all((functional.reset_net, layer.SeqToANNContainer, surrogate.Sigmoid, trunc_normal_))
        lif = neuron.MultiStepLIFNode(tau=3.0, backend="cupy", v_reset=None)
        assert (lif.step_mode, lif.tau, lif.v_reset) == ("m", 3.0, None)
        assert neuron.LIFNode().step_mode == "s"
        with pytest.raises(ImportError, match="SwishGate"):
            from timm.models.layers import SwishGate  # type: ignore[import] # noqa: F401
    assert stand_ins() == []
    with pytest.raises(ImportError):
        import spikingjelly.clock_driven  # type: ignore[import] # noqa: F401


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "groups": 3, "gamma": 1.7, "eps": 1e-2, "gain_init": 0.5}])
def test_standardized_weights_have_mean_0_and_the_variance_that_is_asked(settings: dict[str, float]) -> None:
    torch.manual_seed(0)
    layer = ScaledStdConv2d(6, 9, 3, **settings).double()  # type: ignore[arg-type]
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    w = layer.weight.flatten(1)
    variance = w.var(1, correction=0, keepdim=True) + settings.get("eps", 1e-6)
    wanted = (w - w.mean(1, keepdim=True)) / (variance * w.shape[1]).sqrt()
    wanted = wanted * settings.get("gamma", 1.0) * settings.get("gain_init", 1.0)
    stride, groups = int(settings.get("stride", 1)), int(settings.get("groups", 1))
    same = torch.nn.functional.conv2d(x, wanted.reshape_as(layer.weight), layer.bias, stride, 1, 1, groups)
    assert torch.allclose(layer(x), same, rtol=0, atol=1e-12)


class OnGpu(torch.nn.Module):
    """Moves what it is given, and a constant, to a GPU while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.lif, self.head = LIFNode(step_mode="m"), torch.nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.cuda() * torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1).cuda()
        return self.head(self.lif(x[None].repeat(4, 1, 1, 1, 1)).mean((3, 4))).mean(0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_calls_in_a_forward_do_nothing() -> None:
    model = OnGpu()
    graph = qd.fold(qd.trace(model, image_size=4))
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 4)).astype(np.uint8)
    found, _ = qd.verify(graph, images, model, image_size=4)
    (layer,) = found.layers
    assert (layer.differ_free, layer.spikes > 0) == (0, True)


def test_gpu_calls_do_nothing_without_a_gpu_while_the_context_lasts() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    x, linear = torch.zeros(2), torch.nn.Linear(2, 2)
    with Imports().active():
        assert x.cuda(0) is x
        assert linear.cuda() is linear
    with pytest.raises((AssertionError, RuntimeError)):
        x.cuda()


def test_old_containers_run_step_by_step() -> None:
    with old_names():
        from spikingjelly.clock_driven import layer  # type: ignore[import]
    container = layer.MultiStepContainer(torch.nn.Linear(3, 2))
    x = torch.randn(4, 5, 3)
    assert torch.equal(container(x), torch.stack([container[0](step) for step in x]))


def test_a_missing_name_is_reported_with_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "wants.py"
    path.write_text("from timm.models.layers import Swish\n")
    with pytest.raises(InputError, match=r"cannot be loaded: ImportError: .*Swish.*wants.py:1"):
        call_factory(f"{path}:anything", {}, {})
    assert stand_ins() == []


def test_what_surrounds_a_model_may_be_imported_from_timm_and_not_used(tmp_path: Path) -> None:
    path = tmp_path / "surrounded.py"
    path.write_text(
        "import torch\n"
        "from timm.data.constants import IMAGENET_DEFAULT_MEAN\n"
        "from timm.models.helpers import clean_state_dict\n"
        "from timm.models.vision_transformer import PatchEmbed, _cfg\n\n\n"
        "def build(embed=False):\n"
        "    assert _cfg()['url'] == '' and IMAGENET_DEFAULT_MEAN[0] == 0.485\n"
        "    return PatchEmbed(8) if embed else torch.nn.Linear(2, 3)\n"
    )
    assert isinstance(call_factory(f"{path}:build", {}, {})[0], torch.nn.Linear)
    with pytest.raises(InputError, match=r"timm is not installed, and PatchEmbed is used"):
        call_factory(f"{path}:build", {"embed": True}, {})
    assert stand_ins() == []


def test_backbones_of_a_registry_load_without_it(tmp_path: Path) -> None:
    path = tmp_path / "backbone.py"
    path.write_text(
        "import torch\n"
        "from mmdet.utils import AvoidCUDAOOM\n"
        "from mmengine.logging import print_log\n"
        "from mmengine.model import BaseModule\n"
        "from mmseg.registry import MODELS\n\n\n"
        "@MODELS.register_module()\n"
        "class Backbone(BaseModule):\n"
        "    def __init__(self, width, init_cfg=None):\n"
        "        super().__init__(init_cfg=init_cfg)\n"
        "        self.fc = torch.nn.Linear(2, width)\n\n"
        "    @AvoidCUDAOOM.retry_if_cuda_oom\n"
        "    def forward(self, x):\n"
        "        return self.fc(x)\n\n"
        "    def init_weights(self):\n"
        "        print_log('from scratch')\n"
    )
    made = call_factory(f"{path}:Backbone", {"width": 3, "init_cfg": {"type": "Pretrained"}}, {})[0]
    assert (made.fc.out_features, made.init_cfg) == (3, {"type": "Pretrained"})
    assert made(torch.zeros(1, 2)).shape == (1, 3)
    with pytest.raises(ImportError, match="mmengine is not installed, and print_log is used"):
        made.init_weights()
    assert not [m for m in sys.modules if m.startswith(("mmdet", "mmengine", "mmseg"))]


def test_drop_path_and_pairs() -> None:
    x = torch.ones(1000, 2)
    dropped = DropPath(0.25)(x)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert 0.2 < (dropped == 0).float().mean() < 0.3
    assert torch.equal(DropPath(0.25).eval()(x), x)
    assert (to_2tuple(3), to_2tuple((1, 2))) == ((3, 3), (1, 2))
