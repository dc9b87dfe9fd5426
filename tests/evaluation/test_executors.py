"""Local processes and Dask clusters: the same integers, workers that end, workers that are refused, the way there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from evaluations import ENVIRONMENT, cluster, rows, run, spawned, wait_for

import qkf_deploy as qd
from qkf_deploy.errors import EngineError, InputError, UsageError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


def test_two_workers_give_the_same_rows(place, out, two_workers) -> None:
    ended = qd.evaluate(place.network, place.data, out, scheduler=two_workers.address, shard=6)
    assert ended.complete
    assert rows(out) == place.rows


def test_a_worker_killed_midway_changes_nothing(place, out, two_workers) -> None:
    killed = []

    def tick(tally):
        if not killed and tally.stored >= 8:
            killed.append(two_workers.processes()[0])
            killed[0].kill()

    ended = qd.evaluate(place.network, place.data, out, scheduler=two_workers.address, shard=2, tick=tick)
    assert killed
    assert ended.complete
    assert rows(out) == place.rows
    wait_for(lambda: len(two_workers.processes()) == 2)


def test_a_shard_that_ends_every_worker_is_named_and_the_rest_is_done(place, out, two_workers) -> None:
    done = run("evaluate", place.network, place.deadly, "-o", out, "--scheduler", two_workers.address, "--shard", "4")
    assert done.returncode == 5, done.stderr
    assert "samples 40 to 43 are missing: every process that ran it ended" in done.stderr
    assert "of 48 samples 4 are missing" in done.stderr
    assert [row.index for row in rows(out)] == [i for i in range(48) if i // 4 != 10]
    (lost,) = qd.resume(out, scheduler=two_workers.address, shard=1).lost
    assert lost == ((40,), "every process that ran it ended")
    assert len(rows(out)) == 47
    assert qd.resume(out).complete  # this process has no such fault
    assert [row.counts for row in rows(out)] == [row.counts for row in place.rows]
    wait_for(lambda: len(two_workers.processes()) == 2)


def test_samples_are_sent_where_a_worker_cannot_read_them(place, out, two_workers, tmp_path, monkeypatch) -> None:
    """The workers see other data at the same place."""
    from qkf_deploy.evaluation import job

    data = Path(shutil.copy(place.data, tmp_path))
    dataset = job.open_dataset(data, qd.load(place.network), qd.options.DataOptions())
    assert dataset.digest
    held = dataset.read(range(48))
    np.savez(data, images=np.load(place.data)["images"][::-1], labels=np.load(place.data)["labels"])
    monkeypatch.setattr("qkf_deploy.pipeline.evaluating.open_dataset", lambda *arguments: dataset)
    monkeypatch.setattr(type(dataset), "read", lambda self, indices: job._only(held, list(indices)))
    assert qd.evaluate(place.network, data, out, scheduler=two_workers.address, shard=16).complete
    assert rows(out) == place.rows


def test_another_build_is_refused(place, out, two_workers, monkeypatch) -> None:
    monkeypatch.setattr("qkf_deploy.evaluation.executors.dask.build", lambda: "0.0.1 of last year")
    with pytest.raises(EngineError, match=r"it runs qkf-deploy .*, this process 0.0.1 of last year"):
        qd.evaluate(place.network, place.data, out, scheduler=two_workers.address)
    assert not out.exists()


def test_a_job_travels_once_per_worker(place, out, two_workers, monkeypatch) -> None:
    """What is sent with a shard is its positions."""
    from distributed import Client

    sent = []
    submit = Client.submit

    def watch(self, function, *arguments, **options):
        sent.append(arguments)
        return submit(self, function, *arguments, **options)

    monkeypatch.setattr(Client, "submit", watch)
    qd.evaluate(place.network, place.data, out, scheduler=two_workers.address, shard=16)
    assert [(len(key), indices, samples) for key, indices, samples in sent] == [
        (64, tuple(range(start, start + 16)), None) for start in (0, 16, 32)
    ]


def test_local_processes(place, out) -> None:
    """Killed ones are replaced, Ctrl-C of the whole group ends all in order, resuming ends well."""
    arguments = [sys.executable, "-m", "qkf_deploy.cli", "evaluate", place.network, place.data, "-o", out]
    options = ["--jobs", "2", "--shard", "1"]
    program = subprocess.Popen(
        [*map(str, arguments), *options], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(program.stderr))
    reader.start()
    wait_for(lambda: out.exists() and len(rows(out)) >= 2)
    spawned(psutil.Process(program.pid))[0].kill()
    stored = len(rows(out))
    wait_for(lambda: len(rows(out)) > stored)
    os.killpg(program.pid, signal.SIGINT)
    assert program.wait(60) == 130
    reader.join()
    text = "".join(told)
    found = len(rows(out))
    assert f"{found} of 48 samples are stored; go on with: qkf-deploy evaluate --resume {out}" in text
    assert "Traceback" not in text
    assert qd.resume(out).complete
    assert rows(out) == place.rows


def test_local_processes_keep_no_profile_that_grows() -> None:
    from qkf_deploy.evaluation.executors.dask import connected
    from qkf_deploy.options import ExecutionOptions

    with connected(ExecutionOptions(jobs=1)) as local:
        timers = local._client.run(lambda dask_worker: sorted(dask_worker.periodic_callbacks))
    assert ["heartbeat" in names for names in timers.values()] == [True]
    assert not any("profile" in name for names in timers.values() for name in names)


def test_tls(place, out, tmp_path) -> None:
    """A scheduler that speaks TLS, with certificates in files."""
    from distributed import Security

    made = Security.temporary()
    files = {}
    for name, text in (("ca", made.tls_ca_file), ("cert", made.tls_client_cert), ("key", made.tls_client_key)):
        files[name] = tmp_path / f"{name}.pem"
        files[name].write_text(text)
    options = ["--tls-ca-file", str(files["ca"]), "--tls-cert", str(files["cert"]), "--tls-key", str(files["key"])]
    tls = {f"tls_{name}": path for name, path in files.items()}
    with cluster(tmp_path, 1, scheme="tls", options=options) as found:
        assert found.address.startswith("tls://")
        assert qd.evaluate(place.network, place.data, out, scheduler=found.address, limit=8, **tls).complete
        assert rows(out) == place.rows[:8]
        other = Security.temporary()
        files["cert"].write_text(other.tls_client_cert)
        files["key"].write_text(other.tls_client_key)
        with pytest.raises(EngineError, match="no Dask scheduler answers"):
            qd.evaluate(place.network, place.data, tmp_path / "other.sqlite", scheduler=found.address, **tls)


REFUSED = {
    "not an address": ({"scheduler": "host"}, "no scheduler's address"),
    "another protocol": ({"scheduler": "ws://127.0.0.1:1"}, "no scheduler's address"),
    "plain text to another machine": ({"scheduler": "tcp://192.0.2.1:8786"}, "another machine without encryption"),
    "plain text to a name": ({"scheduler": "tcp://example.invalid:8786"}, "another machine without encryption"),
    "certificates for plain text": ({"scheduler": "tcp://127.0.0.1:1", "tls_ca": "ca"}, "for a tls:// address"),
    "no certificates": ({"scheduler": "tls://127.0.0.1:1"}, "needs certificates"),
    "one certificate": ({"scheduler": "tls://127.0.0.1:1", "tls_ca": "ca"}, "belong together"),
    "jobs as well": ({"scheduler": "tcp://127.0.0.1:1", "jobs": 2}, "either --jobs or --scheduler"),
    "certificates without a scheduler": ({"tls_ca": "ca"}, "certificates are for a --scheduler"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_addresses_that_are_refused(place, out, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        qd.evaluate(place.network, place.data, out, **options)
    assert not out.exists()


def test_certificates_that_are_not_there(place, out, tmp_path) -> None:
    tls = {name: tmp_path / "none.pem" for name in ("tls_ca", "tls_cert", "tls_key")}
    with pytest.raises(InputError, match=r"none\.pem: cannot be read"):
        qd.evaluate(place.network, place.data, out, scheduler="tls://127.0.0.1:1", **tls)


def test_nobody_answers(place, out, monkeypatch) -> None:
    monkeypatch.setattr("qkf_deploy.evaluation.executors.dask._CONNECT_S", 1.0)
    with pytest.raises(EngineError, match="no Dask scheduler answers"):
        qd.evaluate(place.network, place.data, out, scheduler="tcp://127.0.0.1:9")


def test_one_process_imports_no_dask(place, out) -> None:
    arguments = ["evaluate", *map(str, (place.network, place.data)), "-o", str(out), "--limit", "1"]
    code = (
        f"import sys; from qkf_deploy.cli import run\nassert run({arguments!r}) == 0\n"
        "assert not {'dask', 'distributed', 'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=ENVIRONMENT)
