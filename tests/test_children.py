"""Child processes run nothing that lies in the current folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from netbuild import Net

import qkf_deploy as qd
from qkf_deploy.children import isolated_command
from qkf_deploy.ir import Graph
from qkf_deploy.simulators.lava import environment

ROOT = str(Path(qd.__file__).resolve().parents[1])
HOSTILE = "import pathlib\npathlib.Path(__file__).with_name('ran').write_text(__name__)\nraise SystemExit(0)\n"
MODULES = ("numpy", "json", "qkf_deploy", "h5py", "safetensors", "runpy", "os", "sitecustomize", "usercustomize")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with modules of the names that the child imports."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(HOSTILE)
    monkeypatch.chdir(folder)
    return folder


def network() -> Graph:
    net = Net(0, (1, 3, 3), frames=True)
    net.lif("lif", net.conv("conv", "input", 2))
    net.head("lif", 2)
    return net.build()


def test_a_nir_file_in_a_hostile_folder(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    qd.export_nir(graph, hostile / "net.nir")
    for first in (str(hostile), ""):  # what `python -m` and an interactive Python put first
        monkeypatch.setattr(sys, "path", [first, *sys.path])
        assert list(qd.import_nir("net.nir").nodes) == list(graph.nodes)
    assert not (hostile / "ran").exists()


def test_the_command_in_a_hostile_folder(hostile: Path) -> None:
    """The installed script has the folder of the script on its path, not the current one."""
    qd.export_nir(network(), hostile / "net.nir")
    start = (
        f"import sys; sys.path.append({ROOT!r}); from qkf_deploy.cli import main; "
        "main(['import', 'net.nir', '-o', 'net.qkf'])"
    )
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([sys.executable, "-I", "-c", start], env=environ, check=True, timeout=120)
    assert (hostile / "net.qkf").is_file()
    assert not (hostile / "ran").exists()


def test_the_package_may_lie_in_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone: its folder is left out of the path, the package in it is not."""
    monkeypatch.chdir(ROOT)
    done = subprocess.run(isolated_command("qkf_deploy.cli", "--version"), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("qkf-deploy")


def test_no_interpreter_of_the_current_folder(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = hostile / ".venv-lava" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\ntouch ran\n")
    python.chmod(0o755)
    monkeypatch.delenv("QKF_LAVA_PYTHON", raising=False)
    assert not [p for p in environment.candidates() if p.is_relative_to(hostile)]
    assert not (hostile / "ran").exists()
