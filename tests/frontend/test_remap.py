"""Official ImageNet QKFormer and SpikingJelly's own: one network, two layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from frontend_networks import traced
from safetensors.torch import save_file
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.model.qkformer import QKFormer as TheirQKFormer

import qkf_deploy as qd
from qkf_deploy.converters.torch.remap import to_official, to_spikingjelly
from qkf_deploy.errors import CheckpointError
from qkf_deploy.models import QKFormer, build_config

CONFIG = build_config(
    "qkformer-10-384", image_size=32, embed_dim=32, depths=(1, 2, 2), heads=(2, 2, 2), num_classes=5, time_steps=3
)
THEIRS = {"T": 3, "num_classes": 5, "embed_dims": 32, "num_heads": (2, 2, 2), "depths": (1, 2, 2)}
FACTORY = "spikingjelly.activation_based.model.qkformer:QKFormer"


def spikes_and_logits(model: torch.nn.Module, images: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Total spikes and logits, one image at a time."""
    count = 0

    def add(_module: object, _inputs: object, out: torch.Tensor) -> None:
        nonlocal count
        count += int(out.sum())

    hooks = [m.register_forward_hook(add) for m in model.modules() if hasattr(m, "v_threshold")]
    logits = []
    with torch.no_grad():
        for image in images:
            functional.reset_net(model)
            logits.append(model(image[None]))
    for hook in hooks:
        hook.remove()
    return count, torch.cat(logits)


@pytest.fixture(scope="module")
def ours() -> QKFormer:
    """An official-layout network that fires, with projection biases that are not zero."""
    net = traced(QKFormer(CONFIG))
    model = net.source.model
    assert isinstance(model, QKFormer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("conv.bias"):
                parameter.uniform_(-0.2, 0.2)
    return model.double().eval()


def test_official_to_spikingjelly_and_back(ours: QKFormer) -> None:
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    theirs = TheirQKFormer(**THEIRS).double().eval()
    theirs.load_state_dict(to_spikingjelly(ours.state_dict()), strict=True)
    expected_spikes, expected = spikes_and_logits(ours, images)
    spikes, logits = spikes_and_logits(theirs, images)
    assert expected_spikes > 1000
    assert spikes == expected_spikes
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    back = QKFormer(CONFIG).double().eval()
    back.load_state_dict(to_official(theirs.state_dict()), strict=True)
    spikes, logits = spikes_and_logits(back, images)
    assert spikes == expected_spikes
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_biases_of_patch_embeddings_fold(ours: QKFormer) -> None:
    torch.manual_seed(1)
    theirs = TheirQKFormer(**THEIRS).double().eval()  # its convolutions start with random biases
    traced_model = traced(theirs.float(), image_size=32).source.model.double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected_spikes, expected = spikes_and_logits(traced_model, images)
    official = QKFormer(CONFIG).double().eval()
    official.load_state_dict(to_official(traced_model.state_dict()), strict=True)
    spikes, logits = spikes_and_logits(official, images)
    assert expected_spikes > 1000
    assert spikes == expected_spikes
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_tracing_their_factory_with_an_official_checkpoint(ours: QKFormer, tmp_path: Path) -> None:
    path = tmp_path / "official.safetensors"
    save_file({k: v.contiguous() for k, v in ours.state_dict().items()}, path)
    graph = qd.trace(FACTORY, checkpoint=path, factory_arguments=THEIRS, image_size=32)
    assert graph.provenance["remapped"] == "official to spikingjelly"
    merged = [n.name for n in qd.trace(ours) if getattr(n.op, "time_merged_with_batch", False)]
    assert merged == ["stage3.0.attn.proj_lif", "stage3.1.attn.proj_lif"]
    assert not any(getattr(n.op, "time_merged_with_batch", False) for n in graph)


def test_other_layouts_are_refused(ours: QKFormer) -> None:
    state = dict(ours.state_dict())
    with pytest.raises(CheckpointError, match="not a QKFormer of spikingjelly"):
        to_official(state)
    with pytest.raises(CheckpointError, match="not an official ImageNet"):
        to_spikingjelly(to_spikingjelly(state))
    del state["stage3.0.attn.v_bn.weight"]
    with pytest.raises(CheckpointError, match=r"stage3\.0\.attn\.v_bn\.weight is missing"):
        to_spikingjelly(state)
    state = {**ours.state_dict(), "stage1.0.tssa.extra": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"unknown keys: stage1\.0\.tssa\.extra"):
        to_spikingjelly(state)
