"""Official QKFormer state dicts to those of SpikingJelly's own QKFormer, and back.

Both are the ImageNet network of arXiv 2403.16552. SpikingJelly 2.0 holds q, k (and v) in one convolution, gives its
patch-embedding convolutions a bias and its projection none, and writes the MLP with 1-d convolutions. A bias in front
of a batch norm moves into it: BN(x + b) with mean μ is BN(x) with mean μ - b. The two networks are then equal at batch
size 1; SpikingJelly's does not carry membranes from image to image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch

from qkf_deploy.errors import CheckpointError

StateDict = Mapping[str, torch.Tensor]

#: Convolution with its batch norm, ``official name -> SpikingJelly's (convolution, batch norm)``, per patch embedding.
_EMBED: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "patch_embed1": {
        "proj": ("conv1", "bn1"),
        "proj1": ("conv2", "bn2"),
        "proj2": ("conv3", "bn3"),
        "proj_res": ("shortcut.0", "shortcut.1"),
    },
    "patch_embed2": {"proj3": ("conv1", "bn1"), "proj4": ("conv2", "bn2"), "proj_res": ("shortcut.0", "shortcut.1")},
    "patch_embed3": {"proj3": ("conv1", "bn1"), "proj4": ("conv2", "bn2"), "proj_res": ("shortcut.0", "shortcut.1")},
}
_NORM = ("weight", "bias", "running_mean", "running_var")
_TRACKED = "num_batches_tracked"


def is_official(state: StateDict) -> bool:
    """True for the official ImageNet layout."""
    return "patch_embed1.proj_conv.weight" in state and any(".attn.q_conv." in key for key in state)


def is_spikingjelly(state: StateDict) -> bool:
    """True for SpikingJelly's own QKFormer."""
    return "patch_embed1.conv1.weight" in state and any(".attn.qk_conv_bn." in key for key in state)


def to_spikingjelly(state: StateDict) -> dict[str, torch.Tensor]:
    """An official ImageNet state dict with SpikingJelly's keys.

    Raises:
        CheckpointError: another layout, or missing or unknown keys.
    """
    if not is_official(state):
        raise CheckpointError("not an official ImageNet QKFormer", hint="CIFAR and DVS layouts exist only officially")
    return _Remap(state).run(_official_embed, _official_block)


def to_official(state: StateDict) -> dict[str, torch.Tensor]:
    """A state dict of SpikingJelly's QKFormer with the official ImageNet keys.

    Raises:
        CheckpointError: another layout, or missing or unknown keys.
    """
    if not is_spikingjelly(state):
        raise CheckpointError("not a QKFormer of spikingjelly.activation_based.model.qkformer")
    return _Remap(state).run(_spikingjelly_embed, _spikingjelly_block)


def fitting(state: StateDict, wanted: StateDict) -> tuple[StateDict, dict[str, str]]:
    """A state dict in the layout of ``wanted``, where it is the other one of the two, and what was done."""
    if is_official(state) and is_spikingjelly(wanted):
        return to_spikingjelly(state), {"remapped": "official to spikingjelly"}
    if is_spikingjelly(state) and is_official(wanted):
        return to_official(state), {"remapped": "spikingjelly to official"}
    return state, {}


class _Remap:
    """Moves tensors from one dict to another and notes which were used."""

    def __init__(self, state: StateDict) -> None:
        self.state = state
        self.used: set[str] = set()
        self.out: dict[str, torch.Tensor] = {}

    def run(
        self, embed: Callable[[_Remap, str, str, tuple[str, str]], None], block: Callable[[_Remap, str, bool], None]
    ) -> dict[str, torch.Tensor]:
        """Everything, embedding by embedding and block by block."""
        for stage, names in _EMBED.items():
            for official, ours in names.items():
                embed(self, stage, official, ours)
        for prefix in sorted({m[0] for m in (re.match(r"stage\d+\.\d+", key) for key in self.state) if m}):
            block(self, prefix, prefix.startswith("stage3."))
        for name in ("head.weight", "head.bias"):
            self.out[name] = self.take(name)
        unknown = sorted(set(self.state) - self.used)
        if unknown:
            raise CheckpointError(f"unknown keys: {', '.join(unknown[:5])}")
        return self.out

    def take(self, key: str) -> torch.Tensor:
        """A tensor of the source."""
        if key not in self.state:
            raise CheckpointError(f"the key {key} is missing")
        self.used.add(key)
        return self.state[key]

    def norm(self, source: str, target: str, bias: torch.Tensor | None = None) -> None:
        """A batch norm, with the bias of the convolution before it moved into its mean."""
        self.norms([source], [target], [bias])

    def norms(self, sources: list[str], targets: list[str], biases: list[torch.Tensor | None]) -> None:
        """Batch norms side by side: as many to one, or one to as many."""
        for name in _NORM:
            joined = torch.cat([self.take(f"{s}.{name}") for s in sources])
            if name == "running_mean" and biases[0] is not None:
                joined = (joined.double() - torch.cat([b for b in biases if b is not None]).double()).to(joined.dtype)
            for target, part in zip(targets, joined.chunk(len(targets)), strict=True):
                self.out[f"{target}.{name}"] = part.clone()
        tracked = [f"{s}.{_TRACKED}" for s in sources if f"{s}.{_TRACKED}" in self.state]
        for target in targets if tracked else ():
            self.out[f"{target}.{_TRACKED}"] = max(self.take(key) for key in tracked)

    def mlp(self, prefix: str, names: Mapping[str, str], shape: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Both layers of an MLP; ``names`` from source to target."""
        for source, target in names.items():
            if "bn" in source:
                self.norm(f"{prefix}.mlp.{source}", f"{prefix}.mlp.{target}")
            else:
                self.out[f"{prefix}.mlp.{target}.weight"] = shape(self.take(f"{prefix}.mlp.{source}.weight"))
                self.out[f"{prefix}.mlp.{target}.bias"] = self.take(f"{prefix}.mlp.{source}.bias")


def _official_embed(remap: _Remap, stage: str, official: str, ours: tuple[str, str]) -> None:
    weight = remap.take(f"{stage}.{official}_conv.weight")
    remap.out[f"{stage}.{ours[0]}.weight"] = weight
    remap.out[f"{stage}.{ours[0]}.bias"] = torch.zeros(weight.shape[0], dtype=weight.dtype)
    remap.norm(f"{stage}.{official}_bn", f"{stage}.{ours[1]}")


def _spikingjelly_embed(remap: _Remap, stage: str, official: str, ours: tuple[str, str]) -> None:
    remap.out[f"{stage}.{official}_conv.weight"] = remap.take(f"{stage}.{ours[0]}.weight")
    remap.norm(f"{stage}.{ours[1]}", f"{stage}.{official}_bn", remap.take(f"{stage}.{ours[0]}.bias"))


_MLP = {"fc1_conv": "fc1", "fc1_bn": "bn1", "fc2_conv": "fc2", "fc2_bn": "bn2"}


def _attention(ssa: bool) -> tuple[str, str, tuple[str, ...]]:
    """Names of an attention: official, fused branch in SpikingJelly, branches in its order."""
    return ("attn", "qkv", ("q", "k", "v")) if ssa else ("tssa", "qk", ("q", "k"))


def _official_block(remap: _Remap, prefix: str, ssa: bool) -> None:
    name, fused, branches = _attention(ssa)
    source, target = f"{prefix}.{name}", f"{prefix}.attn"
    weights = [remap.take(f"{source}.{b}_conv.weight") for b in branches]
    remap.out[f"{target}.{fused}_conv_bn.0.weight"] = torch.cat(weights)
    remap.norms([f"{source}.{b}_bn" for b in branches], [f"{target}.{fused}_conv_bn.1"], [None])
    remap.out[f"{target}.proj_conv_bn.0.weight"] = remap.take(f"{source}.proj_conv.weight")
    remap.norm(f"{source}.proj_bn", f"{target}.proj_conv_bn.1", remap.take(f"{source}.proj_conv.bias"))
    remap.mlp(prefix, _MLP, lambda weight: weight.squeeze(-1))


def _spikingjelly_block(remap: _Remap, prefix: str, ssa: bool) -> None:
    name, fused, branches = _attention(ssa)
    source, target = f"{prefix}.attn", f"{prefix}.{name}"
    joined = remap.take(f"{source}.{fused}_conv_bn.0.weight")
    for branch, weight in zip(branches, joined.chunk(len(branches)), strict=True):
        remap.out[f"{target}.{branch}_conv.weight"] = weight.clone()
    remap.norms([f"{source}.{fused}_conv_bn.1"], [f"{target}.{b}_bn" for b in branches], [None])
    weight = remap.take(f"{source}.proj_conv_bn.0.weight")
    remap.out[f"{target}.proj_conv.weight"] = weight
    remap.out[f"{target}.proj_conv.bias"] = torch.zeros(weight.shape[0], dtype=weight.dtype)
    remap.norm(f"{source}.proj_conv_bn.1", f"{target}.proj_bn")
    remap.mlp(prefix, {ours: official for official, ours in _MLP.items()}, lambda weight: weight.unsqueeze(-1))
