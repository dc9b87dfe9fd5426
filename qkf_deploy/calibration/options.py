"""What is fitted to images, and how. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from qkf_deploy.keywords import Help
from qkf_deploy.options import BITS, Carry, DataOptions, EngineOptions, Part, Progress

_BITS = ", ".join(map(str, BITS))


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(DataOptions, EngineOptions):
    """What of a network is fitted to images, and how."""

    carry: Annotated[
        Carry | None,
        Help(
            "Membranes of neurons whose time axis the model merged with the batch. own: every image its own; official: "
            "from image to image of a batch, as published; stored: every step starts from a stored leftover."
        ),
    ] = None
    per_channel: Annotated[bool, Help("Store leftovers averaged over all positions of a channel.")] = False
    chain: Annotated[
        int, Help("Images, drawn by --seed, that run as one batch; the last one's leftovers are stored.", least=2)
    ] = 64
    average: Annotated[
        int, Help("Images of the chain, the last ones, whose leftovers are averaged; 1: the last one's alone.", least=1)
    ] = 1
    seed: Annotated[int, Help("Which images they are, and in which order.", least=0)] = 0
    batch_size: Annotated[int, Help("Images per batch of the official mode.", least=1)] = 32
    held_out: Annotated[
        str | Path | None,
        Help("Images that the modes are compared on [default: those that are not in the chain].", metavar="DATA"),
    ] = None
    part: Annotated[
        Part | None,
        Help(
            "Part of data sets that keep a training and a test part apart [default: train for DATA, test for "
            "--held-out]."
        ),
    ] = None
    bits: Annotated[
        int | None, Help(f"Make an integer network of so many bits per weight, fitted to images: {_BITS}.")
    ] = None
    first_bits: Annotated[
        int | None, Help("Bits of the first synapse, which sees pixels [default: the larger of bits and 8].")
    ] = None
    layer_bits: Annotated[Mapping[str, int], Help("Bits of single layers, by node name.", metavar="NODE=BITS")] = field(
        default_factory=dict[str, int]
    )
    sample: Annotated[int, Help("Images, drawn by --seed, that the integers are fitted to.", least=1)] = 128
    methods: Annotated[
        Sequence[str] | None,
        Help(
            "What is fitted, by the spikes of the neuron behind each synapse [default: scale,rounding,bias]. scale: "
            "the scale of every channel; rounding: which way its weights round; bias: its bias."
        ),
    ] = None
    progress: Annotated[Progress | None, Help("Called with (parts done, parts in all).", command_line=False)] = None
