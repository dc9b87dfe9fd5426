"""What was assumed of a source because neither it nor its user said so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qkf_deploy.converters.torch.checkpoint import CONFIG_KEY, Checkpoint
from qkf_deploy.ir import Assumption, Preprocessing
from qkf_deploy.models.config import QKFormerConfig
from qkf_deploy.models.recognise import not_stored

CODE = "as in the official code"
_SIZE = "every layer's shape and all counts"


def of_checkpoint(checkpoint: Checkpoint, config: QKFormerConfig, options: Mapping[str, object]) -> list[Assumption]:
    """What names and shapes of a checkpoint's tensors do not show; nothing if the file holds its configuration.

    Args:
        checkpoint: the file.
        config: what it was taken for.
        options: of the user by field name, without those left out.
    """
    if CONFIG_KEY in checkpoint.metadata or "arch" in options:
        return []
    source = not_stored({name: tuple(t.shape) for name, t in checkpoint.state_dict.items()}).source
    heads = config.heads[0] if len(set(config.heads)) == 1 else config.heads
    size = f"{config.image_size} x {config.image_size}"
    found = [
        Assumption(
            "heads", str(heads), source, "which channels an attention gate or product takes together", "--heads"
        ),
        Assumption("T", str(config.time_steps), source, "spikes and all counts", "--time-steps"),
        Assumption("image size", size, source, _SIZE, "--image-size"),
    ]
    unseen = [a for a in found if {"T": "time_steps"}.get(a.name, a.name.replace(" ", "_")) not in options]
    dynamics = "τ as stored" if config.neuron == "plif" else f"{config.neuron.upper()} τ 2"
    return [
        *unseen,
        Assumption("neurons", f"{dynamics}, V_th 1, attention 0.5", CODE, "every spike"),
        Assumption("shortcut", "activation before addition", CODE, "what residual additions add"),
    ]


def of_pixels(pre: Preprocessing, usual: str | None, source: str) -> Assumption:
    """The normalization of a source without one."""
    plain = set(pre.mean) == {0.0} and set(pre.std) == {1.0}
    value = "none, byte / 255" if plain else str(usual)
    return Assumption("mean/std", value, source, "every drive of the first layer", "--preset or --mean and --std")


def of_input(layout: str) -> list[Assumption]:
    """What the caller of a model must do besides, for layouts that leave it to the caller."""
    values = {"step": "one call per time step, results averaged", "sequence": "the same image at every time step"}
    if layout not in values:
        return []
    source = "the layout that the model takes"
    return [Assumption("input", values[layout], source, "every count and logit", "--input")]


def imagenet_size(size: int) -> Assumption:
    """The image size of a model with ImageNet's classes."""
    return Assumption("image size", f"{size} x {size}", "usual for 1000 classes", _SIZE, "--image-size")


def part_size(axes: Sequence[int]) -> Assumption:
    """The image size that a part of a model carries, such as its patch embedding."""
    return Assumption(
        "image size", " x ".join(map(str, axes)), "as a part of the model holds it", _SIZE, "--image-size"
    )


def image_channels(channels: int) -> Assumption:
    """The channels of a model without a convolution."""
    return Assumption("channels", str(channels), "usual for images", _SIZE, "--in-channels")


def given(options: Mapping[str, object]) -> dict[str, str]:
    """Options of the user, for a network's provenance."""
    text = ", ".join(f"{name} {_text(value)}" for name, value in options.items())
    return {"given": text} if text else {}


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
