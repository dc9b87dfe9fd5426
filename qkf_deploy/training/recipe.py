"""How to train: options, and the recipes of the named builds. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from qkf_deploy.errors import UsageError
from qkf_deploy.keywords import Help
from qkf_deploy.options import BITS, DataOptions, Options, Part, TraceOptions

Precision = Literal["float32", "bfloat16", "float16"]
Carry = Literal["own", "official"]
_BITS = ", ".join(map(str, BITS))


@dataclass(frozen=True, kw_only=True)
class Recipe(Options):
    """Everything that decides the trained weights, together with architecture, data and library versions.

    A step of the optimizer sees one batch of ``batch_size`` images in ``micro_batches`` equal parts. Batch norm
    statistics, augmentation and, with ``carry="official"``, leftover membranes belong to one part; gradients are
    averaged over all of them. Processes share the parts, so that their number changes nothing but the order of sums.

    Raises:
        UsageError: a value beyond its limits, parts that do not divide the batch, a warm-up longer than the training.
    """

    epochs: Annotated[int, Help("Passes over the training images.", least=1)] = 20
    batch_size: Annotated[int, Help("Images per step of the optimizer, over all processes.", least=1)] = 64
    micro_batches: Annotated[
        int, Help("Equal parts of a batch, worked on one after another or by several processes.", least=1)
    ] = 1
    learning_rate: Annotated[float, Help("Of AdamW, after the warm-up.", least=0.0)] = 4e-3
    min_learning_rate: Annotated[float, Help("At the end of the cosine.", least=0.0)] = 0.0
    warmup_learning_rate: Annotated[float, Help("At the first step.", least=0.0)] = 0.0
    warmup_epochs: Annotated[float, Help("Epochs of linear warm-up.", least=0.0)] = 1.0
    weight_decay: Annotated[float, Help("Of AdamW, on weights that are matrices or kernels.", least=0.0)] = 0.02
    clip_norm: Annotated[float, Help("Largest norm of all gradients together; 0: no limit.", least=0.0)] = 0.0
    label_smoothing: Annotated[float, Help("Share of the label spread over all classes.", least=0.0, most=0.99)] = 0.05
    shift: Annotated[int, Help("Random shifts by up to this many pixels.", least=0)] = 0
    flip: Annotated[float, Help("Probability of a mirrored image.", least=0.0, most=1.0)] = 0.0
    rand_augment: Annotated[
        int, Help("RandAugment operations per image (arXiv 1909.13719); 0: none.", least=0, most=16)
    ] = 0
    rand_magnitude: Annotated[float, Help("Their strength, 1 is the strongest.", least=0.0, most=1.0)] = 0.9
    erase: Annotated[float, Help("Probability of random erasing (arXiv 1708.04896).", least=0.0, most=1.0)] = 0.0
    mixup: Annotated[float, Help("Parameter of mixup's beta distribution (arXiv 1710.09412); 0: none.", least=0.0)] = (
        0.0
    )
    mixup_epochs: Annotated[int, Help("Epochs with mixup; 0: all of them.", least=0)] = 0
    drop_path: Annotated[
        float, Help("Stochastic depth (arXiv 1603.09382) of the last block, rising from 0.", least=0.0, most=0.99)
    ] = 0.0
    precision: Annotated[Precision, Help("Of convolutions and products; weights stay float32.")] = "float32"
    carry: Annotated[
        Carry,
        Help(
            "Where the last neuron of self-attention starts. own: at rest, for every image; official: it takes the "
            "images of a batch for time steps, as the official files do."
        ),
    ] = "own"
    seed: Annotated[int, Help("Of initial weights, order and augmentation.", least=0)] = 0
    threads: Annotated[int, Help("CPU threads per process; their number decides how sums are ordered.", least=1)] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.micro_batches:
            raise UsageError(
                f"a batch of {self.batch_size} images has no {self.micro_batches} equal parts",
                hint="choose --micro-batches that divide --batch-size",
            )
        if self.warmup_epochs > self.epochs:
            raise UsageError(f"{self.warmup_epochs:g} epochs of warm-up, {self.epochs} epochs in all")


@dataclass(frozen=True, kw_only=True)
class ExampleOptions(DataOptions):
    """Which images are learned from, which measure, and where."""

    held_out: Annotated[str | Path | None, Help("Images to measure accuracy on after each epoch.", metavar="DATA")] = (
        None
    )
    part: Annotated[
        Part | None,
        Help(
            "Part of data sets that keep a training and a test part apart [default: train for --data, test for "
            "--held-out]."
        ),
    ] = None
    device: Annotated[str, Help("Device: cpu, cuda or cuda:N.")] = "cpu"


@dataclass(frozen=True, kw_only=True)
class TrainOptions(ExampleOptions):
    """What is trained on what, and where."""

    classes: Annotated[int | None, Help("Outputs of the network [default: as the build has it].", least=1)] = None
    image_size: Annotated[int | None, Help("Height and width in pixels.", least=1, most=4096)] = None
    in_channels: Annotated[int | None, Help("Input channels.", least=1)] = None
    time_steps: Annotated[int | None, Help("T.", least=1, most=4096)] = None
    mean: Annotated[
        Sequence[float] | None, Help("Mean per channel of pixels in 0..1 [default: measured on the images].")
    ] = None
    std: Annotated[Sequence[float] | None, Help("Standard deviation per channel, likewise.")] = None
    recipe: Annotated[Recipe | None, Help("How to train [default: the recipe of the build].", command_line=False)] = (
        None
    )
    report: Annotated[
        Callable[[dict[str, Any]], None] | None,
        Help("Called after every epoch with its entry of the log.", command_line=False),
    ] = None


#: The official repository's cifar10.yml and cifar100.yml (zhouchenlin2096/QKFormer), with three differences: kornia's
#: operations instead of timm's (magnitude 9 of 10 without its noise), no cool-down epochs, and the clean carry.
_CIFAR: Mapping[str, Any] = dict(
    epochs=400,
    learning_rate=1e-3,
    min_learning_rate=1e-5,
    warmup_learning_rate=1e-5,
    warmup_epochs=20,
    weight_decay=6e-2,
    label_smoothing=0.1,
    flip=0.5,
    rand_augment=1,
    erase=0.25,
    mixup=0.5,
    mixup_epochs=200,
    precision="float16",
)
#: The official imagenet/train.py: 6e-4 per 256 images of the batch, 200 epochs, five of warm-up. Its stochastic depth
#: is an argument that the official blocks do not use.
_IMAGENET: Mapping[str, Any] = dict(
    epochs=200,
    batch_size=512,
    micro_batches=8,
    learning_rate=1.2e-3,
    min_learning_rate=1e-6,
    warmup_epochs=5,
    weight_decay=0.05,
    label_smoothing=0.1,
    flip=0.5,
    rand_augment=2,
    erase=0.25,
    precision="float16",
)

_RECIPES: Mapping[str, Mapping[str, Any]] = {
    "qkformer-digits": {"shift": 2},
    "qkformer-animals": {"shift": 2, "flip": 0.5, "erase": 0.25, "label_smoothing": 0.1},
    "qkformer-4-384-cifar10": _CIFAR,
    "qkformer-4-384-cifar100": _CIFAR,
    "qkformer-10-384": _IMAGENET,
    "qkformer-10-512": _IMAGENET,
    "qkformer-10-768": _IMAGENET,
}


def recipe_of(arch: str) -> Recipe:
    """The recipe of a named build; where it has none of its own, the defaults."""
    return Recipe(**_RECIPES.get(arch, {}))


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TraceOptions, ExampleOptions):
    """What is trained on in integers, and where."""

    bits: Annotated[int, Help(f"Bits per weight: {_BITS}.")] = 8
    first_bits: Annotated[
        int | None, Help("Bits of the first synapse, which sees pixels [default: the larger of bits and 8].")
    ] = None
    layer_bits: Annotated[Mapping[str, int], Help("Bits of single layers, by node name.", metavar="NODE=BITS")] = field(
        default_factory=dict[str, int]
    )
    start: Annotated[
        int,
        Help("Training images that the first integers are fitted to; 0: to none, only to the weights.", least=0),
    ] = 64
    recipe: Annotated[
        Mapping[str, Any],
        Help("Fields of :class:`Recipe` that differ from those of :func:`finetune_recipe`.", command_line=False),
    ] = field(default_factory=dict[str, Any])
    report: Annotated[
        Callable[[dict[str, Any]], None] | None,
        Help("Called after every epoch with its entry of the log.", command_line=False),
    ] = None


#: How images of a build are changed, which fine-tuning takes over; and what else it starts from.
_CHANGES = ("shift", "flip", "rand_augment", "erase")
_FINETUNE: Mapping[str, Any] = dict(epochs=3, learning_rate=1e-3, warmup_epochs=0.1, weight_decay=0.0)


def finetune_recipe(arch: str | None = None) -> Recipe:
    """The recipe of fine-tuning: a few epochs, with the changes of the images that the build is trained with."""
    own = {} if arch is None else vars(recipe_of(arch))
    return Recipe(**_FINETUNE, **{name: own[name] for name in _CHANGES if name in own})
