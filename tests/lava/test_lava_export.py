"""The exported script runs by itself and prints the integers of the reference."""

from __future__ import annotations

import ast
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import lava_cases
import numpy as np
import pytest

from qkf_deploy import cli
from qkf_deploy.bundle import save_graph
from qkf_deploy.converters.lava import SCRIPT, WEIGHTS, export_lava, identifiers
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.lava.environment import LavaEnvironment

CASES = {
    "bytes": lambda: lava_cases.network_case(),
    "frames, views, leftovers": lambda: lava_cases.block_case("ssa", 12, 2, 3, steps=3, images=2),
}


@pytest.mark.lava
@pytest.mark.parametrize("which", CASES)
def test_the_script_runs(lava: LavaEnvironment, tmp_path: Path, which: str) -> None:
    case = CASES[which]()
    script = export_lava(case.graph, tmp_path / "net")
    images = case.inputs[0] if case.inputs.shape[0] == 1 else case.inputs.swapaxes(0, 1)
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [str(lava.python), str(script), str(tmp_path / "images.npy")],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = np.array([[int(v) for v in line.split()] for line in done.stdout.splitlines()])
    expected = reference.run(case.graph, case.inputs).raw_output[0]
    np.testing.assert_array_equal(printed[:, 0], np.arange(case.inputs.shape[1]))
    np.testing.assert_array_equal(printed[:, 1:], expected)
    assert len(np.unique(expected)) > 5


def test_every_operator_gives_valid_python(tmp_path: Path) -> None:
    for family in lava_cases.FAMILIES.values():
        for number, case in enumerate(family(0)):
            path = export_lava(case.graph, tmp_path / f"{case.graph.output.inputs[0].node}-{family.__name__}-{number}")
            ast.parse(path.read_text())
            with np.load(path.with_name(WEIGHTS)) as arrays:
                assert {k.split("/")[0] for k in arrays} == {n.name for n in case.graph if n.params}


def test_names_are_distinct_and_free() -> None:
    nodes = ["a.b", "a_b", "1x", "class", "np", "operators", "", "é"]
    names = identifiers(nodes)
    assert len(set(names.values())) == len(nodes)
    assert all(n.isidentifier() and n not in ("np", "class", "operators") for n in names.values())


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path) -> None:
    graph = lava_cases.network_case().graph
    (tmp_path / "net").mkdir()
    assert export_lava(graph, tmp_path / "net") == tmp_path / "net" / SCRIPT
    with pytest.raises(InputError, match="exists already"):
        export_lava(graph, tmp_path / "net")
    with pytest.raises(InputError, match="cannot write here"):
        export_lava(graph, tmp_path / "absent" / "net")
    with pytest.raises(UsageError, match="integer graphs"):
        export_lava(replace(graph, arithmetic="float"), tmp_path / "other")
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_graph(lava_cases.network_case().graph, tmp_path / "net.qkf")
    command = ["export", str(tmp_path / "net.qkf"), "--to", "lava", "-o", str(tmp_path / "lava_net")]
    assert cli.run(command) == 0
    assert "run run.py" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "lava_net").iterdir()) == [SCRIPT, WEIGHTS]
    assert cli.run(command) == 3
    assert cli.run([*command[:-1], str(tmp_path / "other"), "--check"]) == 2
