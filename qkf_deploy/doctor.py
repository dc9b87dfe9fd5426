"""What is installed, what each optional part needs, and whether the engines that are here agree."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

import numpy as np
from packaging.requirements import Requirement

from qkf_deploy import ops
from qkf_deploy.errors import MissingComponent, QkfError, told
from qkf_deploy.ir import Graph, GraphBuilder, Operand, Preprocessing, View
from qkf_deploy.passes.quantize import QuantizeOptions, quantize
from qkf_deploy.simulators import engines, reference
from qkf_deploy.simulators.lava.environment import find_lava
from qkf_deploy.simulators.run import Record, Run

_PACKAGE = "qkf-deploy"
#: Extras that a user installs, not those of developers.
_EXTRAS = ("torch", "event", "data", "onnx", "nir", "report", "cluster")
_SELF_TEST_SECONDS = 60.0

Status = Literal["ok", "missing", "failed"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: ``python``, ``core``, ``extra`` or ``engine``.
        name: what was looked at.
        status: ``missing`` for optional parts that are not there, ``failed`` for what should work and does not.
        detail: versions, or what is wrong.
        hint: the next step, or "".
    """

    area: str
    name: str
    status: Status
    detail: str
    hint: str = ""


def examine(*, lava: bool = True) -> list[Finding]:
    """Look at everything.

    Args:
        lava: start Lava too (it takes a few seconds).
    """
    python = Finding("python", "python", "ok", f"{platform.python_version()} on {platform.system()}")
    return [python, *_packages(), *_engines(lava)]


def _packages() -> Iterator[Finding]:
    requirements = [Requirement(text) for text in metadata.requires(_PACKAGE) or ()]
    yield _part("core", _PACKAGE, [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})])
    for extra in _EXTRAS:
        needed = [
            r for r in requirements if r.marker and "extra" in str(r.marker) and r.marker.evaluate({"extra": extra})
        ]
        yield _part("extra", extra, needed)


def _part(area: str, name: str, requirements: list[Requirement]) -> Finding:
    """Whether all packages of a part are there in versions that fit."""
    found, absent, unfit = [], [], []
    for requirement in requirements:
        version = _version(requirement.name)
        if version is None:
            absent.append(requirement.name)
        elif requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} {version}")
        else:
            unfit.append(f"{requirement.name} {version} (needs {requirement.specifier})")
    hint = f"pip install '{_PACKAGE}[{name}]'" if area == "extra" else f"pip install --upgrade {_PACKAGE}"
    if unfit or (absent and area == "core"):
        return Finding(area, name, "failed", ", ".join(unfit + [f"{n} is missing" for n in absent]), hint)
    if absent:
        return Finding(area, name, "missing", f"{', '.join(absent)} not installed", hint)
    return Finding(area, name, "ok", ", ".join(found) or f"nothing to install on Python {platform.python_version()}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _engines(lava: bool) -> Iterator[Finding]:
    """Every engine on the same small network: it must give the integers of the reference."""
    graph, images = small_network(), small_images()
    record = Record.of(graph, "all")
    expected = reference.run(graph, images, record)
    yield Finding("engine", "reference", "ok", f"{len(graph.nodes)} nodes on {images.shape[1]} images")
    for name in engines.ENGINES:
        if name == "reference" or (name == "lava" and not lava):
            continue
        options = {"timeout_s": _SELF_TEST_SECONDS} if name == "lava" else {}
        try:
            detail = _lava_version() if name == "lava" else "equal to the reference"
            result = engines.get(name, graph, options)(graph, images, record, None)
        except MissingComponent as error:
            yield Finding("engine", name, "missing", _one_line(error), error.hint or "")
            continue
        except (QkfError, ImportError) as error:
            yield Finding("engine", name, "failed", _one_line(error), getattr(error, "hint", None) or "")
            continue
        if _equal(result, expected):
            yield Finding("engine", name, "ok", detail)
        else:
            yield Finding("engine", name, "failed", "differs from the reference", "report this")


def _equal(a: Run, b: Run) -> bool:
    values = all(np.array_equal(a.values[name], b.values[name]) for name in b.values)
    return values and np.array_equal(a.raw_output, b.raw_output) and a.ledger.to_dict() == b.ledger.to_dict()


def _lava_version() -> str:
    found = find_lava()
    return f"equal to the reference; lava-nc {found.lava}, Python {found.version}: {found.python}"


def _one_line(error: Exception) -> str:
    if isinstance(error, QkfError):
        return f"{error.where}: {error.message}" if error.where else error.message
    return told(error)


def small_images() -> np.ndarray:
    """Encoded byte images ``(1, B, 1, 6, 6)`` with every pixel value class: black, white, and a ramp."""
    ramp = np.arange(36).reshape(1, 6, 6) * 7
    return np.stack([ramp, 255 - ramp])[None].astype(np.int64)


def small_network() -> Graph:
    """A network with Q-K token attention, quantized from float weights: 1 x 6 x 6 pixels, T = 3, 2 classes."""
    rng = np.random.default_rng(2)
    lif = ops.Neuron(tau=2.0, v_threshold=1.0, v_reset=0.0)
    gate = ops.Neuron(tau=2.0, v_threshold=0.5, v_reset=0.0)
    pointwise = ops.Conv((1,), (0,), (1,))
    b = GraphBuilder()
    b.add("input", ops.Input((1, 6, 6)))
    b.add("conv", ops.Conv((1, 1), (1, 1), (1, 1)), ["input"], {"weight": rng.normal(0, 1, (4, 1, 3, 3))})
    b.add("pool", ops.MaxPool((2, 2), (2, 2), (0, 0)), ["conv"])
    b.add("lif", lif, ["pool"])
    tokens = Operand("lif", View.of((4, 3, 3), (0, 1, 2), (4, 9)))
    for name in "qk":
        b.add(f"{name}_conv", pointwise, [tokens], {"weight": rng.normal(0, 2, (4, 4, 1))})
        b.add(f"{name}_lif", lif, [f"{name}_conv"])
    b.add("sum", ops.Sum((0,), keepdims=True), ["q_lif"])
    b.add("gate", gate, ["sum"])
    b.add("mask", ops.Mask(), ["gate", "k_lif"])
    b.add("add", ops.Add(), ["mask", tokens])
    b.add("pooled", ops.Sum((1,), role="readout"), ["add"])
    b.add("readout", ops.Readout(), ["pooled"])
    b.add("head", ops.Linear(), ["readout"], {"weight": rng.normal(0, 1, (2, 4))})
    b.add("output", ops.Output(), ["head"])
    graph = b.build(time_steps=3)
    graph = Graph(graph.nodes, graph.time_steps, preprocessing=Preprocessing((0.5,), (0.25,)))
    return quantize(graph, QuantizeOptions())
