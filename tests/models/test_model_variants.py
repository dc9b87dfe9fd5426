"""Every option of QKFormer: shapes, neurons, and what the options mean."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import SMALL
from spikingjelly.activation_based import functional, neuron
from torch import Tensor

from qkf_deploy.errors import InputError
from qkf_deploy.models import QKFormer, QKFormerConfig, calibrate_batchnorm, randomize_norms


def images(config: QKFormerConfig, batch: int, steps: int | None = None) -> Tensor:
    shape = list(config.input_shape)
    shape[0] = batch
    if steps is not None:
        shape[1] = steps
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()


def fired(config: QKFormerConfig, batch: int = 4) -> tuple[QKFormer, Tensor]:
    model = QKFormer(config).double()
    batch_images = images(config, batch)
    randomize_norms(model)
    calibrate_batchnorm(model, batch_images)
    return model, batch_images


def run(model: QKFormer, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the output of every neuron by name."""
    outputs: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: outputs.__setitem__(name, out))
        for name, module in model.named_modules()
        if hasattr(module, "v_threshold")
    ]
    functional.reset_net(model)
    with torch.no_grad():
        logits = model(x)
    for hook in hooks:
        hook.remove()
    return logits, outputs


@pytest.mark.parametrize("steps", [1, 2, 4, 6])
def test_time_steps(small_config: QKFormerConfig, steps: int) -> None:
    model, x = fired(small_config.replace(time_steps=steps), batch=2)
    logits, spikes = run(model, x)
    assert logits.shape == (2, 5)
    assert {s.shape[0] for s in spikes.values()} == {steps}


def test_dvs_takes_time_steps_from_the_input() -> None:
    model, _ = fired(SMALL["dvs"])
    _, spikes = run(model, images(SMALL["dvs"], 2, steps=7))
    assert {s.shape[0] for s in spikes.values()} == {7}


@pytest.mark.parametrize(
    "options",
    [
        {"shortcut": "pa"},
        {"neuron": "if"},
        {"neuron": "plif"},
        {"attention": "qkca"},
        {"attention": "qkta"},
        {"attention": "ssa"},
        {"speds": False},
        {"mlp_ratio": 1.5},
        {"depths": 2},
        {"shortcut": "pa", "neuron": "plif", "attention": "qkca", "speds": False},
    ],
    ids=str,
)
def test_options(small_config: QKFormerConfig, options: dict[str, object]) -> None:
    model, x = fired(small_config.replace(**options))
    logits, spikes = run(model, x)
    assert logits.shape == (4, 5)
    assert torch.isfinite(logits).all()
    assert all(set(s.unique().tolist()) <= {0.0, 1.0} for s in spikes.values())
    assert all(s.any() for name, s in spikes.items()), [name for name, s in spikes.items() if not s.any()]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("lif", neuron.LIFNode), ("if", neuron.IFNode), ("plif", neuron.ParametricLIFNode)],
)
def test_neuron_kind(small_cifar: QKFormerConfig, kind: str, expected: type) -> None:
    model = QKFormer(small_cifar.replace(neuron=kind))
    kinds = {type(m) for m in model.modules() if hasattr(m, "v_threshold")}
    assert kinds == {expected}


def test_token_attention_gates_tokens_and_channel_attention_gates_channels(small_cifar: QKFormerConfig) -> None:
    for kind, name, gate_shape in (("qkta", "tssa", (4, 4, 2, 1, 256)), ("qkca", "cssa", (4, 4, 2, 4, 1))):
        model, x = fired(small_cifar.replace(attention=kind))
        _, spikes = run(model, x)
        q = spikes[f"stage1.0.{name}.q_lif"].reshape(4, 4, 2, 4, 256)
        gate = spikes[f"stage1.0.{name}.attn_lif"]
        assert gate.shape == gate_shape
        # On sums of spikes the neuron with threshold 0.5 and tau 2 is an OR.
        assert torch.equal(gate, q.amax(dim=3 if kind == "qkta" else 4, keepdim=True))


def test_self_attention_equals_the_paper(small_cifar: QKFormerConfig) -> None:
    model, x = fired(small_cifar)
    attention = model.get_submodule("stage3.0.ssa")
    seen: list[Tensor] = []
    attention.attn_lif.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    _, spikes = run(model, x)
    q, k, v = (spikes[f"stage3.0.ssa.{n}_lif"].reshape(4, 4, 2, 16, 16) for n in "qkv")  # (T, B, heads, d, N)
    expected = torch.einsum("tbhdn,tbhdm,tbhem->tbhen", q, k, v) * 0.125
    assert torch.equal(seen[0], expected.reshape(4, 4, 32, 16))


def test_residual_stream_holds_counts_with_aba_and_drives_with_pa(small_config: QKFormerConfig) -> None:
    for shortcut, whole in (("aba", True), ("pa", False)):
        model, x = fired(small_config.replace(shortcut=shortcut))
        seen: list[Tensor] = []
        model.get_submodule("stage2.0").register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
        run(model, x)
        assert torch.equal(seen[0], seen[0].round()) == whole


def test_pre_activation_gives_every_synapse_after_the_first_spikes(small_config: QKFormerConfig) -> None:
    model, x = fired(small_config.replace(shortcut="pa"))
    inputs: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if name.endswith("_conv"):
            module.register_forward_pre_hook(lambda _m, args, name=name: inputs.__setitem__(name, args[0]))
    run(model, x)
    real = {name for name, value in inputs.items() if not set(value.unique().tolist()) <= {0.0, 1.0}}
    assert real == {"patch_embed1.proj_conv"}


def test_without_speds_only_the_shortcut_path_is_gone(small_config: QKFormerConfig) -> None:
    with_shortcut = set(QKFormer(small_config).state_dict())
    without = set(QKFormer(small_config.replace(speds=False)).state_dict())
    assert without < with_shortcut
    assert all(".proj_res_" in name for name in with_shortcut - without)


@pytest.mark.parametrize("layout", sorted(SMALL))
def test_merging_batch_into_time_matters_from_two_images_on(layout: str) -> None:
    config = SMALL[layout].replace(depths=2)
    own, x = fired(config)
    merged = QKFormer(dataclasses.replace(config, merge_batch_into_time=True)).double().eval()
    merged.load_state_dict(own.state_dict(), strict=True)
    single, together = [], []
    for images_seen in (x[:1], x):
        a, b = run(own, images_seen)[1], run(merged, images_seen)[1]
        single.append(all(torch.equal(a[n].flatten(), b[n].flatten()) for n in a))
        together.append({n: tuple(s.shape) for n, s in b.items()})
    assert single == [True, False]
    name = next(n for n in together[1] if n.endswith((".ssa.proj_lif", ".attn.proj_lif")))
    assert together[1][name][0] == config.time_steps * 4


def test_images_of_a_batch_do_not_meet_unless_merged(small_config: QKFormerConfig) -> None:
    model, x = fired(small_config)
    batched = run(model, x)[1]
    for index in range(len(x)):
        alone = run(model, x[index : index + 1])[1]
        assert all(torch.equal(alone[n][:, 0], batched[n][:, index]) for n in alone)


@pytest.mark.parametrize("shape", [(1, 1, 16, 17), (1, 16, 16), (1, 3, 16, 16)])
def test_wrong_input_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"the model takes \(B, 1, 16, 16\), the input is "):
        QKFormer(SMALL["cifar"])(torch.zeros(shape))


def test_wrong_input_shape_for_event_frames() -> None:
    with pytest.raises(InputError, match=r"the model takes \(B, T, 2, 64, 64\), the input is \(1, 2, 64, 64\)"):
        QKFormer(SMALL["dvs"])(torch.zeros(1, 2, 64, 64))


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_export_traces_every_layout(small_config: QKFormerConfig) -> None:
    config = small_config.replace(time_steps=1)  # neurons unroll over time here; one step keeps this fast
    model, _ = fired(config)
    x = images(config, 1)
    expected, _ = run(model, x)
    functional.reset_net(model)
    exported = torch.export.export(model, (x,), strict=False)
    functional.reset_net(model)
    assert torch.equal(exported.module()(x), expected)
