"""Evaluations in one process: what is stored, what resumes, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluations import rows, run

import qkf_deploy as qd
from qkf_deploy.errors import EngineError, InputError, UsageError
from qkf_deploy.evaluation.run import plan
from qkf_deploy.runs.store import Store


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def stop_after(shards: int):
    """A tick that ends the run when so many shards are stored."""
    ticks = []

    def tick(tally):
        ticks.append(tally)
        if len(ticks) > shards:
            raise EngineError("stopped by the test")

    return tick


def test_the_rows_are_those_of_a_simulation(place, digits_int8, digits_data) -> None:
    alone = qd.simulate(digits_int8, digits_data.test_images[:48], engine="event")
    assert [row.prediction for row in place.rows] == alone.predicted.tolist()
    best = np.argsort(-alone.logits, kind="stable")[:, :5].tolist()
    assert [list(row.top) for row in place.rows] == best
    assert [row.label for row in place.rows] == digits_data.test_labels[:48].tolist()
    assert [row.name for row in place.rows][:2] == ["data.npz[0]", "data.npz[1]"]
    assert qd.load_run(place.network.parent / "undisturbed.sqlite").ledger == alone.ledger


@pytest.mark.parametrize("options", [{"shard": 1}, {"shard": 7}, {"shard": 1000}, {"batch": 5}])
def test_shards_and_batches_change_nothing(place, out, options) -> None:
    ended = qd.evaluate(place.network, place.data, out, **options)
    assert ended.complete
    assert rows(out) == place.rows


def test_engines_change_nothing(place, out) -> None:
    assert qd.evaluate(place.network, place.data, out, engine="reference", limit=6).complete
    assert rows(out) == place.rows[:6]


def test_a_float_network_gives_the_same_whatever_the_shards(place, digits_float, tmp_path) -> None:
    qd.save(digits_float, tmp_path / "float.qkf")
    found = []
    for shard in (8, 20):
        out = tmp_path / f"{shard}.sqlite"
        qd.evaluate(tmp_path / "float.qkf", place.data, out, limit=12, shard=shard, batch=4)
        found.append(rows(out))
    assert found[0] == found[1]


def test_resume_runs_what_is_missing(place, out) -> None:
    with pytest.raises(EngineError, match="stopped by the test"):
        qd.evaluate(place.network, place.data, out, shard=8, tick=stop_after(2))
    before = rows(out)
    assert [row.index for row in before] == list(range(16))
    ticks = []
    ended = qd.resume(out, shard=16, tick=ticks.append)
    assert (ended.tally.before, ended.tally.stored, ended.tally.samples) == (16, 48, 48)
    assert [t.stored for t in ticks] == [16, 32, 48]
    assert rows(out) == place.rows


def test_resume_of_a_complete_run_does_nothing(place, out) -> None:
    qd.evaluate(place.network, place.data, out, limit=8)
    ended = qd.resume(out)
    assert ended.complete
    assert ended.tally.rate is None


def test_resume_where_network_and_data_have_moved(place, out, tmp_path) -> None:
    network, data = (shutil.copy(path, tmp_path) for path in (place.network, place.data))
    with pytest.raises(EngineError):
        qd.evaluate(network, data, out, shard=8, tick=stop_after(1))
    Path(network).unlink()
    Path(data).unlink()
    with pytest.raises(InputError, match="no such file"):
        qd.resume(out)
    with pytest.raises(InputError, match="no such file"):
        qd.resume(out, network=place.network)
    assert qd.resume(out, network=place.network, data=place.data).complete
    assert rows(out) == place.rows


def test_resume_refuses_another_network_and_other_data(place, out, digits_float, tmp_path, digits_data) -> None:
    with pytest.raises(EngineError):
        qd.evaluate(place.network, place.data, out, shard=8, tick=stop_after(1))
    before = Path(out).read_bytes()
    qd.save(qd.quantize(digits_float, 4), tmp_path / "other.qkf")
    with pytest.raises(InputError, match="not the network of this run"):
        qd.resume(out, network=tmp_path / "other.qkf")
    changed = digits_data.test_images[:48].copy()
    changed[47, 0, 0, 0] ^= 1
    np.savez(tmp_path / "data.npz", images=changed, labels=digits_data.test_labels[:48])
    with pytest.raises(InputError, match="not the data of this run"):
        qd.resume(out, data=tmp_path / "data.npz")
    assert len(rows(out)) == 8
    assert Path(out).read_bytes() == before


def test_another_engine_may_go_on_with_an_integer_network_only(place, out, digits_float, tmp_path) -> None:
    with pytest.raises(EngineError):
        qd.evaluate(place.network, place.data, out, shard=8, tick=stop_after(1), limit=12)
    assert qd.resume(out, engine="reference").complete
    assert rows(out) == place.rows[:12]
    qd.save(digits_float, tmp_path / "float.qkf")
    other = tmp_path / "float.sqlite"
    with pytest.raises(EngineError):
        qd.evaluate(tmp_path / "float.qkf", place.data, other, shard=2, batch=2, tick=stop_after(1), limit=4)
    with pytest.raises(UsageError, match="its sums depend on it"):
        qd.resume(other, engine="onnx")
    assert qd.resume(other, engine="reference").complete


def test_a_network_that_carries_membranes_needs_a_batch(place, out, digits_float, tmp_path) -> None:
    """Its results depend on which images run together, so shards are whole batches, on resume too."""
    name = "stage3.0.ssa.proj_lif"
    carried = replace(digits_float[name], op=replace(digits_float[name].op, carry="official"))
    chained = qd.quantize(replace(digits_float, nodes={**digits_float.nodes, name: carried}), 8)
    qd.save(chained, tmp_path / "chained.qkf")
    with pytest.raises(UsageError, match="--batch"):
        qd.evaluate(tmp_path / "chained.qkf", place.data, out)
    assert not out.exists()
    with pytest.raises(EngineError):
        qd.evaluate(tmp_path / "chained.qkf", place.data, out, batch=6, shard=1, limit=20, tick=stop_after(1))
    assert len(rows(out)) == 6
    assert qd.resume(out, shard=1).complete
    images = np.load(place.data)["images"][:20]
    assert qd.load_run(out).ledger == qd.simulate(chained, images, batch=6).ledger
    assert qd.load_run(out).ledger != qd.simulate(chained, images, batch=5).ledger


def test_a_bad_sample_is_a_row_with_its_error(place, out, digits_data, tmp_path) -> None:
    from PIL import Image

    folder = tmp_path / "val"
    for index in range(6):
        kind = folder / str(digits_data.test_labels[index])
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits_data.test_images[index, 0]).save(kind / f"{index}.png")
    broken = sorted(folder.rglob("*.png"))[2]
    broken.write_bytes(broken.read_bytes()[:60])
    done = run("evaluate", place.network, folder, "-o", out, "--shard", "2")
    assert done.returncode == 5, done.stderr
    assert "of 6 samples 1 failed" in done.stderr
    (bad,) = [row for row in rows(out) if row.error is not None]
    assert bad.name.endswith(broken.name)
    assert bad.label == int(broken.parent.name)
    assert bad.prediction is None
    assert not bad.counts
    assert run("evaluate", "--resume", out).returncode == 5
    whole = tmp_path / "whole.sqlite"
    qd.evaluate(place.network, folder, whole, shard=100)
    assert rows(whole) == rows(out)


def test_a_value_that_the_network_cannot_take_is_an_error_of_its_own(place, out, tmp_path, digits_data) -> None:
    images = qd.load_images(place.data, qd.load(place.network)).array[:8].astype(np.float32) / 255
    images = (images - 0.3056) / 0.3763
    images[3] = 40.0
    images[5, 0, 0, 0] = np.nan
    np.save(tmp_path / "floats.npy", images)
    ended = qd.evaluate(place.network, tmp_path / "floats.npy", out)
    assert {row.index for row in rows(out) if row.error} == {3, 5}
    assert ended.tally.failed == 2
    assert not ended.complete
    assert [row.counts for row in rows(out) if not row.error] == [place.rows[i].counts for i in (0, 1, 2, 4, 6, 7)]


def test_nothing_is_begun_where_it_cannot_end(place, out, tmp_path) -> None:
    with pytest.raises(UsageError, match="no engine"):
        qd.evaluate(place.network, place.data, out, engine="quantum")
    with pytest.raises(InputError, match="No such file or directory"):
        qd.evaluate(place.network, place.data, tmp_path / "nowhere" / "run.sqlite")
    assert not out.exists()
    qd.evaluate(place.network, place.data, out, limit=4)
    before = out.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        qd.evaluate(place.network, place.data, out, limit=4)
    assert out.read_bytes() == before
    qd.evaluate(place.network, place.data, out, limit=5, force=True)
    assert len(rows(out)) == 5


def test_the_energy_that_is_told_is_that_of_the_run(place, out, monkeypatch) -> None:
    monkeypatch.setattr("qkf_deploy.evaluation.run._PRICING_S", 0.0)
    ticks = []
    qd.evaluate(place.network, place.data, out, limit=12, shard=5, tick=ticks.append)
    assert ticks[0].energy_pj is None
    assert ticks[-1].energy_pj == float(qd.price(qd.load_run(out).ledger, "paper-eq23").mean_energy_pj)


def test_shards_are_whole_batches() -> None:
    assert list(plan(range(10), 4, 4, 10)) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    assert list(plan([5, 9], 4, 8, 10)) == [(4, 5, 6, 7, 8, 9)]
    assert list(plan([1, 3], 1, 1, 10)) == [(1,), (3,)]
    assert list(plan([], 4, 4, 10)) == []


def test_the_head_says_how_to_go_on(place, out) -> None:
    qd.evaluate(place.network, place.data, out, limit=4, images_key="images")
    with Store.open(out) as store:
        (head,) = store.runs
    assert head.samples == 4
    assert head.config["network_path"] == str(place.network)
    assert head.config["data_options"]["images_key"] == "images"
    assert head.config["engine"] == "event"
    assert head.network == qd.load_run(out).network
