"""Every operator alone in Lava against the reference: values, membranes and counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import lava_cases
import pytest

from qkf_deploy.errors import EngineError
from qkf_deploy.options import Granularity
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.lava import network
from qkf_deploy.simulators.lava.job import Job, collect
from qkf_deploy.simulators.lava.network import build, execute
from qkf_deploy.simulators.run import Record


def difference(case: lava_cases.Case, folder: Path, granularity: Granularity = "operator") -> list[str]:
    """What Lava and the reference disagree on."""
    record = Record.of(case.graph, "all", "all")
    job = Job(folder, case.graph, case.inputs, record, granularity)
    execute(build(job), job.images * case.graph.time_steps, lambda: None)
    return lava_cases.differing(collect(job), reference.run(case.graph, case.inputs, record))


def cases(family: str, seed: int) -> list[object]:
    return [pytest.param(case, id=case.name) for case in lava_cases.FAMILIES[family](seed)]


@pytest.mark.parametrize("case", [c for i, f in enumerate(lava_cases.FAMILIES) for c in cases(f, 77 + i)])
def test_operator(case: lava_cases.Case, tmp_path: Path) -> None:
    assert difference(case, tmp_path) == []


@pytest.mark.parametrize("kind", ["qkta", "qkca", "ssa"])
@pytest.mark.parametrize("granularity", ["operator", "block"])
def test_small_attention_blocks(kind: str, granularity: Granularity, tmp_path: Path) -> None:
    case = lava_cases.block_case(kind, 12, 2, 4, steps=3, images=2, seed=5)
    assert difference(case, tmp_path, granularity) == []


def test_too_little_shared_memory_is_said_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = lava_cases.network_case()
    job = Job(tmp_path, case.graph, case.inputs, Record(), "operator")
    in_ports = sum(case.graph[o.node].type.size for n in case.graph for o in n.inputs)
    usage = shutil.disk_usage(tmp_path)
    for free, fits in ((in_ports * 16, True), (in_ports * 16 - 1, False)):
        monkeypatch.setattr(network.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        if fits:
            build(job)
            continue
        with pytest.raises(EngineError, match="MB of shared memory"):
            build(job)
