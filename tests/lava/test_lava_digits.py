"""The trained digits network on real images: Lava gives the integers of the reference."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import lava_cases
import numpy as np
import pytest

from qkf_deploy import cli
from qkf_deploy.bundle import save_graph
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.lava import bridge
from qkf_deploy.simulators.lava.environment import LavaEnvironment
from qkf_deploy.simulators.run import Record, Run

if TYPE_CHECKING:
    from qkf_deploy.datasets.digits import Digits
    from qkf_deploy.ir import Graph

pytestmark = [pytest.mark.lava, pytest.mark.slow]
IMAGES = 20


@pytest.fixture(scope="module")
def expected(digits_int8: Graph, digits_data: Digits) -> tuple[np.ndarray, Record, Run]:
    """Encoded images, what to record, the reference's run."""
    x, _ = encode(digits_int8, digits_data.test_images[:IMAGES])
    neurons = [n.name for n in digits_int8 if n.op.kind == "integer_neuron"]
    record = Record.of(digits_int8, neurons, "all")
    return x, record, reference.run(digits_int8, x, record)


@pytest.mark.parametrize("granularity", ["operator", "block"])
def test_every_spike_membrane_logit_and_count(
    lava: LavaEnvironment, digits_int8: Graph, digits_data: Digits, expected, granularity: str
) -> None:
    x, record, run = expected
    done = bridge.run(digits_int8, x, record, timeout_s=150, granularity=granularity)
    assert lava_cases.differing(done, run) == []
    assert (done.logits.argmax(-1) == digits_data.test_labels[:IMAGES]).sum() >= IMAGES - 2


def test_the_command_gives_the_same_output_in_both_environments(
    lava: LavaEnvironment, digits_int8: Graph, digits_data: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_graph(digits_int8, tmp_path / "net.int.qkf")
    np.save(tmp_path / "images.npy", digits_data.test_images[:3])
    arguments = ["simulate", str(tmp_path / "net.int.qkf"), str(tmp_path / "images.npy"), "--format", "json"]
    outputs = []
    for backend in ("reference", "lava"):
        assert cli.run([*arguments, "--backend", backend]) == 0
        outputs.append(capsys.readouterr().out)
    done = subprocess.run(
        [str(lava.python), "-m", "qkf_deploy.cli", *arguments, "--backend", "lava"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert outputs[0] == outputs[1] == done.stdout
    assert '"class_1"' in done.stdout
