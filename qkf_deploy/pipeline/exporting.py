"""Networks for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.keywords import checked, takes
from qkf_deploy.options import NirMode, OnnxOptions, RunFormat

if TYPE_CHECKING:
    from qkf_deploy.converters.export_check import CheckResult
    from qkf_deploy.hw_models.architecture.chip import Chip


@checked
def export_nir(graph: Graph, path: str | Path, mode: NirMode = "portable") -> str:
    """Write NIR and say what was written.

    Args:
        graph: float or integer.
        path: a file, for ``partitioned`` and ``chains`` a directory.
        mode: ``portable`` (stock nodes only), ``annotated`` (marked stand-ins) ``partitioned`` (stock parts)
            or ``chains`` (stock parts without branches).

    Raises:
        UnsupportedError: ``portable`` and nodes that stock NIR cannot say, all listed.
        UsageError: another mode.
        MissingComponent: nir is not installed.
    """
    from qkf_deploy.converters.nir import export, partition

    if mode in ("partitioned", "chains"):
        planned = partition.export_parts(graph, path, chains=mode == "chains")
        return f"{quantity(len(planned.parts), 'stock part')} and a manifest"
    if mode not in ("portable", "annotated"):
        raise UsageError(f"no NIR mode {mode!r}", hint="portable, annotated, partitioned or chains")
    export.export_nir(graph, path, mode)
    if mode == "portable":
        return "stock nodes only"
    return f"annotated, {quantity(len(export.offenders(graph)), 'marked stand-in')}"


@checked
def export_run(path: str | Path, folder: str | Path, fmt: RunFormat = "csv", run: int | str | None = None) -> None:
    """Write a stored run as tables: ``samples``, ``counts`` (per sample and layer), and ``run.json`` about both.

    Args:
        path: of the run file.
        folder: a place where nothing is, or an empty folder.
        fmt: ``csv``, ``json`` or ``parquet``.
        run: number or name of a run, where the file holds several.

    Raises:
        UsageError: another format, or several runs and none chosen.
        InputError: a damaged run file, or a folder that cannot be written.
        MissingComponent: parquet, and pyarrow is not installed.
    """
    from qkf_deploy.runs.tables import write_tables

    if fmt not in get_args(RunFormat):
        raise UsageError(f"no format {fmt!r}", hint=", ".join(get_args(RunFormat)))
    write_tables(path, folder, fmt, run)


@takes(OnnxOptions)
def export_onnx(graph: Graph, path: str | Path, options: OnnxOptions) -> None:
    """Write a checked ONNX file.

    Args:
        graph: float or integer.
        path: of the file.

    Raises:
        UnsupportedError: nodes that ONNX cannot say exactly, all of them listed.
        InputError: the place cannot be written.
        MissingComponent: onnx is not installed.
    """
    from qkf_deploy.converters.onnx import export

    export.export_onnx(graph, path, options)


@checked
def export_memory(graph: Graph, folder: str | Path) -> Path:
    """Write the parameters of an integer graph as hexadecimal memory files (``$readmemh``); returns their manifest.

    Args:
        graph: integer graph.
        folder: new or empty.

    Raises:
        UsageError: a float graph.
        InputError: the folder has files, or cannot be written.
    """
    from qkf_deploy.converters.memory_files import export_memory as write

    return write(graph, folder)


@checked
def export_lava(graph: Graph, folder: str | Path) -> Path:
    """Write an integer graph as a Lava script and its weights; returns the script.

    Args:
        graph: integer graph.
        folder: new or empty.

    Raises:
        UsageError: a float graph.
        UnsupportedError: neurons that carry their membrane from image to image.
        InputError: the folder has files, or cannot be written.
    """
    from qkf_deploy.converters.lava import export_lava as write

    return write(graph, folder)


@checked
def export_sana_fe(
    graph: Graph, folder: str | Path, chip: Chip | str | Path = "loihi1", images: np.ndarray | None = None
) -> tuple[str, ...]:
    """Write a mapped network and the traffic of one image for the simulator SANA-FE.

    The folder gets ``architecture.yaml``, ``network.yaml``, ``expected.json`` (energy and time of this package's
    model) and ``run.py``, which runs them; see :mod:`qkf_deploy.hw_models.timing.sana_fe` for what is replayed how.

    Args:
        graph: integer graph.
        folder: new or empty.
        chip: a name, the path of a TOML file, or a loaded chip; all layers must find a place on it.
        images: as in :func:`simulate`; the first is used. Random pixels by default.

    Returns:
        Sentences about what SANA-FE cannot say.

    Raises:
        UsageError: a float graph, layers without a place, a chip without a network or with multicast, several chips,
            or a network too large.
        InputError: the folder has files, or cannot be written.
        UsageError, ProfileError: an unknown chip, or a file that breaks the schema.
    """
    from qkf_deploy.converters.export_check import sample_images
    from qkf_deploy.hw_models.architecture.reading import load_chip
    from qkf_deploy.hw_models.mapping import map_network
    from qkf_deploy.hw_models.timing.network import schedule_of
    from qkf_deploy.hw_models.timing.sana_fe import write_sana_fe
    from qkf_deploy.pipeline.running import event_values
    from qkf_deploy.writing import check_folder

    check_folder(Path(folder))
    mapping = map_network(graph, load_chip(chip) if isinstance(chip, str | Path) else chip)
    values = event_values(graph, sample_images(graph) if images is None else images)
    return write_sana_fe(schedule_of(graph, mapping, values), folder)


@checked
def check_export(
    graph: Graph, form: Literal["onnx", "portable", "partitioned", "chains"], images: np.ndarray | None = None
) -> list[CheckResult]:
    """Run an export in every installed client and compare with the reference engine.

    Args:
        graph: float or integer.
        form: ``onnx``, ``portable``, ``partitioned`` or ``chains``.
        images: as in :func:`simulate`; by default random pixels.

    Returns:
        One result per client.

    Raises:
        UsageError: another form.
        MissingComponent, CheckFailed: nothing could be compared.
    """
    from qkf_deploy.converters import export_check

    checks = {
        "onnx": export_check.check_onnx,
        "portable": export_check.check_portable,
        "partitioned": export_check.check_partitioned,
        "chains": export_check.check_chains,
    }
    if form not in checks:
        raise UsageError(f"no check of {form!r}", hint=f"one of {', '.join(checks)}")
    results = checks[form](graph, export_check.sample_images(graph) if images is None else images)
    export_check.require_compared(results)
    return results
