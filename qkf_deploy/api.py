"""The public functions: one per arrow of the pipeline. The command line calls these and nothing else.

checkpoint -trace-> float graph -fold-> float graph -quantize-> integer graph -simulate-> counts -price-> energy
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qkf_deploy import bundle
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger
from qkf_deploy.passes import audit as _audit
from qkf_deploy.passes.fold import fold
from qkf_deploy.passes.quantize import QuantizeOptions
from qkf_deploy.passes.quantize import quantize as _quantize
from qkf_deploy.simulators import engines
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record, Run, join

if TYPE_CHECKING:
    from qkf_deploy.converters.torch.source import Source
    from qkf_deploy.evaluate.agreement import Agreement
    from qkf_deploy.hw_models.pricing import EnergyReport

Progress = Callable[[int, int], None]
#: Values of one batch that an engine may hold at a time, in array elements (int64: 8 bytes each).
_BATCH_ELEMENTS = 40_000_000


def trace(source: Any, **options: Any) -> Graph:
    """Trace a model to a float graph.

    Args:
        source: path of a checkpoint (``.pth``, ``.pt``, ``.safetensors``), ``module:factory``, ``file.py:factory``, or
            an ``nn.Module``.
        **options: fields of :class:`qkf_deploy.converters.torch.source.TraceOptions`: ``checkpoint``, ``arch``,
            ``time_steps``, ``heads``, ``image_size``, ``in_channels``, ``input``, ``preset``, ``mean``, ``std`` ...

    Raises:
        CheckpointError, InputError: a file or factory that cannot be used.
        UnsupportedError: operations without a spiking or integer form, all of them.
        MissingComponent: torch or SpikingJelly is not installed.
    """
    from qkf_deploy.models.lazy import import_torch_module

    loader = import_torch_module("qkf_deploy.converters.torch.source")
    return _trace(loader.resolve(source, _options(loader.TraceOptions, options)))


def _trace(resolved: Source) -> Graph:
    """The float graph of a loaded model."""
    from qkf_deploy.models.lazy import import_torch_module

    tracer = import_torch_module("qkf_deploy.converters.torch.trace")
    spec = tracer.InputSpec(resolved.layout, resolved.shape, resolved.time_steps)
    with resolved.imports.active():
        graph = tracer.trace_module(resolved.model, spec)
    return replace(
        graph,
        preprocessing=resolved.preprocessing,
        class_names=resolved.class_names,
        provenance=dict(resolved.provenance),
        notices=(*resolved.notices, *graph.notices),
    ).verify()


def quantize(graph: Graph, bits: int = 8, **options: Any) -> Graph:
    """Integer graph with width proofs; folds first where needed.

    Args:
        graph: float graph.
        bits: per weight, 2..8, 16, 24 or 32.
        **options: further fields of :class:`qkf_deploy.passes.quantize.QuantizeOptions`.

    Raises:
        UsageError, UnsupportedError, ProofError: see :func:`qkf_deploy.passes.quantize.quantize`.
    """
    return _quantize(graph, _options(QuantizeOptions, {"bits": bits, **options}))


def _options(cls: type, given: Mapping[str, Any]) -> Any:
    """An options object, with the field's name in the error for an unknown one."""
    known = [f.name for f in fields(cls)]
    for name in given:
        if name not in known:
            raise UsageError(f"no option {name!r}", hint=f"there are: {', '.join(known)}")
    return cls(**given)


def simulate(
    graph: Graph,
    images: np.ndarray,
    *,
    record: Sequence[str] | str = (),
    membranes: Sequence[str] | str = (),
    engine: str = "auto",
    batch: int | None = None,
    progress: Progress | None = None,
    **engine_options: Any,
) -> Run:
    """Run a network on images and count every operation.

    Args:
        graph: float (runs in float64) or integer.
        images: ``(B, C, H, W)`` or one ``(C, H, W)``; event frames ``(B, T, C, H, W)`` or ``(T, C, H, W)``. ``uint8``
            are raw pixels, floats are already normalized.
        record: nodes whose output to keep, or ``"all"``.
        membranes: neurons whose charged membrane potential to keep, or ``"all"``.
        engine: ``auto`` (the event engine for integer graphs where it is installed, else the reference), or a name in
            :data:`qkf_deploy.simulators.engines.ENGINES`.
        batch: images per batch; by default what fits a few hundred megabytes.
        progress: called with (images done, images in all).
        **engine_options: passed to the engine, e.g. ``threads`` (event), ``timeout_s`` (lava).

    Raises:
        InputError: images that do not fit the network.
        UsageError, MissingComponent: an engine that is unknown, not installed, or cannot run this graph.
        ProofError: stored widths that the weights do not support.
    """
    run = engines.get(engine, graph, engine_options)
    recorded = Record.of(graph, record, membranes)
    encoded, notices = encode(graph, images)
    total = encoded.shape[1]
    size = batch or default_batch(graph)
    parts = []
    for start in range(0, total, size):
        parts.append(run(graph, encoded[:, start : start + size], recorded, None))
        if progress is not None:
            progress(min(start + size, total), total)
    joined = join(parts)
    return replace(joined, notices=(*notices, *joined.notices))


def default_batch(graph: Graph) -> int:
    """Images per batch so that the largest values stay within a few hundred megabytes."""
    largest = max(node.type.size for node in graph) * graph.time_steps
    return max(1, _BATCH_ELEMENTS // (4 * largest))


def price(ledger: Ledger, profile: str | Path = "paper-eq23") -> EnergyReport:
    """Energy of a run under a price profile (a name, or the path of a TOML file).

    Raises:
        UsageError, ProfileError: an unknown profile, or a file that breaks the schema.
    """
    from qkf_deploy.hw_models.pricing import price as _price

    return _price(ledger, profile)


def verify(
    graph: Graph, images: np.ndarray, against: Any, *, batch: int = 16, progress: Progress | None = None, **options: Any
) -> tuple[Agreement, Agreement]:
    """Compare layer by layer: torch model (float64, batch size 1), float graph, integer graph.

    Args:
        graph: the integer (or float) graph in question.
        images: as in :func:`simulate`.
        against: the model it came from, as :func:`trace` takes it.
        batch: images per batch.
        progress: called with (images done, images in all).
        **options: options of :func:`trace`.

    Returns:
        (float graph against torch, ``graph`` against float graph).
    """
    from qkf_deploy.evaluate.agreement import compare_chain
    from qkf_deploy.models.lazy import import_torch_module

    loader = import_torch_module("qkf_deploy.converters.torch.source")
    runner = import_torch_module("qkf_deploy.converters.torch.run")
    options.setdefault("time_steps", graph.time_steps)
    resolved = loader.resolve(against, _options(loader.TraceOptions, options))
    floating = fold(_trace(resolved))  # the same object for both: a factory without a checkpoint has random weights
    _check_same_input(graph, floating)
    images = _as_batch(graph, images)
    oracle = runner.torch_oracle(resolved)
    torch_float, float_graph = compare_chain(oracle, (floating, graph), images, batch, progress)
    return torch_float, float_graph


def _check_same_input(graph: Graph, other: Graph) -> None:
    if graph.input.type.shape != other.input.type.shape or graph.time_steps != other.time_steps:
        raise InputError(
            f"the network takes {graph.input.type.shape} at T={graph.time_steps}, "
            f"the model {other.input.type.shape} at T={other.time_steps}",
            hint="trace options such as --image-size and --time-steps must be the same",
        )


def _as_batch(graph: Graph, images: np.ndarray) -> np.ndarray:
    encode(graph, images[:1] if images.ndim > 3 else images)
    rank = len(graph.input.type.shape) + (2 if graph.input_encoding == "frames" else 1)
    return images if images.ndim == rank else images[None]


def compare(
    graph: Graph, reference: Graph, images: np.ndarray, *, batch: int = 16, progress: Progress | None = None
) -> Agreement:
    """Spike agreement of a graph with another graph of the same network, forced and free."""
    from qkf_deploy.evaluate.agreement import compare_chain, graph_oracle

    return compare_chain(graph_oracle(reference), (graph,), _as_batch(graph, images), batch, progress)[0]


def audit(graph: Graph) -> tuple[_audit.Finding, ...]:
    """Spike audit: what every synapse is driven by, and what breaks the spike-driven claim."""
    return _audit.audit(graph)


def carry(graph: Graph, mode: Literal["own", "official", "stored"], images: np.ndarray | None = None) -> Graph:
    """How neurons whose time axis the model merged with the batch carry their membrane (docs/front-end.md).

    Args:
        graph: float graph.
        mode: ``own`` each image its own; ``official`` images one after the other, as the published code runs;
            ``stored`` every step starts from the leftover of a chain of calibration images.
        images: calibration images for ``stored``.
    """
    from qkf_deploy.evaluate.carry import carry as _carry

    return _carry(graph, mode, images)


def save(graph: Graph, path: str | Path) -> None:
    """Write a `.qkf` file, atomically."""
    bundle.save_graph(graph, path)


def load(path: str | Path) -> Graph:
    """Read a `.qkf` file; integer graphs get their width proofs checked again.

    Raises:
        InputError: not a readable `.qkf` file.
        ProofError: stored widths narrower than the weights can reach.
    """
    from qkf_deploy.passes.widths import check

    graph = bundle.load_graph(path)
    if graph.arithmetic == "integer":
        check(graph)
    return graph


__all__ = [
    "audit",
    "carry",
    "compare",
    "default_batch",
    "fold",
    "load",
    "price",
    "quantize",
    "save",
    "simulate",
    "trace",
    "verify",
]


def export_lava(graph: Graph, folder: str | Path) -> Path:
    """Write an integer graph as a Lava script and its weights; returns the script.

    Raises:
        UnsupportedError: a float graph, or neurons that carry their membrane from image to image.
        InputError: the folder has files, or cannot be written.
    """
    from qkf_deploy.converters.lava import export_lava as write

    return write(graph, folder)


def export_onnx(graph: Graph, path: str | Path, *, form: Any = "step", precision: Any = "float32") -> None:
    """Write an ONNX file; see :func:`qkf_deploy.converters.onnx.export.export_onnx`."""
    from qkf_deploy.converters.onnx import export as onnx_export

    onnx_export.export_onnx(graph, path, onnx_export.OnnxOptions(form, precision))


def export_nir(graph: Graph, path: str | Path, mode: str = "portable") -> str:
    """Write NIR and say what was written.

    Args:
        graph: float or integer.
        path: a file, for ``partitioned`` a directory.
        mode: ``portable`` (stock nodes only), ``annotated`` (marked stand-ins) or ``partitioned`` (stock parts).

    Raises:
        UnsupportedError: ``portable`` and nodes that stock NIR cannot say, all listed.
        UsageError: another mode.
    """
    from qkf_deploy.converters.nir import export, partition

    if mode == "partitioned":
        return f"{len(partition.export_parts(graph, path).parts)} stock parts and a manifest"
    if mode not in ("portable", "annotated"):
        raise UsageError(f"no NIR mode {mode!r}", hint="portable, annotated or partitioned")
    export.export_nir(graph, path, mode)  # type: ignore[arg-type]  # checked above
    if mode == "portable":
        return "stock nodes only"
    return f"annotated, {len(export.offenders(graph))} marked stand-ins"


def import_nir(path: str | Path, **options: Any) -> Graph:
    """Read a NIR file; options of :class:`qkf_deploy.converters.nir.read.ImportOptions`."""
    from qkf_deploy.converters.nir import read

    return read.import_nir(path, _options(read.ImportOptions, options))


def check_export(graph: Graph, form: str, images: np.ndarray | None = None) -> list[Any]:
    """Run an export in every installed client and compare with the reference engine.

    Args:
        graph: float or integer.
        form: ``onnx``, ``portable`` or ``partitioned``.
        images: as in :func:`simulate`; by default random pixels.

    Returns:
        :class:`qkf_deploy.converters.export_check.CheckResult` per client.

    Raises:
        MissingComponent, CheckFailed: nothing could be compared.
    """
    from qkf_deploy.converters import export_check

    checks = {
        "onnx": export_check.check_onnx,
        "portable": export_check.check_portable,
        "partitioned": export_check.check_partitioned,
    }
    results = checks[form](graph, export_check.sample_images(graph) if images is None else images)
    export_check.require_compared(results)
    return results
