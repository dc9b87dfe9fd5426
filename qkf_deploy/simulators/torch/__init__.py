"""The torch engine: data sets and float networks on a CPU or a GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from qkf_deploy.errors import MissingComponent
from qkf_deploy.ir import Graph
from qkf_deploy.options import Precision
from qkf_deploy.passes.carry import chained
from qkf_deploy.simulators.carried import Carried
from qkf_deploy.simulators.run import Progress, Record, Run, join, keeps_fired

try:
    import torch
except ImportError as error:  # pragma: no cover - depends on the installation
    raise MissingComponent("torch is not installed", hint="pip install 'qkf-deploy[torch]'") from error

from qkf_deploy.simulators.torch import devices
from qkf_deploy.simulators.torch.engine import Replace, engine_for

#: Images that a thread takes by itself, at least; of fewer, all threads share every operation.
_PART = 16


@keeps_fired
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
    carried: Carried | None = None,
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
        threads: CPU threads, torch's own choice if ``None``; of a large batch each takes a part.
        replace_value, carried: as of the reference engine.

    Raises:
        UsageError, MissingComponent: no such device.
        UnsupportedError: a device that rounds what must be exact.
        ProofError: stored widths are narrower than what the weights can reach.
        MemoryError: the batch does not fit into the memory of the device.
    """
    with torch.no_grad(), devices.memory():
        whole = None if carried is None else carried.whole
        engine = engine_for(graph, devices.open_device(device), precision == "float32", whole)

    def part(images: slice, told: Progress | None) -> Run:
        with torch.no_grad(), devices.memory():
            return engine.run(inputs[:, images], record, told, replace_value, carried)

    count = 1
    if device == "cpu" and replace_value is None and carried is None and not chained(graph):
        count = max(1, min(threads or torch.get_num_threads(), inputs.shape[1] // _PART))
    if count == 1:
        with devices.threads(threads):
            return part(slice(None), progress)
    ends = [inputs.shape[1] * n // count for n in range(count + 1)]
    with devices.threads(1), ThreadPoolExecutor(count) as pool:
        return join(list(pool.map(part, map(slice, ends, ends[1:]), [progress, *[None] * (count - 1)])))
