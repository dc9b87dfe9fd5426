"""Reading checkpoint files: every container, and every kind of bad file with its message."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from official_layouts import LAYOUTS

import qkf_deploy as qd
from qkf_deploy.converters.torch.checkpoint import CONFIG_KEY, load_model, read_state_dict
from qkf_deploy.converters.torch.unpickling import Ignored, unpickle
from qkf_deploy.errors import CheckpointError, UsageError
from qkf_deploy.models import BUILDS, QKFormer, QKFormerConfig

RESAVE = "in the project that made it, save the weights alone: torch.save(model.state_dict(), ...)"
REDOWNLOAD = "download or copy the file again, it looks incomplete or damaged"
LOOKED = (
    "looked for tensors at the top level and under 'state_dict', 'model', 'model_state_dict', 'model_state', 'net', "
    "'network', 'weights', 'module', 'state_dict_ema', 'model_ema', 'ema_state_dict', 'ema_model', 'ema'"
)
OTHER_FILE = "name a .pth, .pt or .safetensors file; if it is one, download or copy it again"


@pytest.fixture
def state(small_cifar: QKFormerConfig) -> dict[str, torch.Tensor]:
    return QKFormer(small_cifar).state_dict()


class RunsCode:
    """A pickle of this object runs a shell command when it is loaded the unsafe way."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(expected) and all(torch.equal(found[n], expected[n]) for n in expected)


CONTAINERS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "bare": (lambda s: s, "torch"),
    "model": (
        lambda s: {"model": s, "epoch": 3, "args": argparse.Namespace(lr=0.1, data=["x"]), "scaler": {"scale": 1.0}},
        "torch, under 'model'",
    ),
    "state_dict": (lambda s: {"state_dict": s, "arch": "QKFormer", "metric": 85.6}, "torch, under 'state_dict'"),
    "data parallel": (
        lambda s: {"state_dict": {f"module.{n}": t for n, t in s.items()}},
        "torch, under 'state_dict', module. removed",
    ),
    "bare data parallel": (lambda s: prefixed("module.", s), "torch, module. removed"),
    "compiled": (lambda s: prefixed("_orig_mod.", s), "torch, _orig_mod. removed"),
    "part compiled": (
        lambda s: {n.replace("stage1.", "stage1._orig_mod."): t for n, t in s.items()},
        "torch, _orig_mod. removed",
    ),
    "compiled and data parallel": (
        lambda s: prefixed("module._orig_mod.module.", s),
        "torch, _orig_mod. and module. and module. removed",
    ),
    "lightning": (
        lambda s: {"state_dict": prefixed("model.net.", s), "callbacks": {}},
        "torch, under 'state_dict', model. and net. removed",
    ),
    "averaged": (
        lambda s: {**prefixed("module.", s), "n_averaged": torch.tensor(3)},
        "torch, module. removed, n_averaged left out",
    ),
    "only a running average": (lambda s: {"epoch": 1, "state_dict_ema": s}, "torch, under 'state_dict_ema'"),
    "model_ema": (lambda s: {"model_ema": s}, "torch, under 'model_ema'"),
    "model_state_dict": (lambda s: {"model_state_dict": s, "loss": 0.1}, "torch, under 'model_state_dict'"),
    "net": (lambda s: {"net": s, "acc": 93, "epoch": 2}, "torch, under 'net'"),
    "one inside the other": (lambda s: {"model": {"state_dict": s, "step": 4}}, "torch, under 'model.state_dict'"),
    "numpy beside": (
        lambda s: {"model": s, "best": np.float64(95.5), "hit": np.bool_(True), "curve": np.arange(4.0)},
        "torch, under 'model'",
    ),
    "defaultdicts beside": (
        lambda s: {"model": s, "log": defaultdict(list, {"loss": [1.0]}), "n": defaultdict(int, {"a": 1})},
        "torch, under 'model'",
    ),
    "thop": (
        lambda s: {**s, "head.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
        "torch, total_ops and total_params left out",
    ),
}


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(("wrap", "container"), CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torch_containers(
    tmp_path: Path,
    state: dict[str, torch.Tensor],
    wrap: Callable[[dict[str, torch.Tensor]], object],
    container: str,
    zipped: bool,
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
    checkpoint = read_state_dict(path)
    assert same(checkpoint.state_dict, state)
    assert (checkpoint.container, checkpoint.metadata) == (container, {})
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


WEIGHTS_TWICE: dict[str, Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], object]] = {
    "two keys": lambda raw, ema: {"state_dict_ema": ema, "state_dict": raw},
    "official timm keys": lambda raw, ema: {"model": raw, "model_ema": ema},
    "one state dict": lambda raw, ema: {"state_dict": {**prefixed("ema.module.", ema), **prefixed("model.", raw)}},
    "one inside the other": lambda raw, ema: {"model": raw, "ema": {"module": ema, "decay": 0.9}},
}


@pytest.mark.parametrize("wrap", WEIGHTS_TWICE.values(), ids=WEIGHTS_TWICE)
def test_which_of_two_sets_of_weights(
    tmp_path: Path,
    state: dict[str, torch.Tensor],
    wrap: Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], object],
) -> None:
    average = {n: t + 1 if t.is_floating_point() else t for n, t in state.items()}
    path = tmp_path / "w.pth"
    torch.save(wrap(state, average), path)
    taken = read_state_dict(path)
    assert same(taken.state_dict, state)
    assert len(taken.notices) == 1
    assert "--weights ema takes that" in taken.notices[0]
    assert same(read_state_dict(path, "ema").state_dict, average)
    assert not read_state_dict(path, "ema").notices
    assert same(read_state_dict(path, "raw").state_dict, state)
    assert not read_state_dict(path, "raw").notices
    graph = qd.trace(path, heads=2, image_size=16, weights="ema")
    assert (graph["head"].params["weight"] == average["head.weight"].numpy()).all()
    assert graph.provenance["given"] == "heads 2, image_size 16, weights ema"
    assert taken.notices[0] in qd.trace(path, heads=2, image_size=16).notices


@pytest.mark.parametrize(
    ("content", "choice", "message"),
    [
        ({"w": torch.zeros(1)}, "ema", "holds no running average of weights"),
        ({"state_dict_ema": {"w": torch.zeros(1)}}, "raw", "holds no weights but a running average"),
    ],
)
def test_weights_that_are_not_there(tmp_path: Path, content: object, choice: str, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        read_state_dict(tmp_path / "w.pth", choice)


def test_prefixes_go_only_as_far_as_the_names_of_the_model(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(prefixed("module.model.", state), tmp_path / "w.pth")
    wanted = prefixed("model.", state)
    assert same(read_state_dict(tmp_path / "w.pth", wanted=wanted).state_dict, wanted)
    assert same(read_state_dict(tmp_path / "w.pth").state_dict, state)


def test_names_that_would_become_one_stay(tmp_path: Path) -> None:
    both = {"a._orig_mod.w": torch.zeros(1), "a.w": torch.ones(1)}
    torch.save(both, tmp_path / "w.pth")
    assert same(read_state_dict(tmp_path / "w.pth").state_dict, both)


def test_batch_counts_may_be_missing(
    tmp_path: Path, small_cifar: QKFormerConfig, state: dict[str, torch.Tensor]
) -> None:
    torch.save({n: t for n, t in state.items() if "num_batches_tracked" not in n}, tmp_path / "w.pth")
    model, _ = load_model(tmp_path / "w.pth", heads=2, image_size=16)
    assert same(model.state_dict(), {n: torch.zeros_like(t) if "num_batches" in n else t for n, t in state.items()})
    graph = qd.trace(
        "qkf_deploy.models.qkformer:QKFormer", checkpoint=tmp_path / "w.pth",
        factory_arguments={"config": small_cifar}, image_size=16,
    )  # fmt: skip
    assert graph.provenance["container"] == "torch"


def test_numpy_never_sees_bytes_of_a_file(tmp_path: Path) -> None:
    """A data type out of a file could claim that bytes are pointers, so none is ever made."""
    path = tmp_path / "w.pth"
    torch.save({"best": np.float64(1.0), "curve": np.arange(3), "type": np.dtype("f8")}, path)
    with path.open("rb") as file:
        content = unpickle(file, "w.pth")
    assert isinstance(content, dict)
    assert {type(value) for value in content.values()} == {Ignored}


def test_safetensors_names_lose_prefixes_too(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(prefixed("module._orig_mod.", state), path)
    checkpoint = read_state_dict(path)
    assert sorted(checkpoint.state_dict) == sorted(state)
    assert checkpoint.container == "safetensors, _orig_mod. and module. removed"


def test_safetensors_is_known_by_content(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "weights.pth"
    safetensors.torch.save_file(state, path, metadata={"mean": "[0.5]"})
    checkpoint = read_state_dict(path)
    assert all(torch.equal(checkpoint.state_dict[n], state[n]) for n in state)
    assert (checkpoint.container, checkpoint.metadata) == ("safetensors", {"mean": "[0.5]"})


@pytest.mark.parametrize("name", ["cifar10", "dvs128", "imagenet_10_384"])
def test_official_files_load(tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    state = layout.random_state_dict()
    torch.save({"model": state, "args": argparse.Namespace(T=4)}, tmp_path / "official.pth")
    model, checkpoint = load_model(tmp_path / "official.pth")
    assert model.config == BUILDS[layout.build]
    assert not model.training
    assert same(model.state_dict(), state)
    assert same(checkpoint.state_dict, state)


def test_stored_configuration_wins_over_recognition(tmp_path: Path, small_cifar: QKFormerConfig) -> None:
    config = small_cifar.replace(heads=4, neuron="if", time_steps=3, shortcut="pa")
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(QKFormer(config).state_dict(), path, metadata={CONFIG_KEY: config.to_json()})
    assert load_model(path)[0].config == config
    assert load_model(path, time_steps=5)[0].config == config.replace(time_steps=5)


def test_arch_and_overrides(tmp_path: Path) -> None:
    torch.save(LAYOUTS["dvs128"].random_state_dict(), tmp_path / "w.pth")
    model, _ = load_model(tmp_path / "w.pth", arch="qkformer-2-256-dvs128", heads=8, neuron="if")
    assert model.config == BUILDS["qkformer-2-256-dvs128"].replace(heads=8, neuron="if")
    with pytest.raises(UsageError, match="unknown model 'vit'"):
        load_model(tmp_path / "w.pth", arch="vit")
    with pytest.raises(UsageError, match="unknown model option colour"):
        load_model(tmp_path / "w.pth", colour=1)


@pytest.mark.parametrize(
    ("stored", "expected"), [(torch.float16, torch.float32), (torch.float64, torch.float64)], ids=str
)
def test_precision(
    tmp_path: Path,
    state: dict[str, torch.Tensor],
    small_cifar: QKFormerConfig,
    stored: torch.dtype,
    expected: torch.dtype,
) -> None:
    torch.save({n: t.to(stored) if t.is_floating_point() else t for n, t in state.items()}, tmp_path / "w.pth")
    model, _ = load_model(tmp_path / "w.pth", heads=2, image_size=16)
    assert {p.dtype for p in model.parameters()} == {expected}
    assert model(torch.zeros(small_cifar.input_shape, dtype=expected)).shape == (1, 5)


def error_of(path: Path, **options: object) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_model(path, **options)
    assert caught.value.where == str(path)
    assert "\n" not in caught.value.message
    return caught.value


def test_missing_file(tmp_path: Path) -> None:
    error = error_of(tmp_path / "nope.pth")
    assert (error.message, error.hint) == ("no such file", "check the path")


def test_directory(tmp_path: Path) -> None:
    error = error_of(tmp_path)
    assert (error.message, error.hint) == ("is a directory", "name the checkpoint file inside it")


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"<html>404</html>", b"\x93NUMPY\x01\x00", bytes(range(200)) * 5], ids=repr
)
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    error = error_of(path)
    if not content:
        assert (error.message, error.hint) == ("the file is empty", REDOWNLOAD)
    elif b"NUMPY" in content:
        assert error.message == "is arrays, as data sets are, not a checkpoint"
    else:
        assert error.message.startswith(
            ("is not a torch or safetensors checkpoint", "is not a complete torch checkpoint")
        )
        assert error.hint in (OTHER_FILE, REDOWNLOAD)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_truncated_torch_file(tmp_path: Path, state: dict[str, torch.Tensor], zipped: bool, part: float) -> None:
    path = tmp_path / "w.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    error = error_of(path)
    assert error.message.startswith("is not a complete torch checkpoint (")
    assert error.hint == REDOWNLOAD


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:100], "the safetensors file is truncated"),
        (lambda c: c[:-10], "the safetensors file is damaged ("),
        (lambda c: c + b"x", "the safetensors file is damaged ("),
        (lambda c: c[:9] + b"{{" + c[11:], "the safetensors file is damaged ("),
        (lambda c: b"\xff" * 8 + c[8:], "the safetensors file is truncated"),
    ],
    ids=["header cut", "data cut", "data added", "header not JSON", "absurd header size"],
)
def test_damaged_safetensors(
    tmp_path: Path, state: dict[str, torch.Tensor], damage: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(damage(safetensors.torch.save(state)))
    error = error_of(path)
    assert error.message.startswith(message)
    assert error.hint == REDOWNLOAD


@pytest.mark.parametrize("as_torch_file", [True, False], ids=["torch file", "bare pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(
    tmp_path: Path, state: dict[str, torch.Tensor], as_torch_file: bool
) -> None:
    proof = tmp_path / "it_ran"
    attack = {"model": state, "extra": RunsCode(f"touch {proof}")}
    path = tmp_path / "w.pth"
    if as_torch_file:
        torch.save(attack, path)
    else:
        path.write_bytes(pickle.dumps(attack["extra"], protocol=2))
    error = error_of(path)
    assert not proof.exists()
    command = f"{os.system.__module__}.system"
    assert error.message == f"holds a Python object that is not weights ({command}); loading it could run code"
    assert error.hint == RESAVE
    assert "weights_only" not in str(error)


def test_a_whole_model_is_refused(tmp_path: Path, small_cifar: QKFormerConfig) -> None:
    torch.save(QKFormer(small_cifar), tmp_path / "w.pth")
    error = error_of(tmp_path / "w.pth")
    assert error.message.startswith("holds a Python object that is not weights (qkf_deploy.models.qkformer.QKFormer)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({}, "holds an empty state dict"),
        ({"model": {}}, "holds an empty state dict"),
        (
            {"epoch": 3},
            f"is not a state dict: 'epoch' is a int; {LOOKED}",
        ),
        (
            {"model": {"a": torch.zeros(1), "b": 2.0}},
            f"is not a state dict: 'b' is a float; {LOOKED}",
        ),
        ({"w": torch.zeros(3, 3).to_sparse()}, "w is not a dense tensor"),
    ],
    ids=["list", "empty", "empty inside", "no tensors", "a number among tensors", "sparse"],
)
def test_no_state_dict(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    error = error_of(tmp_path / "w.pth")
    assert (error.message, error.hint) == (message, RESAVE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(tmp_path: Path, state: dict[str, torch.Tensor], value: float) -> None:
    state["head.weight"][1, 2] = value
    torch.save(state, tmp_path / "w.pth")
    error = error_of(tmp_path / "w.pth")
    assert error.message == "head.weight has 1 values that are not finite"
    assert error.hint == "use a checkpoint from before training diverged"


def test_unknown_architecture(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "w.pth")
    error = error_of(tmp_path / "w.pth")
    assert error.message.startswith("no known architecture: looked for patch_embed1.proj_conv.weight")
    assert error.hint == "name the architecture with --arch, or pass a factory as module:function"


def test_tensors_missing_and_unexpected(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    kept = {n: t for n, t in state.items() if not n.startswith("stage1.0.mlp.mlp2_bn.")}
    torch.save({**kept, "extra": torch.zeros(1)}, tmp_path / "w.pth")
    assert error_of(tmp_path / "w.pth", heads=2).message == (
        "does not fit the architecture: 5 tensors missing (stage1.0.mlp.mlp2_bn.weight, stage1.0.mlp.mlp2_bn.bias, "
        "stage1.0.mlp.mlp2_bn.running_mean, ...); 1 tensors unexpected (extra)"
    )


def test_shapes_and_types_that_do_not_fit(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    state["head.bias"] = torch.zeros(6)
    state["stage1.0.tssa.q_bn.weight"] = torch.ones(8, dtype=torch.int64)
    torch.save(state, tmp_path / "w.pth")
    assert error_of(tmp_path / "w.pth", heads=2).message == (
        "does not fit the architecture: 1 wrong shapes (head.bias is (6,), not (5,)); "
        "1 wrong types (stage1.0.tssa.q_bn.weight is torch.int64)"
    )


def test_wrong_arch(tmp_path: Path) -> None:
    torch.save(LAYOUTS["cifar10"].random_state_dict(), tmp_path / "w.pth")
    error = error_of(tmp_path / "w.pth", arch="qkformer-4-384-cifar100")
    assert error.message == (
        "does not fit the architecture: 2 wrong shapes (head.weight is (10, 384), not (100, 384), "
        "head.bias is (10,), not (100,))"
    )
    assert error.hint == "name the architecture it was trained with (--arch), or give its options"


def test_bad_stored_configuration(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(state, path, metadata={CONFIG_KEY: "[]"})
    error = error_of(path)
    assert error.message == "metadata qkf_config: the model configuration is not a JSON object"
    assert error.hint == "name the architecture with --arch"


DAMAGE: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor], str]] = {
    "negative variance": ("patch_embed1.proj_bn.running_var", lambda t: -t, "has a negative variance"),
    "nan": ("head.weight", lambda t: t * float("nan"), "values that are not finite"),
    "infinite": ("head.bias", lambda t: t / 0 + float("inf"), "values that are not finite"),
    "integers": ("head.weight", lambda t: t.to(torch.int8), "wrong types|is torch.int8"),
    "booleans": ("head.weight", lambda t: t > 0, "wrong types|is torch.bool"),
    "complex": ("head.weight", lambda t: t.to(torch.complex64), "wrong types|is torch.complex64"),
}


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_numbers_that_cannot_be_weights(
    tmp_path: Path,
    small_cifar: QKFormerConfig,
    state: dict[str, torch.Tensor],
    name: str,
    damage: Callable[[torch.Tensor], torch.Tensor],
    message: str,
) -> None:
    torch.save({**state, name: damage(state[name])}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        qd.trace(tmp_path / "w.pth", heads=2, image_size=16)
    factory = {"config": small_cifar}
    with pytest.raises(CheckpointError, match=message):  # and through a factory
        qd.trace(
            "qkf_deploy.models.qkformer:QKFormer",
            checkpoint=tmp_path / "w.pth",
            factory_arguments=factory,
            image_size=16,
        )


METADATA = {
    "not JSON": {"mean": "0.5,", "std": "[0.5]"},
    "no list": {"mean": "0.5", "std": "[0.5]"},
    "texts": {"mean": '["a"]', "std": "[0.5]"},
    "not finite": {"mean": "[NaN]", "std": "[0.5]"},
    "too many": {"mean": "[0.5, 0.5]", "std": "[0.5, 0.5]"},
    "zero": {"mean": "[0.5]", "std": "[0]"},
    "one of two": {"mean": "[0.5]"},
    "names": {"class_names": "cat"},
    "names of others": {"class_names": '["cat"]'},
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
def test_metadata_that_says_nothing_usable(
    tmp_path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    safetensors.torch.save_file(state, tmp_path / "w.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: metadata (mean|std|class_names)"):
        qd.trace(tmp_path / "w.safetensors", heads=2, image_size=16)
