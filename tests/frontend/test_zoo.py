"""SpikingJelly's own models: traced, equal to torch spike for spike, quantized, counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from frontend_networks import assert_faithful, assert_sound, multi_step, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.converters.torch.factory import call_factory
from qkf_deploy.errors import UnsupportedError

ZOO = "spikingjelly.activation_based.model."
LIF = "spikingjelly.activation_based.neuron:LIFNode"
PLIF = "spikingjelly.activation_based.neuron:ParametricLIFNode"
SMALL_QKF = {"embed_dims": 32, "num_heads": (1, 2, 2), "depths": (1, 1, 1), "num_classes": 5, "T": 3}

#: Name -> factory, its arguments, options of tracing, and the input layout that is found.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qkformer token": ("qkformer:QKFormer", SMALL_QKF, {"image_size": 32}),
    "qkformer channel": ("qkformer:QKFormer", {**SMALL_QKF, "qka_type": "channel"}, {"image_size": 32}),
    "spikformer": (
        "spikformer:Spikformer",
        {"img_size_h": 32, "img_size_w": 32, "T": 2, "embed_dims": 32, "num_heads": 2, "depths": 1, "num_classes": 5},
        {"image_size": 32},
    ),
    "spike-driven transformer": (
        "spike_driven_transformer:SpikeDrivenTransformer",
        {"T": 2, "embed_dims": 32, "num_heads": 2, "depths": 2, "num_classes": 5},
        {"image_size": 32},
    ),
    "maxformer": (
        "maxformer:MaxFormer",
        {"T": 2, "embed_dims": 64, "depths": (1, 1, 1), "num_classes": 5},
        {"image_size": 32},
    ),
    "maxformer cifar": (
        "maxformer:MaxFormer",
        {"T": 2, "embed_dims": 32, "depths": (1, 1, 1), "num_classes": 5, "cifar": True},
        {"image_size": 16},
    ),
    "ms-resnet": (
        "ms_resnet:MSResNet",
        {"T": 2, "base_channels": 8, "layers": (1, 1, 1), "num_classes": 5},
        {"image_size": 32},
    ),
    "max-resnet": (
        "ms_resnet:MaxResNet",
        {"T": 2, "base_channels": 8, "layers": (1, 1, 1), "num_classes": 5},
        {"image_size": 16},
    ),
}

SPIKING = {"spiking_neuron": LIF, "num_classes": 5}
#: The residual networks with one block per stage.
SEW = {**SPIKING, "block": f"{ZOO}sew_resnet:BasicBlock", "layers": (1, 1, 1, 1)}
RESNET = {**SPIKING, "block": f"{ZOO}spiking_resnet:BasicBlock", "layers": (1, 1, 1, 1)}
STEP_MODES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sew-resnet add": ("sew_resnet:SEWResNet", {**SEW, "cnf": "ADD"}, {"image_size": 16}),
    "sew-resnet and": ("sew_resnet:SEWResNet", {**SEW, "cnf": "AND"}, {"image_size": 16}),
    "sew-resnet iand": ("sew_resnet:SEWResNet", {**SEW, "cnf": "IAND"}, {"image_size": 16}),
    "spiking resnet": ("spiking_resnet:SpikingResNet", RESNET, {"image_size": 16}),
    "plif net": ("parametric_lif_net:CIFAR10Net", {"channels": 8, "spiking_neuron": PLIF}, {"image_size": 32}),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_models_that_repeat_the_image_themselves(name: str) -> None:
    factory, arguments, options = TRANSFORMERS[name]
    net = traced(call_factory(ZOO + factory, arguments, {})[0], **options)
    assert (net.source.layout, net.source.time_steps) == ("image", arguments["T"])
    assert_sound(net)


@pytest.mark.parametrize("name", STEP_MODES)
def test_models_in_multi_step_mode(name: str) -> None:
    factory, arguments, options = STEP_MODES[name]
    net = traced(multi_step(call_factory(ZOO + factory, arguments, {})[0]), time_steps=2, **options)
    assert net.source.layout == "sequence"
    assert_sound(net)


def test_models_in_single_step_mode_take_one_step_per_call() -> None:
    factory, arguments, options = STEP_MODES["sew-resnet add"]
    net = traced(call_factory(ZOO + factory, arguments, {})[0], time_steps=2, **options)
    assert net.source.layout == "step"
    assert_sound(net)


def test_verify_takes_a_module_that_is_called_once_per_step() -> None:
    factory, arguments, options = STEP_MODES["sew-resnet iand"]
    net = traced(call_factory(ZOO + factory, arguments, {})[0], time_steps=2, **options)
    torch_float, float_integer = qd.verify(qd.quantize(net.graph, 24), net.images, net.source.model, **options)
    assert (torch_float.differ_free, float_integer.differ_free) == (0, 0)


def test_verify_sees_what_a_neuron_gave_not_what_was_added_to_it() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), LIFNode(step_mode="m"), LIFNode(step_mode="m")
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(5 * self.conv(x)[None].repeat(2, 1, 1, 1, 1))
            y = self.b(2 * x)
            y += x
            return self.head(y.mean((0, 3, 4)))

    torch.manual_seed(0)
    net = traced(InPlace(), image_size=6)
    found = assert_faithful(net)
    assert all(layer.spikes <= layer.outputs for layer in found.layers)


def test_spiking_vgg() -> None:
    """Its classifier reads 512 maps of 7x7; here the maps are smaller, which changes no operator."""
    model = call_factory(ZOO + "spiking_vgg:spiking_vgg11_bn", SPIKING, {})[0]
    model.avgpool.output_size = (1, 1)
    step = model.classifier[0]
    model.classifier[0] = type(step)(512, 64)
    model.classifier[3], model.classifier[6] = type(step)(64, 64), type(step)(64, 5)
    net = traced(multi_step(model), time_steps=2, image_size=32)
    assert_sound(net)


def test_spikingjelly_has_no_batch_carry_over() -> None:
    factory, arguments, options = TRANSFORMERS["qkformer token"]
    net = traced(call_factory(ZOO + factory, arguments, {})[0], **options)
    assert not any(getattr(n.op, "time_merged_with_batch", False) for n in net.graph)


def test_neurons_without_an_exact_form_are_refused_all_at_once() -> None:
    model = call_factory(ZOO + "spiking_vggws_ottt:ottt_spiking_vgg11", {"num_classes": 5}, {})[0]
    with pytest.raises(UnsupportedError, match="OTTTLIFNode") as caught:
        traced(model, image_size=32, time_steps=2)
    assert caught.value.message.count("OTTTLIFNode") == 10


def test_attention_over_time_is_refused_by_name() -> None:
    model = call_factory(ZOO + "masnn:att_ms_resnet18", {"num_classes": 5, "T": 2}, {})[0]
    with pytest.raises(UnsupportedError, match=r"attention\.ca\.avg_pool: 3-d pooling over depth or time"):
        traced(model, image_size=64)
