"""Time on the mesh beside the energy of a network: as text and as data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from timed import LOIHI, frames, pipelined, three_layers, traffic_of

import qkf_deploy as qd
from qkf_deploy.cli import run
from qkf_deploy.display.numbers import si
from qkf_deploy.hw_models.timing.latency import latency
from qkf_deploy.hw_models.timing.steps import step_energy
from qkf_deploy.report.time_table import busy_sheet, mesh_record, mesh_summary

CHIP = str(Path(__file__).parents[1] / "data" / "loihi-like.toml")


def test_tables_say_what_was_computed() -> None:
    graph = three_layers()
    images = frames(graph)
    schedule = pipelined(LOIHI, traffic_of(graph, images, LOIHI))
    found = qd.mapped_time(graph, images, LOIHI)
    assert found.latency_ns == latency(schedule).latency_ns
    energy = step_energy(schedule)
    assert found.network_pj == energy["messages"] + energy["hops"] > 0
    record = mesh_record(found)
    assert record["latency_ns"] == pytest.approx(sum(record["waits_ns"].values()))
    assert record["bound_ns"] <= record["latency_ns"]
    assert [row["unit"] for row in record["cores"]] == ["a", "b", "head"]
    assert max(row["most_busy"] for row in busy_sheet(found).records()) == found.busy.max()
    assert f"a pipeline of {schedule.steps} steps: {si(found.latency_ns / 10**9, 's')} for an image" in mesh_summary(
        found
    )
    assert f"at least {si(float(found.bound_ns.sum()) / 10**9, 's')};" in mesh_summary(found)
    slower = qd.mapped_time(graph, images, LOIHI, pipelined=False)
    assert slower.latency_ns > found.latency_ns


def test_the_command_shows_the_mesh_where_layers_have_cores_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = three_layers()
    qd.save(graph, tmp_path / "net.qkf")
    np.save(tmp_path / "x.npy", frames(graph))
    place = ["hardware", str(tmp_path / "net.qkf"), str(tmp_path / "x.npy"), "--no-twin", "--engine", "reference"]
    assert run([*place, "--chip", CHIP]) == 0
    assert "on the mesh, a pipeline of 7 steps" in capsys.readouterr().out
    assert run([*place, "--chip", CHIP, "--format", "json"]) == 0
    mesh = json.loads(capsys.readouterr().out)["mesh"]
    assert mesh["latency_ns"] == qd.mapped_time(graph, frames(graph), LOIHI).latency_ns
    assert run([*place, "--chip", "fpga-array", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["mesh"] is None  # its layers share all cores
