"""Files written by sinabs, norse, snnTorch, SpikingJelly and Spyx, against the spikes of those tools.

``tools/nir_oracles.py`` made the stored files in an environment of each tool.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qkf_deploy.converters.nir import read as nir_read
from qkf_deploy.converters.nir.dialects import PRESETS
from qkf_deploy.converters.nir.read import import_nir
from qkf_deploy.converters.nir.safety import read_content
from qkf_deploy.ir import Graph
from qkf_deploy.ops import Neuron
from qkf_deploy.options import ImportOptions
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.run import Record

FILES = Path(__file__).parent / "files"
CASES = sorted(p.relative_to(FILES).with_suffix("").as_posix() for p in FILES.glob("*/*.npz"))
#: Every membrane is farther from its threshold than this. The tools compute in float32, where these membranes are of
#: order 1 and lose about 1e-7 per step.
MARGIN = 1e-5
#: On the threshold, or off it by the one float32 that a strict threshold is raised by.
TIE = 2e-7


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Without the child process that reads files of strangers: starting it is slow, and it has tests of its own."""
    monkeypatch.setattr(nir_read, "read_isolated", read_content)


def read(case: str, folder: Path, **options) -> tuple[Graph, np.ndarray, np.ndarray]:
    stored = np.load(FILES / f"{case}.npz")
    (folder / "net.nir").write_bytes(stored["nir"].tobytes())
    full = {"preset": case.split("/")[0], "time_steps": len(stored["x"]), "input_encoding": "frames", "readout": False}
    graph = import_nir(folder / "net.nir", ImportOptions(**full, **{**json.loads(str(stored["options"])), **options}))
    return graph, stored["x"].astype(np.float64), stored["spikes"].astype(np.float64)


def run(graph: Graph, x: np.ndarray, record=()) -> reference.Run:
    return reference.run(graph, x, Record.of(graph, record))


def late(graph: Graph) -> int:
    """How many steps a file's tool is behind: one per layer of neurons where it hands spikes on late."""
    neurons = sum(isinstance(node.op, Neuron) for node in graph)
    return neurons if any("late per layer" in notice for notice in graph.notices) else 0


def threshold_distances(graph: Graph, x: np.ndarray) -> np.ndarray:
    """How far each membrane is from where the number of its spikes changes, in thresholds."""
    values = run(graph, x, "all").values
    distances = []
    for node in graph:
        if not isinstance(node.op, Neuron):
            continue
        (source,) = node.inputs
        drive = values[source.node] if source.view is None else source.view.apply(values[source.node], lead=2)
        ratio = node.op.membranes([drive], node.params, len(x)) / node.op.levels(node.params).v_threshold
        level = np.ones(()) if node.op.max_spikes == 1 else np.maximum(np.rint(ratio), 1.0)
        distances.append(np.abs(ratio - level).reshape(-1))
    return np.concatenate(distances)


@pytest.mark.parametrize("case", CASES)
def test_spikes_are_those_of_the_tool(case, tmp_path):
    graph, x, expected = read(case, tmp_path)
    behind = late(graph)
    actual = run(graph, x).raw_output[: len(x) - behind]
    assert 0 < np.count_nonzero(expected) < expected.size
    np.testing.assert_array_equal(actual, expected[behind:].reshape(actual.shape))


@pytest.mark.parametrize("case", CASES)
def test_no_spike_hangs_on_rounding(case, tmp_path):
    """The margin that the comparison above rests on; ties are those of sums that float32 holds exactly."""
    graph, x, _ = read(case, tmp_path)
    distances = threshold_distances(graph, x)
    assert ((distances < TIE) | (distances > MARGIN)).all()


def test_every_preset_has_files():
    assert {case.split("/")[0] for case in CASES} == set(PRESETS) - {"nir"}
    assert len(CASES) >= 20
