"""Networks fitted to data without training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qkf_deploy.calibration.carry import Setting, compare_modes, leftovers
from qkf_deploy.calibration.carry_report import CarryReport
from qkf_deploy.calibration.fit_report import FitReport
from qkf_deploy.calibration.methods import METHODS
from qkf_deploy.calibration.options import CalibrateOptions
from qkf_deploy.datasets import images as reading
from qkf_deploy.datasets.images import Images
from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ir.needs import need_floats
from qkf_deploy.keywords import changed, part, takes
from qkf_deploy.models.lazy import import_torch_module
from qkf_deploy.options import DataOptions, Part, QuantizeOptions
from qkf_deploy.passes.carry import channel_means, merged, with_carry
from qkf_deploy.passes.quantize import quantize
from qkf_deploy.pipeline.networks import load
from qkf_deploy.simulators import engines


@dataclass(frozen=True)
class Calibration:
    """A calibrated network, and what was found on the way.

    Attributes:
        graph: the network.
        carry: the carry modes side by side; ``None`` where carry was not asked for.
        fit: integers fitted to images, layer by layer; ``None`` where bits were not asked for.
        notices: sentences about the images that the user should read.
    """

    graph: Graph
    carry: CarryReport | None = None
    fit: FitReport | None = None
    notices: tuple[str, ...] = ()


@takes(CalibrateOptions)
def calibrate(source: str | Path | Graph, data: str | Path | Images, options: CalibrateOptions) -> Calibration:
    """Fit a network to images without training: integers of few bits, leftovers of membranes carried over a batch.

    With ``bits`` the network becomes an integer network; scales, biases and the way weights round are those with which
    its neurons do least wrong on ``sample`` images, drawn by ``seed`` (docs/low-bits.md). What they were fitted to
    stands in the network's provenance.

    With ``carry`` some of the images, drawn by ``seed``, run as one batch with carry ``official``; what the last of
    them leaves, or the mean of what the last ``average`` of them leave, is stored for neurons whose time axis the model
    merged with the batch. All modes answer the other images, or the held-out ones.

    Args:
        source: a ``.qkf`` file or a graph, float or integer.
        data: images like those of the training, as :func:`load_images` takes or gives them; labels are used if known.

    Raises:
        UsageError: nothing to calibrate, no such neuron, or too few images.
        InputError: a network or images that cannot be used.
        UnsupportedError: ``per_channel`` of a neuron whose channels are not known.
        ProofError: a membrane without bound when images carry it over.
    """
    if options.carry is None and options.bits is None:
        raise UsageError("nothing to calibrate", hint="say what with --carry or --bits")
    _check_bits(options)
    if (options.per_channel or options.average > 1) and options.carry != "stored":
        given = "--per-channel" if options.per_channel else "--average"
        raise UsageError(f"{given} is about stored leftovers", hint="use it with --carry stored")
    graph = source if isinstance(source, Graph) else load(source)
    if options.carry is not None:
        merged(graph)
    sample = _images(data, graph, options, "train")
    found = Calibration(graph, notices=tuple(sample.notices))
    if options.carry is not None:
        held_out = None if options.held_out is None else _images(options.held_out, graph, options, "test")
        found = _carried(graph, sample, held_out, options)
    return found if options.bits is None else _in_integers(found, sample, options, options.bits)


def _check_bits(options: CalibrateOptions) -> None:
    unknown = [m for m in options.methods or () if m not in METHODS]
    if unknown:
        raise UsageError(f"unknown method {', '.join(unknown)}", hint=f"some of {', '.join(METHODS)}")
    given = set(changed(options)) & {"--first-bits", "--layer-bits", "--sample", "--methods"}
    if options.bits is None and given:
        raise UsageError(f"{', '.join(sorted(given))}: about integers", hint="use it with --bits")
    if options.carry is None and options.held_out is not None:
        raise UsageError("--held-out: compares carry modes", hint="use it with --carry, or `qkf-deploy evaluate`")


def _in_integers(found: Calibration, images: Images, options: CalibrateOptions, bits: int) -> Calibration:
    """The integer network with what was fitted."""
    need_floats(found.graph, "calibrate")
    fitting = import_torch_module("qkf_deploy.calibration.low_bits")
    drawn = np.random.default_rng(options.seed).permutation(len(images.array))[: options.sample]
    chosen = images.array[np.sort(drawn)]
    quantization = QuantizeOptions(bits, first_bits=options.first_bits, layer_bits=options.layer_bits)
    methods = tuple(METHODS if options.methods is None else options.methods)
    graph, layers = fitting.calibrated(found.graph, chosen, quantization, methods, options.progress)
    report = FitReport(layers, len(chosen), hashlib.sha256(chosen.tobytes()).hexdigest(), methods)
    said = (
        f"{', '.join(report.methods)} fitted to {quantity(report.images, 'image')}, seed {options.seed}, "
        f"sha256 {report.digest}"
    )
    integers = quantize(replace(graph, provenance={**graph.provenance, "calibrate": said}), quantization)
    return replace(found, graph=integers, fit=report)


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
    left = leftovers(graph, chain, options.average)
    scored = rest if held_out is None else held_out
    setting = Setting(
        options.batch_size, len(chain), options.average, options.engine, engines.given(options), options.progress
    )
    report = compare_modes(graph, scored.array, scored.labels, left, setting)
    if options.per_channel:
        left = {name: channel_means(graph, name, value) for name, value in left.items()}
    mode = options.carry or "own"
    calibrated = with_carry(graph, mode, left if mode == "stored" else None)
    said = dict.fromkeys((*sample.notices, *(held_out.notices if held_out else ()), *report.notes))
    return Calibration(calibrated, report, notices=tuple(said))


def _split(sample: Images, chain: int, seed: int) -> tuple[np.ndarray, Images]:
    """The images of the chain, in random order, and the others in the order of the data."""
    order = np.random.default_rng(seed).permutation(len(sample.array))
    others = np.sort(order[chain:])
    labels = None if sample.labels is None else sample.labels[others]
    rest = replace(sample, array=sample.array[others], names=[sample.names[i] for i in others], labels=labels)
    return sample.array[order[:chain]], rest
