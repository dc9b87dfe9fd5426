"""What is shown of the first samples is the same however little of it is kept at a time."""

from __future__ import annotations

import numpy as np
import pytest
from netbuild import random_pixels, small_transformer

from qkf_deploy.runs import first
from qkf_deploy.simulators import reference


def test_layers_may_be_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small_transformer()
    pixels = random_pixels(0, graph.input.type.shape)
    kept: list[int] = []

    def engine(graph, inputs, record, progress):  # type: ignore[no-untyped-def]
        run = reference.run(graph, inputs, record, progress)
        kept.append(sum(v.size for v in run.values.values()))
        return run

    together = first.look(graph, engine, pixels, 3)
    assert len(kept) == 1
    most = kept[0] // 4
    monkeypatch.setattr(first, "_KEPT", most)
    assert first.look(graph, engine, pixels, 3) == together
    largest = max(np.prod(n.type.shape) * graph.time_steps * 3 for n in graph)
    assert len(kept) > 4
    assert max(kept[1:]) <= max(most, largest)
