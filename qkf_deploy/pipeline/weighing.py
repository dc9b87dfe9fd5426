"""Which layers need their bits, and mixed precision under a budget."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qkf_deploy.calibration.sensitivity import Setting, mixed
from qkf_deploy.calibration.sensitivity import sensitivity as _sensitivity
from qkf_deploy.calibration.sensitivity_options import SensitivityOptions
from qkf_deploy.calibration.sensitivity_report import Sensitivity
from qkf_deploy.datasets.images import Images
from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ir.needs import need_floats
from qkf_deploy.keywords import part, takes
from qkf_deploy.ledger import Ledger
from qkf_deploy.options import BITS, DataOptions
from qkf_deploy.passes.fold import fold
from qkf_deploy.pipeline.costs import load_profile, price
from qkf_deploy.pipeline.networks import load
from qkf_deploy.pipeline.running import load_images, simulate
from qkf_deploy.simulators import engines
from qkf_deploy.simulators.run import Run

#: Bytes, and picojoules.
_MEMORY = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_ENERGY = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6, "µJ": 1e6, "mJ": 1e9}


@dataclass(frozen=True)
class Weighed:
    """What was found.

    Attributes:
        report: layers and curve.
        graph: the integer network under the budget; ``None`` without one.
        notices: sentences about the images that the user should read.
    """

    report: Sensitivity
    graph: Graph | None
    notices: tuple[str, ...] = ()


@takes(SensitivityOptions)
def sensitivity(source: str | Path | Graph, data: str | Path | Images, options: SensitivityOptions) -> Weighed:
    """What each layer loses at few bits, alone, and the bits of every layer that lose least under a budget.

    The losses of layers are added up, which is an approximation; every network of the curve is then run as a whole.

    Args:
        source: a ``.qkf`` file or a float graph.
        data: images, as :func:`load_images` takes or gives them; labels are used if known.

    Raises:
        UsageError: an integer graph, bits that do not exist, a budget that is none or that nothing meets.
        InputError: a network or images that cannot be used.
        MissingComponent: SciPy is not installed.
    """
    candidates = tuple(sorted(set(options.candidates or (8, 6, 4, 3, 2)), reverse=True))
    unknown = [b for b in candidates if b not in BITS]
    if unknown or len(candidates) < 2:
        raise UsageError(f"bits {', '.join(map(str, candidates))}", hint=f"two or more of {', '.join(map(str, BITS))}")
    budget, energy = _budget(options)
    graph = source if isinstance(source, Graph) else load(source)
    need_floats(graph, "use")
    images = data if isinstance(data, Images) else load_images(data, graph, **part(options, DataOptions))
    chosen = np.sort(np.random.default_rng(options.seed).permutation(len(images.array))[: options.sample])
    labels = None if images.labels is None else images.labels[chosen]
    profile = load_profile(options.profile) if options.profile is not None else None

    def run(network: Graph, inputs: np.ndarray) -> Run:
        return simulate(network, inputs, engine=options.engine, **engines.given(options))

    def energy_pj(ledger: Ledger) -> float:
        return float(price(ledger, profile or "paper-eq23").mean_energy_pj)

    setting = Setting(images.array[chosen], labels, candidates, run, energy_pj if energy else None, options.progress)
    report = _sensitivity(graph, setting, budget)
    found = None if report.chosen is None else mixed(fold(graph), report.chosen.bits)
    return Weighed(report, found, tuple(images.notices))


def _budget(options: SensitivityOptions) -> tuple[float | None, bool]:
    """The budget in bytes or pJ, and whether it is one of energy."""
    if options.budget is None:
        return None, options.profile is not None
    found = re.fullmatch(r"([0-9.]+)\s*([A-Za-zµ]+)", options.budget.strip())
    try:
        amount = float(found[1]) if found else float("nan")
    except ValueError:
        amount = float("nan")
    units = _ENERGY if found and found[2] in _ENERGY else _MEMORY
    if not found or found[2] not in units or not amount > 0:
        raise UsageError(
            f"a budget of {options.budget!r}", hint="bytes (60kB, 2MB), or energy per image (3.5uJ) with --profile"
        )
    if (units is _ENERGY) != (options.profile is not None):
        raise UsageError(f"a budget of {options.budget}", hint="a budget of energy goes with --profile, and only it")
    return amount * units[found[2]], units is _ENERGY
