"""Find the architecture of a QKFormer checkpoint from the names and shapes of its tensors.

Visible in a state dict: layout, channels, classes, depths, attention of each stage, MLP ratio, SPEDS, PLIF neurons.

Not visible: heads, T and image size, which the caller gives, or else come from the named build of the same layout,
width and input channels, or else are the layout's usual ones. Nor LIF or IF, the kind of shortcut, and whether
batch was merged into time: taken to be LIF, activation before addition, and merged, as in the official files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import get_args

from qkf_deploy.errors import CheckpointError, UsageError
from qkf_deploy.models.builds import BUILDS, LAYOUT_DEFAULTS, NotStored
from qkf_deploy.models.config import STAGES, Attention, Layout, QKFormerConfig

_HINT = "name the architecture with --arch, or pass a factory as module:function"
_FIRST_CONV = "patch_embed1.proj_conv.weight"
_HEAD = "head.weight"

Shapes = Mapping[str, tuple[int, ...]]


def recognise(
    shapes: Shapes,
    *,
    heads: int | Sequence[int] | None = None,
    time_steps: int | None = None,
    image_size: int | None = None,
) -> QKFormerConfig:
    """The configuration of the QKFormer that a state dict belongs to.

    Args:
        shapes: key to shape of every tensor of the state dict.
        heads: attention heads, one number or one per stage. Default: of the build of that width, else 8 (DVS: 16).
        time_steps: T. Default 4 (ImageNet, CIFAR) or 16 (DVS).
        image_size: height and width in pixels. Default 224 (ImageNet), 32 (CIFAR) or 128 (DVS).

    Raises:
        CheckpointError: no QKFormer has these tensors; says what was looked for.
    """
    layout = _layout(shapes)
    count = STAGES[layout]
    num_classes, embed_dim = _shape(shapes, _HEAD, 2)
    usual = not_stored(shapes)
    try:
        return QKFormerConfig(
            layout=layout,
            in_channels=_shape(shapes, _FIRST_CONV, 4)[1],
            num_classes=num_classes,
            image_size=image_size if image_size is not None else usual.image_size,
            embed_dim=embed_dim,
            depths=tuple(_depth(shapes, stage) for stage in range(1, count + 1)),
            heads=_heads(heads, usual.heads, count),
            attention=tuple(_attention(shapes, stage) for stage in range(1, count + 1)),
            mlp_ratio=_mlp_ratio(shapes, layout),
            speds="patch_embed1.proj_res_conv.weight" in shapes,
            neuron="plif" if any(key.endswith("_lif.w") for key in shapes) else "lif",
            time_steps=time_steps if time_steps is not None else usual.time_steps,
            merge_batch_into_time=True,
        )
    except UsageError as error:
        raise _impossible(layout, error) from error


def _impossible(layout: Layout, error: UsageError) -> CheckpointError:
    wrong = {"heads": "--heads", "image_size": "--image-size"}
    option = next((option for name, option in wrong.items() if name in error.message), None)
    hint = f"give {option}, which a state dict does not hold" if option else _HINT
    return CheckpointError(f"looks like the {layout} layout of QKFormer, but {error.message}", hint=hint)


def _layout(shapes: Shapes) -> Layout:
    blocks = {match[1] for key in shapes if (match := re.match(r"stage\d+\.\d+\.mlp\.(fc1|mlp1)_conv\.weight$", key))}
    if _FIRST_CONV in shapes and _HEAD in shapes and len(blocks) == 1:
        if blocks == {"fc1"}:
            return "imagenet"
        return "dvs" if "patch_embed1.proj3_conv.weight" in shapes else "cifar"
    raise CheckpointError(
        f"no known architecture: looked for {_FIRST_CONV}, {_HEAD} and stage1.0.mlp.fc1_conv.weight or "
        f"stage1.0.mlp.mlp1_conv.weight among {len(shapes)} tensors{_examples(shapes)}",
        hint=_HINT,
    )


def _examples(shapes: Shapes) -> str:
    first = [key if len(key) <= 60 else key[:57] + "..." for key in list(shapes)[:3]]
    return f" ({', '.join(first)}{', ...' if len(shapes) > 3 else ''})" if first else ""


def not_stored(shapes: Shapes) -> NotStored:
    """What is taken for that which a state dict does not show, and why.

    Raises:
        CheckpointError: no QKFormer has these tensors.
    """
    layout = _layout(shapes)
    seen = layout, _shape(shapes, _HEAD, 2)[1], _shape(shapes, _FIRST_CONV, 4)[1]
    for name, config in BUILDS.items():
        if (config.layout, config.embed_dim, config.in_channels) == seen:
            return NotStored(config.heads, config.time_steps, config.image_size, f"published for {name}")
    return LAYOUT_DEFAULTS[layout]


def _heads(given: int | Sequence[int] | None, usual: tuple[int, ...], count: int) -> tuple[int, ...]:
    if given is None:
        return usual
    return (given,) * count if isinstance(given, int) else tuple(given)


def _shape(shapes: Shapes, key: str, rank: int) -> tuple[int, ...]:
    if key not in shapes:
        raise CheckpointError(f"the tensor {key} is missing", hint=_HINT)
    shape = tuple(shapes[key])
    if len(shape) != rank:
        raise CheckpointError(f"{key} has shape {shape}, {rank} dimensions were expected", hint=_HINT)
    return shape


def _depth(shapes: Shapes, stage: int) -> int:
    found = {int(match[1]) for key in shapes if (match := re.match(rf"stage{stage}\.(\d{{1,6}})\.", key))}
    if not found or found != set(range(len(found))):
        raise CheckpointError(
            f"stage{stage} should hold blocks 0, 1, 2 ...; found {sorted(found)[:12] or 'none'}", hint=_HINT
        )
    return len(found)


def _attention(shapes: Shapes, stage: int) -> Attention:
    names = {match[1] for key in shapes if (match := re.match(rf"stage{stage}\.\d+\.(\w+)\.q_conv\.weight$", key))}
    kinds: dict[str, Attention] = {"tssa": "qkta", "cssa": "qkca", "attn": "ssa", "ssa": "ssa"}
    if len(names) == 1 and (name := next(iter(names))) in kinds:
        return kinds[name]
    raise CheckpointError(
        f"stage{stage} should hold one kind of attention ({', '.join(kinds)}); "
        f"found {', '.join(sorted(names)) or 'none'}",
        hint=f"{_HINT}; the kinds of attention are {', '.join(get_args(Attention))}",
    )


def _mlp_ratio(shapes: Shapes, layout: Layout) -> float:
    prefix = "fc1" if layout == "imagenet" else "mlp1"
    ratios: set[float] = set()
    for key in shapes:
        if re.match(rf"stage\d+\.\d+\.mlp\.{prefix}_conv\.weight$", key):
            hidden, dim = _shape(shapes, key, 4)[:2]
            if dim < 1:
                raise CheckpointError(f"{key} has no input channels", hint=_HINT)
            ratios.add(hidden / dim)
    if len(ratios) != 1:
        raise CheckpointError(f"blocks differ in MLP ratio: {', '.join(map(str, sorted(ratios)))}", hint=_HINT)
    return next(iter(ratios))
