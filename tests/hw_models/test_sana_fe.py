"""The files for SANA-FE: it runs them, and its energy and time are ours."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from netbuild import small_transformer
from timed import LOIHI, frames, pipelined, three_layers, traffic_of

import qkf_deploy as qd
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.hw_models.architecture.reading import load_chip
from qkf_deploy.hw_models.timing import sana_fe
from qkf_deploy.ir import Graph

#: Components as SANA-FE names them; times of its two timing models.
COMPONENTS = ("synapse", "dendrite", "soma", "network", "total")


def run(folder: Path) -> dict[str, float]:
    """What SANA-FE says, in pJ and ns: in a process of its own, which it may abort."""
    pytest.importorskip("sanafe", reason="sanafe is not installed: pip install 'qkf-deploy[sana-fe]'")
    done = subprocess.run([sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(\w+)(?: time)?: ([0-9.]+) \w+, expected ([0-9.]+)", done.stdout, re.MULTILINE)
    assert {name for name, _, _ in rows} == {*COMPONENTS, "simple", "detailed"}, done.stdout
    return {name: float(found) for name, found, _ in rows}


def assert_same(found: dict[str, float], folder: Path) -> None:
    """Energy by component and the simple time to the last digit printed, the detailed time within 5 %."""
    expected = json.loads((folder / sana_fe.EXPECTED).read_text())
    for name in COMPONENTS:
        assert found[name] == round(expected["energy_pj"][name], 1)
    assert found["simple"] == round(expected["time_ns"]["simple"], 1)
    assert found["detailed"] == pytest.approx(expected["time_ns"]["detailed"], rel=0.05)
    assert found["total"] > 0


def test_sana_fe_agrees_on_three_layers(tmp_path: Path) -> None:
    graph = three_layers()
    said = qd.export_sana_fe(graph, tmp_path / "out", "loihi1", frames(graph))
    assert said == ("Traffic is replayed: neurons fire the measured spike trains, weights are not written.",)
    assert_same(run(tmp_path / "out"), tmp_path / "out")


def test_sana_fe_agrees_on_attention_cut_into_pieces(tmp_path: Path) -> None:
    """Q-K gates, products of spikes, max pooling: replayed, and said."""
    graph = qd.quantize(small_transformer(0))
    chip = replace(LOIHI, cores=(replace(LOIHI.cores[0], neurons_max=100),))
    images = np.random.default_rng(0).integers(0, 256, (1, *graph.input.type.shape), np.uint8)
    said = " ".join(qd.export_sana_fe(graph, tmp_path / "out", chip, images))
    for what in ("products of spikes and gates", "max pooling", "pixels"):
        assert what in said
    assert_same(run(tmp_path / "out"), tmp_path / "out")


def test_places_far_from_one_another(tmp_path: Path) -> None:
    """Cores on tiles in both directions: the hops along rows and columns have different prices."""
    graph = three_layers()
    traffic = traffic_of(graph, frames(graph), LOIHI)
    sana_fe.write_sana_fe(pipelined(LOIHI, traffic, (4 * 17, 4 * 5, 4 * 31 + 2, -1)), tmp_path / "out")
    assert_same(run(tmp_path / "out"), tmp_path / "out")


def test_shipped_loihi_has_the_numbers_of_sana_fe() -> None:
    """Energies, times, mesh and barrier of our file are those of the file that comes with SANA-FE."""
    sanafe = pytest.importorskip("sanafe", reason="sanafe is not installed: pip install 'qkf-deploy[sana-fe]'")
    text = (Path(sanafe.__file__).parent / "examples" / "loihi.yaml").read_text()
    chip = load_chip("loihi1")
    core, network = chip.cores[0], chip.network
    assert network is not None

    def after(place: str, key: str) -> float:
        found = re.search(rf"{key}: ([0-9.e+-]+)", text[text.index(place) :])
        assert found is not None
        return float(found[1])

    rows = {
        "accumulate_conv": ("loihi_conv_synapse", "process_spike"),
        "accumulate_linear": ("loihi_dense_synapse", "process_spike"),
        "accumulate": ("loihi_sparse_synapse", "process_spike"),
        "neuron": ("loihi_lif", "access_neuron"),
        "neuron_driven": ("loihi_lif", "update_neuron"),
        "neuron_fire": ("loihi_lif", "spike_out"),
        "receive": ("loihi_in", "message_in"),
        "send": ("loihi_out", "message_out"),
    }
    assert set(core.operations) == set(rows)
    for name, (place, key) in rows.items():
        operation = core.operations[name]
        assert operation.pj is not None
        assert operation.ns is not None
        assert math.isclose(float(operation.pj.nominal), after(place, f"energy_{key}") * 1e12), name
        assert math.isclose(float(operation.ns), after(place, f"latency_{key}") * 1e9), name
    for name, direction in (("east_west", "east"), ("north_south", "north")):
        link = network.links[name]
        assert link.pj is not None
        assert link.ns is not None
        assert math.isclose(float(link.pj.nominal), after("loihi_tile", f"energy_{direction}_hop") * 1e12)
        assert math.isclose(float(link.ns), after("loihi_tile", f"latency_{direction}_hop") * 1e9)
    assert (network.columns, network.rows) == (after("attributes", "width"), after("attributes", "height"))
    assert network.queue_messages == after("attributes", "link_buffer_size")
    table = {int(n): float(s) for n, s in re.findall(r"(\d+): (\d\.\d+e-6)", text)}
    assert sorted(table) == [1, 2, 4, 29]
    for tiles in range(1, 33):
        seconds = table[max(n for n in table if n <= tiles)]
        assert math.isclose(float(network.barrier_ns[min(tiles, len(network.barrier_ns)) - 1]), seconds * 1e9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cores": (replace(LOIHI.cores[0], count=2),)}, "needs 2 chips"),
        ({"network": replace(LOIHI.network, multicast=True)}, "a message for every target"),
        ({"network": None}, "nothing is known of the network"),
    ],
)
def test_what_cannot_be_written_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    graph: Graph = three_layers()
    with pytest.raises(UsageError, match=message):
        qd.export_sana_fe(graph, tmp_path / "out", replace(LOIHI, **change), frames(graph))
    assert not (tmp_path / "out").exists()


def test_too_many_synapses_and_full_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = three_layers()
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        qd.export_sana_fe(graph, tmp_path, LOIHI, frames(graph))
    monkeypatch.setattr(sana_fe, "MOST_SYNAPSES", 100)
    with pytest.raises(UsageError, match="synapses are in use, 100 can be written"):
        qd.export_sana_fe(graph, tmp_path / "out", LOIHI, frames(graph))
