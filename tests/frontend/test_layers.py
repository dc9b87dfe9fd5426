"""Layers that put maps together and enlarge them: concatenation, upsampling, transposed convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from frontend_networks import assert_exact, assert_sound, traced
from spikingjelly.activation_based.encoding import PoissonEncoder
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError


class Around(nn.Module):
    """A layer between spikes and a neuron, time folded into the batch around it."""

    def __init__(self, layer: nn.Module, channels: int = 6) -> None:
        super().__init__()
        self.stem, self.bn0, self.lif0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        self.layer, self.lif = layer, LIFNode(step_mode="m")
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif0(self.bn0(self.stem(x))[None].repeat(STEPS, 1, 1, 1, 1))
        steps, images = x.shape[:2]
        x = x.flatten(0, 1)
        y = self.layer(x)
        y = self.lif(y.reshape(steps, images, *y.shape[1:]))
        return self.fc(y.mean((3, 4))).mean(0)


class Does(nn.Module):
    """A function as a module, with layers before and behind it."""

    def __init__(self, function, before: nn.Module | None = None, after: nn.Module | None = None) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.function, self.before, self.after = function, before or nn.Identity(), after or nn.Identity()

    def forward(self, *x: Tensor) -> Tensor:
        return self.after(self.function(*(self.before(v) for v in x)))


class Inception(nn.Module):
    """Branches side by side, with one norm for all."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(6, n, k, padding=k // 2) for n, k in ((3, 1), (4, 3), (1, 5)))
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.cat([branch(x) for branch in self.branches], 1))


def conv(inner: int, outer: int, kernel: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inner, outer, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outer))


def transposed(*args: int, **more: int) -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(6, 8, *args, **more), nn.BatchNorm2d(8))


def up(mode: str, factor: object = 2) -> nn.Module:
    return nn.Upsample(scale_factor=factor, mode=mode)  # type: ignore[arg-type]


def chain(*layers: tuple[nn.Module, int]) -> tuple[nn.Module, int]:
    """Layers with a neuron behind each of them, and their channels at the end; they read 6 channels."""
    parts: list[nn.Module] = []
    for layer, channels in layers:
        parts += [layer, Firing(), nn.Conv2d(channels, 6, 1), nn.BatchNorm2d(6), Firing()]
    return nn.Sequential(*parts[:-4]), layers[-1][1]


class Firing(nn.Module):
    """A neuron on a batch that holds the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lif = LIFNode(step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(x.unflatten(0, (STEPS, -1))).flatten(0, 1)


STEPS = 2
CHAINS = {
    "side by side": chain(
        (Does(lambda x: torch.cat([x[:, 2:], x[:, :2], x], 1), after=conv(12, 8)), 8),
        (Does(lambda x: torch.cat([x[:, :, 1:], x, x[:, :, :1]], 2), after=conv(6, 8)), 8),
        (Does(lambda x: torch.cat([x, 2 * x], 1), before=conv(6, 6)), 12),
        (Inception(), 8),
    ),
    "repeated": chain(
        (Does(lambda x: torch.stack([x, x], 2).flatten(1, 2), after=conv(12, 8)), 8),
        (Does(lambda x: 2 * x.repeat(1, 2, 1, 1)[:, :8]), 8),
        (Does(lambda x: x.repeat_interleave(2, dim=1), after=conv(12, 8)), 8),
        (Does(up("nearest"), after=conv(6, 8)), 8),
        (Does(up("nearest", (1, 3)), before=conv(6, 8)), 8),
    ),
    "bilinear": chain(
        (Does(up("bilinear"), after=conv(6, 8)), 8),
        (Does(up("bilinear", (1, 3)), before=conv(6, 8)), 8),
        (Does(lambda x: 3 * nn.functional.interpolate(x, scale_factor=2, mode="bilinear")), 6),
    ),
    "transposed": chain(
        (transposed(2, 2), 8),
        (transposed(4, 2, 1), 8),
        (transposed((3, 2), (3, 2), (1, 0), (1, 0), groups=2, dilation=(1, 2)), 8),
        (transposed(3, padding=1), 8),
    ),
    "dilated and padded": chain(
        (nn.Sequential(nn.Conv2d(6, 8, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(8)), 8),
        (nn.Sequential(nn.Conv2d(6, 8, 4, padding="same"), nn.BatchNorm2d(8)), 8),
        (nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), conv(6, 8)), 8),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_layers_between_neurons(name: str) -> None:
    torch.manual_seed(1)
    layers, channels = CHAINS[name]
    net = traced(Around(layers, channels), image_size=4, time_steps=STEPS)
    assert_sound(net)
    folded = [n.name for n in net.graph if n.op.kind == "conv" and "layer" in n.name]
    assert not [n for n in net.graph.notices if "batch norm" in n], folded


def test_layers_in_every_engine() -> None:
    """Concatenation, repetition and transposed convolutions: integers, counts, memory and the exported graph."""
    torch.manual_seed(1)
    layers, channels = chain(
        (Does(lambda x: torch.cat([x[:, 2:], x[:, :2], x], 1), after=conv(12, 8)), 8),
        (Does(up("nearest"), after=conv(6, 8)), 8),
        (transposed(4, 2, 1), 8),
    )
    net = traced(Around(layers, channels), image_size=4, time_steps=STEPS)
    integer = assert_exact(net.graph, net.images)
    wanted = qd.simulate(integer, net.images, engine="reference")
    for engine in ("torch", "onnx"):
        run = qd.simulate(integer, net.images, engine=engine)
        assert np.array_equal(run.raw_output, wanted.raw_output), engine
    assert qd.simulate(integer, net.images, engine="torch").ledger.to_dict() == wanted.ledger.to_dict()
    energy = qd.price(wanted.ledger, "horowitz45-int8-acc32")
    rows = {layer.name for layer in wanted.ledger}
    assert {n.name for n in integer if n.op.kind == "concat"} <= rows
    assert energy.total_energy_pj > 0
    assert qd.map_network(integer, "generic-digital", wanted.ledger).placements


@pytest.mark.parametrize("engine", ["reference", "torch"])
def test_a_norm_of_branches_is_counted_as_the_network_it_folds_to(engine: str) -> None:
    """Not folded, what stands side by side in the folded network is a norm."""
    graph = qd.trace(Around(Inception(), 8), image_size=8)
    assert any(node.op.kind == "batch_norm" for node in graph)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    given, folded = (qd.simulate(g, images, engine=engine).ledger for g in (graph, qd.fold(graph)))
    assert [r.to_dict() for r in given] == [r.to_dict() for r in folded]


class Encoding(nn.Module):
    """What is refused, with the reason."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.fc = layer, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(x).mean((2, 3)))


REFUSED = {
    "align_corners": (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), "weights of its own"),
    "factor": (nn.Upsample(scale_factor=1.5), "not by a whole factor"),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), "upsample_bicubic2d has no spiking or integer form"),
    "cut": (nn.ConvTranspose2d(8, 8, 1, padding=1), "cuts off more than its kernel adds"),
    "images": (Does(lambda x: torch.cat([x, x], 0)[:2]), "the time or batch axis"),
    "encoder": (PoissonEncoder(), "draws random numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    layer, message = REFUSED[name]
    model = nn.Sequential(nn.Conv2d(3, 8, 1), LIFNode(), Encoding(layer))
    with pytest.raises(UnsupportedError, match=message):
        qd.trace(model, image_size=4, time_steps=2, input="step")
