"""Neurons, shortcuts, attention forms and connections, one small network each; and what is refused by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, assert_sound, traced
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.converters.torch.trace import NeuronModule, register_neuron
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.evaluation.agreement import compare_chain, graph_oracle
from qkf_deploy.ops import Neuron, Shift
from qkf_deploy.passes.audit import audit

C, HEADS, STEPS = 8, 2, 3


def lif(**kwargs: object) -> nn.Module:
    return neuron.LIFNode(step_mode="m", **kwargs)  # type: ignore[arg-type]


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Module:
    return layer.SeqToANNContainer(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Net(nn.Module):
    """Stem, a middle part under test, mean over positions and time, classifier."""

    def __init__(self, middle: nn.Module, spiking_stem: bool = True) -> None:
        super().__init__()
        self.T = STEPS
        self.stem = nn.Sequential(conv(3, C), lif()) if spiking_stem else conv(3, C)
        self.middle = middle
        self.head = nn.Linear(C, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.stem(x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)))
        return self.head(x.flatten(3).mean(3).mean(0))


class Fn(nn.Module):
    """A middle part written as a function of its modules."""

    def __init__(self, run: Callable[[Fn, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


# -- neurons ---------------------------------------------------------------------------------------------------------

NEURONS = {
    "if hard": lambda: neuron.IFNode(step_mode="m"),
    "if soft": lambda: neuron.IFNode(step_mode="m", v_reset=None),
    "lif decaying input": lambda: lif(),
    "lif": lambda: lif(decay_input=False),
    "lif soft": lambda: lif(v_reset=None),
    "lif reset below zero": lambda: lif(v_reset=-0.25),
    "lif low threshold": lambda: lif(v_threshold=0.375),
    "lif tau 4": lambda: lif(tau=4.0),
    "lif tau 4/3": lambda: lif(tau=4.0 / 3.0, decay_input=False),
    "lif tau 3": lambda: lif(tau=3.0),
    "lif tau 1.7 soft": lambda: lif(tau=1.7, v_reset=None, decay_input=False),
    "plif": lambda: neuron.ParametricLIFNode(init_tau=2.5, step_mode="m"),
    "plif input kept": lambda: neuron.ParametricLIFNode(init_tau=2.0, decay_input=False, step_mode="m"),
}


@pytest.mark.parametrize("name", NEURONS)
def test_neurons(name: str) -> None:
    middle = Fn(lambda m, x: m.b(m.conv(m.a(m.conv0(x)))), conv0=conv(C, C), a=NEURONS[name](), conv=conv(C, C),
                b=NEURONS[name]())  # fmt: skip
    net = traced(Net(middle), image_size=8)
    assert_sound(net)
    dyadic = name not in ("lif tau 3", "lif tau 1.7 soft", "plif")
    integer = qd.quantize(net.graph, 16 if not dyadic else 24, decay_bits=20)
    assert any("became" in text for text in integer.notices) is not dyadic
    (found,) = compare_chain(graph_oracle(net.graph), (integer,), net.images)
    assert found.differ_free <= found.outputs * (0 if dyadic and "soft" not in name and "below" not in name else 1e-4)


def test_a_registered_neuron_class() -> None:
    class Doubled(nn.Module):
        """Fires at 2 with its own dynamics."""

        v_threshold = 2.0

        def __init__(self) -> None:
            super().__init__()
            self.v: Tensor | float = 0.0

        def reset(self) -> None:
            self.v = 0.0

        def forward(self, x: Tensor) -> Tensor:
            out = []
            for step in x:
                self.v = self.v + (step - self.v) / 4.0
                spike = (self.v >= 2.0).to(step)
                self.v = self.v * (1 - spike)
                out.append(spike)
            return torch.stack(out)

    register_neuron(
        f"{Doubled.__module__}.{Doubled.__qualname__}", lambda m: NeuronModule(Neuron(4.0, 2.0, 0.0), multi_step=True)
    )
    middle = Fn(lambda m, x: m.lif(m.conv(x)), conv=conv(C, C), lif=Doubled())
    middle.conv[1].weight.data *= 4  # type: ignore[index]
    assert_sound(traced(Net(middle), image_size=8))


# -- shortcuts and connections ---------------------------------------------------------------------------------------


def _membrane(m: Fn, x: Tensor) -> Tensor:
    x = x + m.c1(m.l1(x))
    x = x + m.c2(m.l2(x))
    return m.l3(x)


def _membrane_down(m: Fn, x: Tensor) -> Tensor:
    """MS-ResNet: the shortcut is a strided convolution of the drive itself."""
    return m.l2(m.c1(m.l1(x)) + m.down(x))


def _membrane_pooled(m: Fn, x: Tensor) -> Tensor:
    """Max-ResNet: drives are pooled before they meet."""
    return m.l2(m.pool(m.c1(m.l1(x))) + m.pool(m.down(x)))


def _spikes_on_drive(m: Fn, x: Tensor) -> Tensor:
    return m.l1(m.c1(x) + x)


def _scaled_spikes_on_drive(m: Fn, x: Tensor) -> Tensor:
    return m.l1(m.c1(x) + 0.3 * x)


def _count_on_drive(m: Fn, x: Tensor) -> Tensor:
    return m.l2(m.c2(x) + (x + m.l1(m.c1(x))))


MS = {"c1": (C, C), "c2": (C, C)}
SHORTCUTS: dict[str, tuple[Callable[[Fn, Tensor], Tensor], bool]] = {
    "membrane shortcut": (_membrane, False),
    "strided convolution of a drive": (_membrane_down, False),
    "pooled drives": (_membrane_pooled, False),
    "spikes added to a drive": (_spikes_on_drive, True),
    "scaled spikes added to a drive": (_scaled_spikes_on_drive, True),
    "counts added to a drive": (_count_on_drive, True),
}


@pytest.mark.parametrize("name", SHORTCUTS)
def test_shortcuts(name: str) -> None:
    run, spiking_stem = SHORTCUTS[name]
    stride = 2 if name == "strided convolution of a drive" else 1
    middle = Fn(run, c1=conv(C, C, stride=stride), c2=conv(C, C), l1=lif(), l2=lif(), l3=lif(),
                down=conv(C, C, 1, stride), pool=layer.MaxPool2d(3, 2, 1, step_mode="m"))  # fmt: skip
    for unused in {"c1", "c2", "l1", "l2", "l3", "down", "pool"} - set(run.__code__.co_names):
        delattr(middle, unused)
    net = traced(Net(middle, spiking_stem), image_size=8)
    assert_sound(net)
    integer = qd.quantize(net.graph, 24)
    (found,) = compare_chain(graph_oracle(net.graph), (integer,), net.images)
    # Behind a synapse on drives or pixels the sum is rounded to the shortcut's unit: close, not lossless.
    assert found.differ_free <= (0 if spiking_stem else 1e-3 * found.outputs)
    eight = qd.quantize(net.graph, 8)
    (found8,) = compare_chain(graph_oracle(net.graph), (eight,), net.images)
    assert found8.differ_forced < 0.02 * found8.outputs
    reference, onnx = (qd.simulate(eight, net.images, engine=engine) for engine in ("reference", "onnx"))
    assert np.array_equal(reference.raw_output, onnx.raw_output)
    shifted = [n.name for n in integer if isinstance(n.op, Shift)]
    assert shifted or spiking_stem  # behind a spiking stem only where one branch's weights are smaller than the other's
    assert any("identity synapse" in text for text in integer.notices) == spiking_stem


@pytest.mark.parametrize("seed", range(3))
def test_scales_are_unified_per_channel_through_views_and_pools(seed: int) -> None:
    """Random chains of drives that meet again after reshapes, pools and masks; 24 bits lose next to no spike."""
    rng = np.random.default_rng(seed)

    def run(m: Fn, x: Tensor) -> Tensor:
        gate = m.gate(m.cg(m.l0(x)))
        a, b = m.ca(m.la(x)), m.cb(m.lb(x))
        shape = a.shape
        a = (a.flatten(3).transpose(2, 3).transpose(2, 3)).reshape(shape)
        total = x + a + gate * b
        return m.out(m.pool(total) + m.pool(b)) if seed % 2 else m.out(total + b)

    middle = Fn(run, cg=conv(C, C), ca=conv(C, C), cb=conv(C, C, 1), l0=lif(), la=lif(), lb=lif(), gate=lif(),
                out=lif(), pool=layer.MaxPool2d(2, step_mode="m"))  # fmt: skip
    if not seed % 2:
        del middle.pool
    with torch.no_grad():
        for name in ("ca", "cb", "cg"):  # channels whose weights differ by orders of magnitude
            spread = torch.tensor(10.0 ** rng.uniform(-2, 2, C), dtype=torch.float32)
            getattr(middle, name)[0].weight.mul_(spread.reshape(-1, 1, 1, 1))
    net = traced(Net(middle, spiking_stem=False), seed, image_size=8)
    assert_sound(net)
    (found,) = compare_chain(graph_oracle(net.graph), (qd.quantize(net.graph, 24),), net.images)
    assert found.differ_free <= 1e-3 * found.outputs


def test_the_audit_names_drives_that_reach_a_synapse() -> None:
    middle = Fn(_membrane_down, c1=conv(C, C, stride=2), l1=lif(), l2=lif(), down=conv(C, C, 1, 2))
    net = traced(Net(middle, spiking_stem=False), image_size=8)
    warnings = {f.node: f.text for f in audit(net.graph) if f.severity == "warning"}
    assert list(warnings) == ["middle.down.0"]
    assert "passed no neuron" in warnings["middle.down.0"]


CONNECTIONS = {
    "add": lambda x, y: x + y,
    "and": lambda x, y: x * y,
    "iand": lambda x, y: x * (1.0 - y),
    "iand turned": lambda x, y: (1 - y) * x,
    "or": lambda x, y: x + y * (1 - x),
}


@pytest.mark.parametrize("name", CONNECTIONS)
def test_spike_element_wise_connections(name: str) -> None:
    middle = Fn(lambda m, x: m.out(m.last(CONNECTIONS[name](m.lif(m.conv(x)), x))), conv=conv(C, C), lif=lif(),
                last=conv(C, C), out=lif())  # fmt: skip
    assert_sound(traced(Net(middle), image_size=8))


def test_a_learned_scale_per_channel() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.linspace(0.5, 1.5, C).reshape(C, 1, 1))
            self.beta = nn.Parameter(torch.linspace(-0.2, 0.2, C).reshape(C, 1, 1))
            self.logit = nn.Parameter(torch.tensor(0.3))
            self.conv, self.lif = conv(C, C), lif()

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(self.conv(x) * self.gamma * torch.sigmoid(self.logit) + self.beta + 0.05 - 0.1)

    net = traced(Net(Scaled()), image_size=8)
    assert_sound(net)


# -- attention -------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """q, k, v as spikes by head, ``(T, B, heads, d, N)``, combined by ``mix``, then a neuron and a projection."""

    def __init__(self, mix: Callable[[Tensor, Tensor, Tensor], Tensor], threshold: float = 0.5) -> None:
        super().__init__()
        self.mix = mix
        self.qkv, self.qkv_lif = layer.SeqToANNContainer(nn.Conv1d(C, 3 * C, 1), nn.BatchNorm1d(3 * C)), lif()
        self.attn_lif = lif(v_threshold=threshold)
        self.proj, self.proj_lif = layer.SeqToANNContainer(nn.Conv1d(C, C, 1), nn.BatchNorm1d(C)), lif()

    def forward(self, x: Tensor) -> Tensor:
        steps, batch, channels, height, width = x.shape
        split = (steps, batch, HEADS, channels // HEADS, height * width)
        q, k, v = (z.reshape(split) for z in self.qkv_lif(self.qkv(x.flatten(3))).chunk(3, dim=2))
        mixed = self.attn_lif(self.mix(q, k, v)).reshape(steps, batch, channels, -1)
        return x + self.proj_lif(self.proj(mixed)).reshape(x.shape)


ATTENTIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "(q kT) v": lambda q, k, v: ((q.mT @ k) @ v.mT * 0.125).mT,
    "q (kT v)": lambda q, k, v: (q.mT @ (k @ v.mT) * 0.125).mT,
    "scale 0.17": lambda q, k, v: (q.mT @ (k @ v.mT) * 0.17).mT,
    "scale divided": lambda q, k, v: (q.mT @ (k @ v.mT)).mT / 8,
    "no scale": lambda q, k, v: (q.mT @ (k @ v.mT)).mT,
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_forms(name: str) -> None:
    net = traced(Net(Attention(ATTENTIONS[name])), image_size=8)
    assert_sound(net)
    (found,) = compare_chain(graph_oracle(net.graph), (qd.quantize(net.graph, 24),), net.images)
    assert found.differ_free == 0


def test_sdsa_as_published_gates_with_a_neuron() -> None:
    """Spike-driven self-attention: the neuron sees the column sum of k * v, and its spikes mask q."""

    class Sdsa(Attention):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv_lif(self.qkv(x.flatten(3))).chunk(3, dim=2)
            gate = self.attn_lif((k * v).sum(-1, keepdim=True))
            return x + self.proj_lif(self.proj(q * gate)).reshape(x.shape)

    net = traced(Net(Sdsa(lambda q, k, v: q)), image_size=8)
    assert_sound(net)
    assert sum(n.op.kind == "mask" for n in net.graph) == 2


# -- refused by name -------------------------------------------------------------------------------------------------


#: A number for each pair of the 64 tokens.
PAIRS = torch.from_numpy(np.random.default_rng(0).normal(0.0, 0.2, (64, 64))).float()


def test_a_bias_per_pair_of_tokens_is_a_linear_layer_beside_the_attention() -> None:
    """(Q Kᵀ + B) V, refused as such, is Q (Kᵀ V) + B V: the product of a constant matrix and spikes is a layer."""

    class Biased(Attention):
        def __init__(self) -> None:
            super().__init__(self.biased)
            self.register_buffer("pairs", PAIRS)

        def biased(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return (q.mT @ (k @ v.mT)).mT + (self.pairs @ v.mT).mT  # type: ignore[operator]

    net = traced(Net(Biased()), image_size=8)
    assert_faithful(net)
    assert_exact(net.graph, net.images)


def _over_space_and_time(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """STSA: tokens of all time steps attend to each other."""
    q, k, v = (z.permute(1, 2, 3, 0, 4).flatten(3) for z in (q, k, v))
    mixed = (q.mT @ (k @ v.mT)).mT
    return mixed.unflatten(3, (STEPS, -1)).permute(3, 0, 1, 2, 4)


REFUSED: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], str]] = {
    "bipolar": (lambda q, k, v: torch.sign(q - k) * v, "sign has no spiking or integer form|subtracts"),
    "softmax": (lambda q, k, v: ((q.mT @ k).softmax(-1) @ v.mT).mT, "softmax has no spiking or integer form"),
    "softmax of masked spikes with a learned position bias": (  # Masked Spiking Transformer
        lambda q, k, v: (((q.mT @ k) * 0.25 + PAIRS).softmax(-1) @ v.mT).mT,
        "softmax has no spiking or integer form",
    ),
    "bias per pair": (lambda q, k, v: ((q.mT @ k + PAIRS) @ v.mT).mT, "differs from element to element"),
    "drives times drives": (lambda q, k, v: (q - 0.5) * (k - 0.5), "multiplies drive and drive values"),
}

#: Products of sums of spikes are a gate for each of the spikes; what a larger gate reads stands side by side.
COUNTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "counts times counts": lambda q, k, v: (q + k) * (k + v),
    "three spikes": lambda q, k, v: (q + k + v) * (k + v),
    "counts gated by more spikes": lambda q, k, v: q * (k * v).sum(-1, keepdim=True),
    "counts gated by more counts": lambda q, k, v: (k * v).sum((-2, -1), keepdim=True) * (q + k),
}


@pytest.mark.parametrize("name", COUNTS)
def test_products_of_counts(name: str) -> None:
    net = traced(Net(Attention(COUNTS[name])), image_size=8)
    assert_faithful(net)
    integer = assert_exact(net.graph, net.images)
    masks = [layer for layer in qd.simulate(integer, net.images, engine="reference").ledger if layer.op == "mask"]
    assert len(masks) == {"counts times counts": 2, "three spikes": 3}.get(name, 2 + ("more counts" in name))
    assert all(layer.total("gate_ands") > 0 for layer in masks)


def test_attention_over_space_and_time_has_a_form() -> None:
    assert_faithful(traced(Net(Attention(_over_space_and_time)), image_size=8))


@pytest.mark.parametrize("name", REFUSED)
def test_attention_without_a_form_is_refused_by_name(name: str) -> None:
    mix, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message) as caught:
        traced(Net(Attention(mix)), image_size=8)
    assert "middle" in caught.value.message
    assert "test_forms.py:" in caught.value.message
    assert caught.value.hint


def test_a_position_embedding_of_drives_is_refused() -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.where = nn.Parameter(torch.randn(C, 8, 8))
            self.conv, self.lif = conv(C, C), lif()

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(self.conv(x) + self.where)

    with pytest.raises(UnsupportedError, match="adds a constant that differs from element to element"):
        traced(Net(Embedded()), image_size=8)


def test_every_combination_of_reset_and_input() -> None:
    """All four dynamics of a LIF neuron through the same network differ, and each equals torch."""
    logits = []
    for decay, reset in itertools.product((True, False), (0.0, None)):
        middle = Fn(lambda m, x: m.lif(m.conv(x)), conv=conv(C, C), lif=lif(decay_input=decay, v_reset=reset))
        net = traced(Net(middle), image_size=8)
        assert_faithful(net)
        assert_exact(net.graph, net.images)
        logits.append(qd.simulate(net.graph, net.images, engine="reference").logits)
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(logits, 2))
