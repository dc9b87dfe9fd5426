"""`finetune`: what is trained in integers is what every integer engine computes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from netbuild import Net
from safetensors import safe_open

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.datasets.digits import load_digits
from qkf_deploy.errors import InputError, QkfError, UnsupportedError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.models import QKFormer, build_config
from qkf_deploy.options import QuantizeOptions
from qkf_deploy.simulators.run import is_neuron
from qkf_deploy.training.quantized import QuantizedNetwork
from qkf_deploy.training.recipe import Recipe

SIZES = {"image_size": 8, "time_steps": 2, "num_classes": 3, "embed_dim": 16, "heads": 2}
SMALL = {"epochs": 1, "batch_size": 12, "threads": 1, "learning_rate": 1e-2}


def network(seed: int = 0, **changes: object) -> QKFormer:
    """With random weights and random batch statistics, so that no channel is like another."""
    torch.manual_seed(seed)
    model = QKFormer(build_config("qkformer-digits", **{**SIZES, **changes})).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.3, 1.5), (module.weight, 0.5, 2.0),
                (module.bias, -0.3, 0.8),
            ):  # fmt: skip
                torch.nn.init.uniform_(tensor, low, high)
    return model


def images(count: int, channels: int = 1, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, 8, 8)).astype(np.uint8)


def shake(quantized: QuantizedNetwork, steps: int = 3) -> None:
    """A few steps of training towards random labels, large ones."""
    optimizer = torch.optim.Adam(quantized.parameters(), lr=0.05)
    pixels = torch.from_numpy(images(6, quantized.whole.input.type.shape[0], 7)).float()
    for step in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(quantized(pixels), (torch.arange(6) + step) % 3).backward()
        optimizer.step()


def spikes_forward(quantized: QuantizedNetwork, pixels: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Spikes of every neuron in the forward pass of training, and the logits."""
    found: dict[str, np.ndarray] = {}
    step = quantized._step

    def recording(node: object, operands: list[torch.Tensor]) -> torch.Tensor:
        value = step(node, operands)  # type: ignore[arg-type]
        if is_neuron(node.op.kind):  # type: ignore[attr-defined]
            found[node.name] = value.numpy()  # type: ignore[attr-defined]
        return value

    quantized._step = recording  # type: ignore[method-assign]
    with torch.no_grad():
        logits = quantized(torch.from_numpy(pixels).float()).numpy()
    del quantized._step
    return found, logits


def differing(quantized: QuantizedNetwork, integers: Graph, pixels: np.ndarray, engine: str) -> int:
    """Spikes, and logits beyond float32's rounding, that differ between the forward pass and an engine."""
    forward, logits = spikes_forward(quantized, pixels)
    run = qd.simulate(integers, pixels, engine=engine, record=list(forward))
    assert len(forward) == sum(is_neuron(n.op.kind) for n in integers)
    wrong = sum(int((run.spikes[name] != spikes).sum()) for name, spikes in forward.items())
    return wrong + int((run.logits.astype(np.float32) != logits).sum())


@pytest.mark.parametrize(
    ("bits", "changes"),
    [
        (2, {}), (3, {"attention": "qkca", "neuron": "if"}), (4, {"in_channels": 3, "shortcut": "pa"}),
        (6, {"neuron": "plif"}), (8, {}), (16, {"speds": False}),
    ],
)  # fmt: skip
def test_the_forward_pass_is_the_integer_network(bits: int, changes: dict[str, object]) -> None:
    channels = int(changes.get("in_channels", 1))  # type: ignore[call-overload]
    graph = qd.trace(network(**changes), mean=(0.3, 0.4, 0.5)[:channels], std=(0.37, 0.3, 0.2)[:channels])
    layers = {"stage2.0.mlp.mlp1_conv": 5}
    quantized = QuantizedNetwork(graph, QuantizeOptions(bits, layer_bits=layers))
    start = qd.quantize(quantized.graph(), bits=bits, layer_bits=layers)
    shake(quantized)
    integers = qd.quantize(quantized.graph(), bits=bits, layer_bits=layers)
    pixels = images(24, channels)
    assert differing(quantized, integers, pixels, "reference") == 0
    assert differing(quantized, integers, pixels, "event") == 0
    assert differing(quantized, start, pixels, "event") > 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes, and a checkpoint that was trained on them for a moment with carried membranes."""
    folder = tmp_path_factory.mktemp("finetune")
    labels = np.arange(36) % 3
    pixels = np.random.default_rng(0).integers(0, 80, (36, 1, 8, 8)) + 60 * labels[:, None, None, None]
    np.savez(folder / "train.npz", images=pixels.astype(np.uint8), labels=labels)
    sizes = {"classes": 3, "image_size": 8, "time_steps": 2}
    recipe = Recipe(epochs=1, batch_size=12, threads=1, carry="official")
    qd.train("qkformer-digits", folder / "train.npz", folder / "w.safetensors", recipe=recipe, **sizes)
    return folder


def test_the_checkpoint_is_the_network_that_was_trained(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = place / "train.npz", tmp_path / "w4.safetensors"
    given = ["finetune", str(place / "w.safetensors"), "--data", str(data), "--held-out", str(data), "-o", str(out)]
    small = ["--epochs", "2", "--batch-size", "12", "--threads", "1", "--start", "8", "--learning-rate", "1e-2"]
    assert command([*given, *small, "--bits", "3", "--layer-bits", "head=5", "--carry", "own"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}: 2 epochs, loss ")
    assert printed.err.count("epoch ") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["w4.safetensors"]
    with safe_open(out, "np") as file:
        metadata = file.metadata()
    assert metadata["quantized"] == "--bits 3 --layer-bits head=5"
    traced = qd.trace(out)
    integers = qd.quantize(traced, bits=3, layer_bits={"head": 5})
    assert any("keep it" in notice for notice in integers.notices)
    run = qd.simulate(integers, np.load(data)["images"])
    assert 100 * run.accuracy(np.load(data)["labels"]) == pytest.approx(
        float(metadata["held_out_accuracy_percent"]), abs=1e-3
    )
    # Its grid is kept at any other width that holds it, and never cut off.
    wider = qd.quantize(traced, bits=8)
    for node in integers:
        for name in ("weight", "bias", "theta"):
            if name in node.params:
                assert np.array_equal(node.params[name], wider[node.name].params[name]), (node.name, name)
    with pytest.raises(UsageError, match="integers of 3 bits"):
        qd.quantize(traced, bits=2)
    assert np.array_equal(qd.quantize(traced, bits=3, scales="max", layer_bits={"head": 5})["head"].params["weight"],
                          integers["head"].params["weight"])  # fmt: skip


def test_stopped_it_goes_on(place: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(line: dict[str, object]) -> None:
        raise Stop

    recipe = {**SMALL, "epochs": 2}
    given = {"bits": 2, "start": 4, "recipe": recipe}
    qd.finetune(place / "w.safetensors", place / "train.npz", tmp_path / "whole.safetensors", **given)
    with pytest.raises(Stop):
        qd.finetune(place / "w.safetensors", place / "train.npz", tmp_path / "w.safetensors", report=stop, **given)
    with pytest.raises(InputError, match="another"):
        qd.finetune(place / "w.safetensors", place / "train.npz", tmp_path / "w.safetensors", **{**given, "bits": 3})
    qd.finetune(place / "w.safetensors", place / "train.npz", tmp_path / "w.safetensors", **given)
    assert (tmp_path / "w.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_module_of_ones_own(place: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(_OWN)
    source, out = f"{tmp_path / 'own.py'}:small", tmp_path / "w.safetensors"
    sizes = {"image_size": 8, "in_channels": 1, "mean": (0.4,), "std": (0.3,), "time_steps": 3}
    qd.finetune(source, place / "train.npz", out, bits=4, start=0, recipe=SMALL, **sizes)
    integers = qd.quantize(qd.trace(source, checkpoint=out, **sizes), bits=4)
    assert {int(abs(n.params["weight"]).max()) for n in integers if "weight" in n.params} <= {
        *range(8),
        *range(100, 128),
    }


_OWN = """
import torch
from spikingjelly.activation_based import layer, neuron

class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 6, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(6)
        self.lif = neuron.LIFNode(tau=2.0, step_mode="m", detach_reset=True)
        self.second = torch.nn.Conv2d(6, 4, 3, stride=2, bias=False)
        self.norm2 = torch.nn.BatchNorm2d(4)
        self.soft = neuron.IFNode(v_reset=None, step_mode="m")
        self.head = torch.nn.Linear(36, 3)

    def forward(self, x):
        x = x.unsqueeze(0).repeat(3, 1, 1, 1, 1)
        t, b = x.shape[:2]
        x = self.lif(self.norm(self.first(x.flatten(0, 1))).reshape(t, b, 6, 8, 8))
        x = self.soft(self.norm2(self.second(x.flatten(0, 1))).reshape(t, b, 4, 3, 3))
        return self.head(x.flatten(2)).mean(0)

def small():
    torch.manual_seed(0)
    return Small().eval()
"""


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"recipe": {"precision": "bfloat16"}}, UsageError),
        ({"recipe": {"drop_path": 0.1}}, UsageError),
        ({"recipe": {"nothing": 1}}, UsageError),
        ({"bits": 9}, UsageError),
        ({"layer_bits": {"nowhere": 4}}, QkfError),
        ({"time_steps": 0}, UsageError),
    ],
)
def test_what_cannot_be(options: dict[str, object], error: type[Exception], place: Path, tmp_path: Path) -> None:
    with pytest.raises(error):
        qd.finetune(place / "w.safetensors", place / "train.npz", tmp_path / "w.safetensors", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_neurons_that_cannot_be_trained() -> None:
    net = Net(0, (1, 8, 8))
    net.conv("conv", "input", 3)
    net.lif("several", "conv", tau=None, v_reset=None, max_spikes=3)
    net.head("several")
    with pytest.raises(UnsupportedError, match="cannot be trained in integers: several"):
        QuantizedNetwork(net.build(), QuantizeOptions(4))


EXAMPLES = Path(__file__).parents[2] / "examples"
CHECKPOINT = Path(qd.__file__).parent / "models" / "qkformer_digits.safetensors"


@pytest.mark.parametrize(
    ("checkpoint", "bits"), [(EXAMPLES / "animals" / "qkformer_animals16.safetensors", 2), (CHECKPOINT, 4)]
)
def test_a_trained_network_on_its_own_images(checkpoint: Path, bits: int) -> None:
    """Not one spike of the forward pass differs; `QKF_EXACT=2000` takes so many images, here 16."""
    count = int(os.environ.get("QKF_EXACT", "16"))
    with np.load(EXAMPLES / "animals" / "test.npz") as file:
        pixels, labels = file["images"][:: max(1, 2000 // count)], file["labels"][:: max(1, 2000 // count)]
    if checkpoint == CHECKPOINT:
        digits = load_digits()
        pixels, labels = digits.test_images[:count], digits.test_labels[:count]
    graph = qd.trace(checkpoint)
    quantized = QuantizedNetwork(graph, QuantizeOptions(bits))
    optimizer = torch.optim.Adam(quantized.parameters(), lr=3e-3)
    loss = torch.nn.functional.cross_entropy(
        quantized(torch.from_numpy(pixels[:8]).float()), torch.from_numpy(labels[:8])
    )
    loss.backward()
    optimizer.step()
    integers = qd.quantize(quantized.graph(), bits=bits)
    outputs = 0
    for start in range(0, len(pixels), 100):
        assert differing(quantized, integers, pixels[start : start + 100], "event") == 0
        outputs += len(pixels[start : start + 100])
    assert outputs == len(pixels) >= min(count, 16)
