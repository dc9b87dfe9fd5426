"""Networks fitted to data without training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qkf_deploy.calibration.carry import Setting, compare_modes, leftovers
from qkf_deploy.calibration.carry_report import CarryReport
from qkf_deploy.calibration.options import CalibrateOptions
from qkf_deploy.datasets import images as reading
from qkf_deploy.datasets.images import Images
from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.keywords import part, takes
from qkf_deploy.options import DataOptions, Part
from qkf_deploy.passes.carry import channel_means, merged, with_carry
from qkf_deploy.pipeline.networks import load
from qkf_deploy.simulators import engines


@dataclass(frozen=True)
class Calibration:
    """A calibrated network, and what was found on the way.

    Attributes:
        graph: the network.
        carry: the carry modes side by side; ``None`` where carry was not asked for.
        notices: sentences about the images that the user should read.
    """

    graph: Graph
    carry: CarryReport | None = None
    notices: tuple[str, ...] = ()


@takes(CalibrateOptions)
def calibrate(source: str | Path | Graph, data: str | Path | Images, options: CalibrateOptions) -> Calibration:
    """Fit a network to images: leftover membranes for neurons whose time axis the model merged with the batch.

    Some of the images, drawn by ``seed``, run as one batch with carry ``official``; what the last of them leaves is
    stored. All modes answer the other images, or the held-out ones.

    Args:
        source: a ``.qkf`` file or a graph, float or integer.
        data: images like those of the training, as :func:`load_images` takes or gives them; labels are used if known.

    Raises:
        UsageError: nothing to calibrate, no such neuron, or too few images.
        InputError: a network or images that cannot be used.
        UnsupportedError: ``per_channel`` of a neuron whose channels are not known.
        ProofError: a membrane without bound when images carry it over.
    """
    if options.carry is None:
        raise UsageError("nothing to calibrate", hint="say what with --carry")
    if options.per_channel and options.carry != "stored":
        raise UsageError("--per-channel is about stored leftovers", hint="use it with --carry stored")
    graph = source if isinstance(source, Graph) else load(source)
    merged(graph)
    sample = _images(data, graph, options, "train")
    held_out = None if options.held_out is None else _images(options.held_out, graph, options, "test")
    return _carried(graph, sample, held_out, options)


def _images(given: str | Path | Images, graph: Graph, options: CalibrateOptions, role: Part) -> Images:
    if isinstance(given, Images):
        return given
    chosen = part(options, DataOptions)
    try:
        return reading.load(given, graph, **{**chosen, "part": options.part or role})
    except UsageError:  # images that are not kept in parts
        return reading.load(given, graph, **chosen)


def _carried(graph: Graph, sample: Images, held_out: Images | None, options: CalibrateOptions) -> Calibration:
    chain, rest = _split(sample, options.chain, options.seed)
    if held_out is None and not len(rest.array):
        raise UsageError(
            f"{len(sample.array)} images, and all of them are in the chain", hint="give more, --chain or --held-out"
        )
    left = leftovers(graph, chain)
    scored = rest if held_out is None else held_out
    setting = Setting(options.batch_size, len(chain), options.engine, engines.given(options), options.progress)
    report = compare_modes(graph, scored.array, scored.labels, left, setting)
    if options.per_channel:
        left = {name: channel_means(graph, name, value) for name, value in left.items()}
    mode = options.carry or "own"
    calibrated = with_carry(graph, mode, left if mode == "stored" else None)
    said = dict.fromkeys((*sample.notices, *(held_out.notices if held_out else ()), *report.notes))
    return Calibration(calibrated, report, tuple(said))


def _split(sample: Images, chain: int, seed: int) -> tuple[np.ndarray, Images]:
    """The images of the chain, in random order, and the others in the order of the data."""
    order = np.random.default_rng(seed).permutation(len(sample.array))
    others = np.sort(order[chain:])
    labels = None if sample.labels is None else sample.labels[others]
    rest = replace(sample, array=sample.array[others], names=[sample.names[i] for i in others], labels=labels)
    return sample.array[order[:chain]], rest
