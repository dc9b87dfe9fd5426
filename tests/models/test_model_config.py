"""QKFormerConfig, named builds and recognition."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from official_layouts import LAYOUTS, OfficialLayout

from qkf_deploy.errors import CheckpointError, UsageError
from qkf_deploy.models import BUILDS, QKFormer, QKFormerConfig, build, build_config, recognise

every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def shapes_of(config: QKFormerConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in QKFormer(config).state_dict().items()}


@pytest.mark.parametrize("name", BUILDS)
def test_json_round_trip(name: str) -> None:
    assert QKFormerConfig.from_json(BUILDS[name].to_json()) == BUILDS[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the model configuration is not JSON"),
        ("[" * 100_000, "the model configuration is not JSON"),
        ("[]", "the model configuration is not a JSON object"),
        ('{"layout": "cifar"}', "lacks or does not know in_channels"),
        ('{"colour": 1}', "lacks or does not know layout"),
    ],
)
def test_json_of_something_else(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        QKFormerConfig.from_json(text)


def test_json_with_a_hostile_depth() -> None:
    fields = json.loads(BUILDS["qkformer-digits"].to_json()) | {"depths": [10**9, 1, 1]}
    with pytest.raises(UsageError, match=r"depths is \(1000000000, 1, 1\)"):
        QKFormerConfig.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"layout": "vit"}, "layout is 'vit'"),
        ({"layout": []}, r"layout is \[\]"),
        ({"neuron": "qif"}, "neuron is 'qif'"),
        ({"shortcut": None}, "shortcut is None"),
        ({"speds": 1}, "speds is 1"),
        ({"time_steps": 0}, "time_steps is 0"),
        ({"time_steps": True}, "time_steps is True"),
        ({"embed_dim": 60}, "embed_dim is 60"),
        ({"image_size": 18}, "image_size is 18"),
        ({"heads": 3}, "stage 1: 3 heads do not divide 16 channels"),
        ({"heads": (4, 4)}, r"heads is \(4, 4\)"),
        ({"depths": 0}, r"depths is \(0, 0, 0\)"),
        ({"attention": "full"}, r"attention is \('full', 'full', 'full'\)"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0"),
        ({"mlp_ratio": 0.01}, "mlp_ratio is 0.01: it leaves no hidden channel"),
        ({"mlp_ratio": "4"}, "mlp_ratio is '4'"),
        ({"colour": 1}, "unknown model option colour"),
    ],
    ids=str,
)
def test_impossible_values(override: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_config("qkformer-digits", **override)


def test_unknown_build_lists_the_known() -> None:
    with pytest.raises(UsageError, match="unknown model 'resnet'") as caught:
        build("resnet")
    assert "qkformer-10-384" in (caught.value.hint or "")


def test_overrides_reach_the_model() -> None:
    model = build("qkformer-digits", heads=2, depths=(1, 1, 2), time_steps=2)
    assert model.config == BUILDS["qkformer-digits"].replace(heads=(2, 2, 2), depths=(1, 1, 2), time_steps=2)


@every_layout
def test_official_layouts_are_recognised(layout: OfficialLayout) -> None:
    assert recognise(layout.shapes) == BUILDS[layout.build]


@every_layout
def test_what_is_not_stored_can_be_given(layout: OfficialLayout) -> None:
    config = recognise(layout.shapes, heads=4, time_steps=2, image_size=64)
    expected = BUILDS[layout.build].replace(heads=4, time_steps=2, image_size=64)
    assert config == expected


@pytest.mark.parametrize(
    "override",
    [
        {"embed_dim": 256},
        {"depths": 3},
        {"attention": "qkca"},
        {"attention": "qkta"},
        {"attention": "ssa"},
        {"speds": False},
        {"neuron": "plif"},
        {"mlp_ratio": 2.0},
        {"in_channels": 1, "num_classes": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["qkformer-10-512", "qkformer-4-384-cifar10", "qkformer-2-256-dvs128"])
def test_variants_are_recognised(name: str, override: dict[str, object]) -> None:
    config = build_config(name, **override)
    assert recognise(shapes_of(config)) == config


def test_unknown_architecture() -> None:
    with pytest.raises(CheckpointError) as caught:
        recognise({"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 512)})
    assert caught.value.message == (
        "no known architecture: looked for patch_embed1.proj_conv.weight, head.weight and "
        "stage1.0.mlp.fc1_conv.weight or stage1.0.mlp.mlp1_conv.weight among 2 tensors (conv1.weight, fc.weight)"
    )
    assert caught.value.hint == "name the architecture with --arch, or pass a factory as module:function"


def test_missing_block() -> None:
    shapes = {n: s for n, s in LAYOUTS["imagenet_10_384"].shapes.items() if not n.startswith("stage3.2.")}
    with pytest.raises(CheckpointError, match="stage3 should hold blocks 0, 1, 2"):
        recognise(shapes)


def test_unknown_attention() -> None:
    shapes = {n.replace("stage2.0.ssa", "stage2.0.swin"): s for n, s in LAYOUTS["dvs128"].shapes.items()}
    with pytest.raises(CheckpointError, match=r"stage2 should hold one kind of attention .*; found swin"):
        recognise(shapes)


def test_wrong_rank() -> None:
    with pytest.raises(CheckpointError, match=r"head.weight has shape \(10,\), 2 dimensions were expected"):
        recognise({**LAYOUTS["cifar10"].shapes, "head.weight": (10,)})


def test_heads_that_do_not_fit_say_which_option() -> None:
    with pytest.raises(CheckpointError, match="8 heads do not divide 20 channels") as caught:
        recognise(shapes_of(build_config("qkformer-4-384-cifar10", embed_dim=80, heads=4)))
    assert caught.value.hint == "give --heads, which a state dict does not hold"


def test_configurations_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from qkf_deploy import models\n"
        "from qkf_deploy.errors import MissingComponent\n"
        "models.build_config('qkformer-10-384')\n"
        "for use in (lambda: models.build('qkformer-digits'), lambda: models.QKFormer):\n"
        "    try: use()\n"
        "    except MissingComponent as error: print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ['pip install "qkf-deploy[torch]"'] * 2
