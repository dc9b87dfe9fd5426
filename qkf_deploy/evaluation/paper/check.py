"""The whole paper check: from shapes alone, and for a network with images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from qkf_deploy.evaluation.paper import complete
from qkf_deploy.evaluation.paper import tables as paper_tables
from qkf_deploy.evaluation.paper.published import SPIKING_ROWS
from qkf_deploy.evaluation.paper.tables import Check
from qkf_deploy.evaluation.paper.verdicts import printed_numbers, verdicts
from qkf_deploy.hw_models.network_shape import load_shape
from qkf_deploy.ir import Graph
from qkf_deploy.models.lazy import import_torch_module
from qkf_deploy.report.formats import below, for_people, to_csv, to_json

_SIDES = (10, 20, 50, 100, 200)
_CHANNELS = 256
#: Table 1 is counted at the size of HST-10-384's last stage: 196 tokens, one head of 64 channels.
_BASE = (196, 64)
_TABLE_4_ROW = next(row for row in SPIKING_ROWS if row.name == "HST-10-768")


def shape_checks(progress: Callable[[int, int], None] | None = None, *, every: bool = False) -> list[Check]:
    """Everything that needs no weights: verdicts on all printed numbers, Tables 1, 2, 3, 9, Figure 4, energies.

    Args:
        progress: called with (tables done, tables in all).
        every: also list every number with its verdict.

    Raises:
        MissingComponent: torch or SpikingJelly is not installed.
    """
    spiking = import_torch_module("qkf_deploy.evaluation.paper.spiking")
    growth = import_torch_module("qkf_deploy.evaluation.paper.growth")
    cost = lru_cache(maxsize=None)(spiking.spiking_cost)
    found = verdicts(printed_numbers(), cost)
    tokens, channels = _BASE
    sizes = [(tokens, channels), (2 * tokens, channels), (tokens, 2 * channels)]
    steps: list[Callable[[], Check]] = [
        lambda: complete.overview(found),
        *([lambda: complete.every_number(found)] if every else []),
        lambda: complete.contradictions(found),
        lambda: paper_tables.parameters_and_macs(cost),
        paper_tables.dense_rows,
        lambda: paper_tables.implied_rates(cost),
        lambda: complete.consistency(cost),
        lambda: complete.table_4_pricing(load_shape("qkformer-10-768"), _TABLE_4_ROW, cost),
        paper_tables.variance_bounds,
        lambda: paper_tables.memory_growth(
            [growth.measure(name, side * side, _CHANNELS) for side in _SIDES for name in growth.ATTENTIONS]
        ),
        lambda: paper_tables.operation_growth(
            [growth.measure(name, n, d) for name in growth.ATTENTIONS for n, d in sizes], _BASE
        ),
    ]
    out = []
    for index, step in enumerate(steps, 1):
        out.append(step())
        if progress is not None:
            progress(index, len(steps))
    return out


def network_checks(
    graph: Graph, images: np.ndarray, engine: str, options: Mapping[str, Any]
) -> tuple[list[Check], bytes | None]:
    """Table 4, the moments of Eq. 15-20 and Figure 3 (PNG) of a network on images."""
    from qkf_deploy import api
    from qkf_deploy.evaluation.paper import network

    run = api.simulate(graph, images, record=network.recorded_nodes(graph), engine=engine, **options)
    checks = [
        paper_tables.firing_rates(network.block_rates(graph, run.ledger)),
        paper_tables.measured_moments(network.moments(graph, run)),
    ]
    return checks, network.figure_3(graph, run)


def render(checks: Sequence[Check], fmt: str) -> str:
    """All tables in one text, in a format of :data:`qkf_deploy.report.formats.FORMATS`."""
    if fmt == "json":
        listed = [
            {"title": c.sheet.title, "rows": c.sheet.records(), "differs": list(c.differs), "remarks": list(c.remarks)}
            for c in checks
        ]
        return to_json({"schema_version": 1, "kind": "paper-check", "tables": listed})
    if fmt == "csv":
        return "\n".join(to_csv(c.sheet) for c in checks)
    draw = for_people(fmt)
    parts = []
    for check in checks:
        lines = [f"- {remark}" for remark in check.remarks]
        lines += [f"- not as printed: {row}" for row in check.differs]
        parts.append(draw(check.sheet) + "\n" + below(fmt, "\n".join(lines) + "\n"))
    return "\n".join(parts)
