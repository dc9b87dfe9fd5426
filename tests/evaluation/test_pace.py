"""Batches found by running: never another result, never more than pays or fits."""

from __future__ import annotations

import pytest
from evaluations import rows

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.evaluation.pace import Pace
from qkf_deploy.runs.first import SAMPLES
from qkf_deploy.simulators import torch as torch_engine
from qkf_deploy.simulators.torch.devices import memory


def settled(pace: Pace, seconds_of, batches: int = 12) -> list[int]:
    """Sizes that run where a batch takes so long."""
    sizes = []
    for _ in range(batches):
        sizes.append(pace.size)
        pace.took(pace.size, seconds_of(pace.size))
    return sizes


def test_it_doubles_while_a_sample_gets_cheaper() -> None:
    assert settled(Pace(2), lambda n: 1.0 + 0.01 * n) == [2, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
    assert settled(Pace(2), lambda n: 8.0 + n)[-1] == 128  # 256 would save 3 % of 128's time per sample
    assert settled(Pace(3), lambda n: 0.1 * n) == [3, 3, 6, *[3] * 9]


def test_the_first_batch_says_nothing_nor_does_a_short_one() -> None:
    pace = Pace(4)
    pace.took(4, 1e9)
    pace.took(4, 1.0)
    assert pace.size == 8
    pace.took(3, 100.0)
    assert pace.size == 8


def test_what_does_not_fit_is_halved_and_stays() -> None:
    pace = Pace(16)
    pace.failed(16)
    assert settled(pace, lambda n: 1.0 / n, 4) == [8, 8, 8, 8]
    with pytest.raises(MemoryError):
        pace.failed(1)


@pytest.fixture
def sizes(monkeypatch) -> list[int]:
    """Images of every batch of the torch engine."""
    found: list[int] = []
    before = torch_engine.run

    def seen(graph, inputs, *args, **options):
        found.append(inputs.shape[1])
        return before(graph, inputs, *args, **options)

    monkeypatch.setattr(torch_engine, "run", seen)
    return found


@pytest.mark.parametrize("cheaper", [0.1, 10.0])
def test_sizes_change_no_row(place, tmp_path, sizes, monkeypatch, cheaper) -> None:
    clock = {"seconds": 0.0}

    def counter() -> float:  # between two calls as long as the batch is large, to a power
        clock["seconds"] += (sizes[-1] if sizes else 1) ** cheaper
        return clock["seconds"]

    monkeypatch.setattr("qkf_deploy.evaluation.job.time.perf_counter", counter)
    monkeypatch.setattr("qkf_deploy.pipeline.evaluating.default_batch", lambda graph: 2)
    ended = qd.evaluate(place.network, place.data, tmp_path / "run.sqlite", engine="torch")
    assert ended.complete
    assert rows(tmp_path / "run.sqlite") == place.rows
    assert (max(sizes) > 8) == (cheaper < 1)


def test_without_memory_batches_get_smaller(place, tmp_path, sizes, monkeypatch) -> None:
    before = torch_engine.run

    def small(graph, inputs, *args, **options):
        with memory():
            if inputs.shape[1] > 5:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
            return before(graph, inputs, *args, **options)

    monkeypatch.setattr(torch_engine, "run", small)
    assert qd.evaluate(place.network, place.data, tmp_path / "run.sqlite", engine="torch").complete
    assert rows(tmp_path / "run.sqlite") == place.rows
    assert max(sizes) <= 5


def test_what_the_user_says_stays(place, tmp_path, sizes) -> None:
    assert qd.evaluate(place.network, place.data, tmp_path / "run.sqlite", engine="torch", batch=6).complete
    assert set(sizes) == {6, SAMPLES % 6}  # the first samples are looked at besides, in the same batches


def test_a_float_network_keeps_one_size(place, digits_float, tmp_path, sizes) -> None:
    qd.save(digits_float, tmp_path / "float.qkf")
    qd.evaluate(tmp_path / "float.qkf", place.data, tmp_path / "run.sqlite", engine="torch", limit=40, shard=8)
    assert sizes == [40, SAMPLES]  # its sums depend on what runs together; the first samples are looked at besides


def test_torch_without_memory_is_said_as_such(place, tmp_path, monkeypatch, capsys) -> None:
    import torch

    monkeypatch.setattr(torch_engine, "run", lambda *args, **options: torch.empty(2**50))
    out = tmp_path / "run.sqlite"
    code = command(["evaluate", str(place.network), str(place.data), "-o", str(out), "--engine", "torch"])
    assert (code, out.exists()) == (3, False)
    assert "error: not enough memory\n  try: smaller batches" in capsys.readouterr().err
