"""The commands energy, profiles, widths, map, report and paper from the outside."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from digits_network import DigitsNetwork

from qkf_deploy import api
from qkf_deploy.cli import run as command
from qkf_deploy.runs.file import write_run


@pytest.fixture(scope="module")
def folder(network: DigitsNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("commands")
    api.save(network.integer_graph, path / "net.int.qkf")
    api.save(network.float_graph, path / "net.qkf")
    np.save(path / "images.npy", network.pixels[:2])
    write_run(path / "run.sqlite", network.integer_graph, network.run)
    return path


def test_energy_of_images_and_of_a_run_file_agree(
    network: DigitsNetwork, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = [
        "energy",
        str(folder / "net.int.qkf"),
        str(folder / "images.npy"),
        "--engine",
        "reference",
        "--format",
        "json",
    ]
    assert command(two) == 0
    direct = json.loads(capsys.readouterr().out, parse_float=Decimal)["reports"][0]
    assert command(["energy", str(folder / "run.sqlite"), "--format", "json"]) == 0
    stored = json.loads(capsys.readouterr().out, parse_float=Decimal)["reports"][0]
    assert direct["energy_pj_of_each_image"] == stored["energy_pj_of_each_image"][:2]
    assert direct["profile"]["id"] == "paper-eq23"
    assert stored["images"] == network.ledger.images


def test_compare_movement_and_formats(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["energy", str(folder / "run.sqlite"), "--profile", "exact-fp32", "--profile", "odin2019"]
    for extra, words in (
        (["--compare"], "Not like with like"),
        (["--movement"], "SRAM 8 KB"),
        (["--format", "csv"], "profile,images,layer"),
        (["--format", "md"], "| layer |"),
    ):
        assert command([*base, *extra]) == 0
        captured = capsys.readouterr()
        assert words in captured.out, extra
        assert captured.err == ""


def test_a_users_profile_and_chip(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["profiles", "exact-fp32", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["prices"][0]["pj"] == "0.9"
    broken = folder / "broken.toml"
    broken.write_text('schema = 1\nid = "x"\nid = "y"\n')
    for arguments in (
        ["energy", str(folder / "run.sqlite"), "--profile", str(broken)],
        ["map", str(folder / "net.int.qkf"), "--chip", str(broken)],
        ["profiles", str(broken)],
    ):
        assert command(arguments) == 3
        captured = capsys.readouterr()
        assert captured.out == ""
        assert f"{broken}:3: a key is given twice" in captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["energy", "{}/absent.json"], 3, "cannot be read"),
        (["energy", "{}/net.int.qkf"], 2, "no images to count on"),
        (["energy", "{}/run.sqlite", "{}/images.npy"], 2, "has its counts already"),
        (["energy", "{}/run.sqlite", "--profile", "papr-eq23"], 2, "did you mean 'paper-eq23'"),
        (["widths", "{}/net.qkf"], 2, "no proven widths"),
        (["map", "{}/net.qkf"], 2, "only integer networks"),
        (["map", "{}/net.int.qkf", "--chip", "loihi3"], 2, "did you mean 'loihi2'"),
        (["report", "{}/net.qkf", "-o", "{}/x.html"], 3, "is a network, not a run"),
        (["report", "{}/run.sqlite", "-o", "{}/no/x.html"], 3, "cannot write here"),
        (["paper", "{}/net.int.qkf"], 2, "NETWORK and IMAGES go together"),
    ],
)
def test_errors(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str) -> None:
    assert command([a.format(folder) for a in arguments]) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert not (folder / "x.html").exists()


def test_report_map_widths(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["report", str(folder / "run.sqlite"), "-o", str(folder / "r.html"), "--profile", "odin2019"]) == 0
    assert "odin2019" in (folder / "r.html").read_text()
    capsys.readouterr()
    arguments = ["map", str(folder / "net.int.qkf"), "--chip", "generic-digital", "--run", str(folder / "run.sqlite")]
    assert command([*arguments, "--format", "json"]) == 0
    mapped = json.loads(capsys.readouterr().out)
    assert mapped["cores"] == sum(u["cores"] for u in mapped["units"])
    assert command(["widths", str(folder / "net.int.qkf"), "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("layer,type,weight_bits")
