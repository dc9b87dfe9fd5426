"""The architecture of one QKFormer as data: :class:`QKFormerConfig`. Standard library only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from qkf_deploy.errors import UsageError

Layout = Literal["imagenet", "cifar", "dvs"]
Attention = Literal["qkta", "qkca", "ssa"]
Shortcut = Literal["aba", "pa"]
NeuronKind = Literal["lif", "if", "plif"]

STAGES: dict[str, int] = {"imagenet": 3, "cifar": 3, "dvs": 2}
"""Number of stages of each layout."""

DOWNSAMPLING: dict[str, int] = {"imagenet": 16, "cifar": 4, "dvs": 16}
"""Input size over last feature-map size of each layout; an image size must be a multiple of it."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "layout": get_args(Layout),
    "shortcut": get_args(Shortcut),
    "neuron": get_args(NeuronKind),
}
# A config can come from the metadata of a downloaded file; these bounds keep a hostile one from hanging the build.
_UPPER: dict[str, int] = {
    "in_channels": 4096,
    "num_classes": 1_000_000,
    "image_size": 65_536,
    "embed_dim": 65_536,
    "time_steps": 65_536,
}
_MAX_DEPTH = 1000
_MAX_MLP_RATIO = 64
_PER_STAGE = ("depths", "heads", "attention")


@dataclass(frozen=True)
class QKFormerConfig:
    """What defines one QKFormer (arXiv 2403.16552): enough to build it, not its weights.

    Attributes:
        layout: module names and patch embeddings of the official files: ``imagenet`` and ``cifar`` (three stages,
            images ``(B, C, H, W)``), ``dvs`` (two stages, event frames ``(B, T, C, H, W)``).
        in_channels: channels of the input.
        num_classes: outputs of the head.
        image_size: height and width of the (square) input, in pixels.
        embed_dim: channels of the last stage; every earlier stage has half of the next one's.
        depths: blocks of each stage.
        heads: attention heads of each stage; each must divide the channels of its stage.
        attention: of each stage: ``qkta`` Q-K token (Eq. 6), ``qkca`` Q-K channel, ``ssa`` spiking self-attention
            (Eq. 3 and 4).
        mlp_ratio: hidden over input channels of the MLP.
        speds: False leaves the shortcut path out of the patch embeddings.
        shortcut: ``aba`` activation before addition (Eq. 10, spikes are added), ``pa`` pre-activation (Eq. 11, drives
            are added and a neuron opens each branch).
        neuron: ``lif``, ``if`` or ``plif`` (learnable time constant) everywhere.
        time_steps: T, how often an image is shown; for ``dvs`` the usual number of frames (the input decides).
        merge_batch_into_time: True calls the last neuron of SSA on ``(T*B, C, N)`` as the official files do, so that
            membranes carry over between the images of a batch. At batch size 1 both are the same.

    Raises:
        UsageError: a value that no model can have; names the field.
    """

    layout: Layout
    in_channels: int
    num_classes: int
    image_size: int
    embed_dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    attention: tuple[Attention, ...]
    mlp_ratio: float = 4.0
    speds: bool = True
    shortcut: Shortcut = "aba"
    neuron: NeuronKind = "lif"
    time_steps: int = 4
    merge_batch_into_time: bool = False

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_numbers(self)
        _check_stages(self)
        _check_geometry(self)

    @property
    def stage_dims(self) -> tuple[int, ...]:
        """Channels of each stage, first to last."""
        count = len(self.depths)
        return tuple(self.embed_dim >> (count - 1 - index) for index in range(count))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one batch of size 1: ``(1, C, H, W)``, for ``dvs`` ``(1, T, C, H, W)``."""
        frame = (self.in_channels, self.image_size, self.image_size)
        return (1, self.time_steps, *frame) if self.layout == "dvs" else (1, *frame)

    def replace(self, **overrides: Any) -> QKFormerConfig:
        """A copy with some fields changed.

        Args:
            **overrides: fields of this class; ``depths``, ``heads`` and ``attention`` may be one value for all stages.

        Raises:
            UsageError: an unknown field or an impossible value.
        """
        known = {field.name for field in dataclasses.fields(self)}
        unknown = sorted(set(overrides) - known)
        if unknown:
            raise UsageError(f"unknown model option {', '.join(unknown)}", hint=f"one of: {', '.join(sorted(known))}")
        layout = overrides.get("layout", self.layout)
        stages = STAGES[layout] if layout in tuple(STAGES) else len(self.depths)
        for name in _PER_STAGE:
            if name in overrides:
                overrides[name] = _per_stage(overrides[name], stages)
        return dataclasses.replace(self, **overrides)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces. :meth:`from_json` reads it back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> QKFormerConfig:
        """Read what :meth:`to_json` wrote.

        Raises:
            UsageError: not JSON, not an object, a field missing, unknown, or of an impossible value.
        """
        try:
            fields = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UsageError("the model configuration is not JSON") from error
        if not isinstance(fields, Mapping):
            raise UsageError("the model configuration is not a JSON object")
        known = {field.name: field for field in dataclasses.fields(cls)}
        missing = [n for n, f in known.items() if f.default is dataclasses.MISSING and n not in fields]
        wrong = missing + sorted(set(fields) - set(known))
        if wrong:
            raise UsageError(f"the model configuration lacks or does not know {', '.join(map(str, wrong))}")
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
        return cls(**values)


def _per_stage(value: Any, stages: int) -> tuple[Any, ...]:
    if isinstance(value, (str, int)):
        return (value,) * stages
    return tuple(value)


def _check_choices(config: QKFormerConfig) -> None:
    for name, allowed in _CHOICES.items():
        value = getattr(config, name)
        if value not in allowed:
            raise UsageError(f"{name} is {value!r}", hint=f"one of: {', '.join(allowed)}")
    for name in ("speds", "merge_batch_into_time"):
        if not isinstance(getattr(config, name), bool):
            raise UsageError(f"{name} is {getattr(config, name)!r}", hint="True or False")


def _check_numbers(config: QKFormerConfig) -> None:
    for name, upper in _UPPER.items():
        if not _is_int(getattr(config, name), upper):
            raise UsageError(f"{name} is {getattr(config, name)!r}", hint=f"a whole number from 1 to {upper}")
    ratio = config.mlp_ratio
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= _MAX_MLP_RATIO:
        raise UsageError(f"mlp_ratio is {ratio!r}", hint=f"a number above 0, at most {_MAX_MLP_RATIO}")
    if int(min(config.stage_dims) * ratio) < 1:
        raise UsageError(f"mlp_ratio is {ratio!r}: it leaves no hidden channel", hint="choose a larger mlp_ratio")


def _check_stages(config: QKFormerConfig) -> None:
    stages = STAGES[config.layout]
    for name in _PER_STAGE:
        values = getattr(config, name)
        if not isinstance(values, tuple) or len(values) != stages:
            raise UsageError(
                f"{name} is {values!r}", hint=f"{stages} values, one per stage of the {config.layout} layout"
            )
    for name, upper in (("depths", _MAX_DEPTH), ("heads", config.embed_dim)):
        if not all(_is_int(value, upper) for value in getattr(config, name)):
            raise UsageError(f"{name} is {getattr(config, name)!r}", hint=f"whole numbers from 1 to {upper}")
    if not all(value in get_args(Attention) for value in config.attention):
        raise UsageError(f"attention is {config.attention!r}", hint=f"one of: {', '.join(get_args(Attention))}")


def _check_geometry(config: QKFormerConfig) -> None:
    factor = 16 if config.layout == "dvs" else 8
    if config.embed_dim % factor:
        raise UsageError(f"embed_dim is {config.embed_dim}", hint=f"a multiple of {factor} ({config.layout} layout)")
    step = DOWNSAMPLING[config.layout]
    if config.image_size % step:
        raise UsageError(f"image_size is {config.image_size}", hint=f"a multiple of {step} ({config.layout} layout)")
    for index, (dim, heads) in enumerate(zip(config.stage_dims, config.heads, strict=True), start=1):
        if dim % heads:
            raise UsageError(f"stage {index}: {heads} heads do not divide {dim} channels", hint="choose other heads")


def _is_int(value: object, upper: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= upper
