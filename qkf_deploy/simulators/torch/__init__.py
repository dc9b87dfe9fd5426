"""The torch engine: data sets and float networks on a CPU or a GPU."""

from __future__ import annotations

import numpy as np

from qkf_deploy.errors import MissingComponent
from qkf_deploy.ir import Graph
from qkf_deploy.options import Precision
from qkf_deploy.simulators.run import Progress, Record, Run

try:
    import torch
except ImportError as error:  # pragma: no cover - depends on the installation
    raise MissingComponent("torch is not installed", hint="pip install 'qkf-deploy[torch]'") from error

from qkf_deploy.simulators.torch import devices
from qkf_deploy.simulators.torch.engine import Replace, engine_for


def run(
    graph: Graph,
    inputs: np.ndarray,
    record: Record = Record(),  # noqa: B008 - frozen
    progress: Progress | None = None,
    *,
    device: str = "cpu",
    precision: Precision = "float64",
    threads: int | None = None,
    replace_value: Replace | None = None,
) -> Run:
    """Simulate a batch; arguments and result as :func:`qkf_deploy.simulators.reference.run`.

    Integer graphs give the reference's integers: every sum is computed in numbers that provably hold it. Float graphs
    give the reference's spikes and counts in float64; drives and membranes differ by the rounding of sums.

    Args:
        graph: float or integer.
        inputs: as the reference engine takes them.
        record: values and membranes to keep.
        progress: called after each node.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of float graphs; in float32 a membrane that is close to its threshold may fall on the other side.
        threads: CPU threads, torch's own choice if ``None``.
        replace_value: as of the reference engine.

    Raises:
        UsageError, MissingComponent: no such device.
        UnsupportedError: a device that rounds what must be exact.
        ProofError: stored widths are narrower than what the weights can reach.
        MemoryError: the batch does not fit into the memory of the device.
    """
    with torch.no_grad(), devices.threads(threads), devices.memory():
        engine = engine_for(graph, devices.open_device(device), precision == "float32")
        return engine.run(inputs, record, progress, replace_value)
