"""Event engine: the integers of the reference engine, an order of magnitude faster than a dense float framework."""

from __future__ import annotations

import numpy as np

from qkf_deploy.ir import Graph
from qkf_deploy.simulators.carried import Carried
from qkf_deploy.simulators.event.cpu import available_tiers
from qkf_deploy.simulators.event.engine import Engine, engine_for
from qkf_deploy.simulators.run import Progress, Record, Run, keeps_fired

__all__ = ["Engine", "available_tiers", "run"]


@keeps_fired
def run(
    graph: Graph,
    inputs: np.ndarray,
    record: Record = Record(),  # noqa: B008 - frozen
    progress: Progress | None = None,
    *,
    threads: int = 1,
    tier: str | None = None,
    carried: Carried | None = None,
) -> Run:
    """Simulate a batch. Arguments and result are those of :func:`qkf_deploy.simulators.reference.run`, and so are all
    integers in the result.

    Args:
        graph: integer graph; float graphs run too, without speed.
        inputs: encoded by :func:`qkf_deploy.simulators.inputs.encode`.
        record: values and membranes to keep.
        progress: called after each step with (node executions done, node executions in all).
        threads: worker threads; results do not depend on it.
        tier: ``vnni``, ``vector`` or ``numba``; by default ``QKF_EVENT_TIER`` or the fastest this CPU has.
        carried: as of the reference engine.

    Raises:
        ProofError: stored widths that do not hold for the weights.
        UsageError: an unknown or unavailable tier, or fewer than one thread.
    """
    whole = None if carried is None else carried.whole
    return engine_for(graph, record, tier, whole).run(inputs, progress, threads, carried)
