"""The store of runs: what was acknowledged stays, in any order; files that lie are refused."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from digits_network import DigitsNetwork

from qkf_deploy import limits
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ledger import LayerRecord, Ledger
from qkf_deploy.runs import content, database
from qkf_deploy.runs.file import read_run
from qkf_deploy.runs.packing import pack, same, unpack
from qkf_deploy.runs.store import Head, Row, Store, write


@pytest.fixture(scope="module")
def head(network: DigitsNetwork) -> Head:
    return content.head(network.integer_graph, "digest", network.run.ledger.images, {"batch": 4})


@pytest.fixture(scope="module")
def rows(network: DigitsNetwork) -> list[Row]:
    return content.rows(network.run)


@pytest.fixture
def store(head: Head, tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "run.sqlite", [head]) as store:
        yield store


def test_counts_survive_packing(network: DigitsNetwork, head: Head) -> None:
    blobs = pack(network.ledger)
    assert unpack(head.ledger.layers, blobs, network.ledger.time_steps) == network.ledger.layers
    back = unpack(head.ledger.layers, blobs[2:3], network.ledger.time_steps)
    assert all(
        r.counts[k].tolist() == [v[2]] for r, layer in zip(back, network.ledger) for k, v in layer.counts.items()
    )


def test_extreme_counts_survive_packing() -> None:
    layer = LayerRecord("a", "conv", ("spike",), (1,), "drive", 1, "step", 1, 1, 8, 8, 0, 1, {})
    top = 2**63 - 1
    counts = {"resets": np.array([0, top, 1]), "ac_unary": np.array([1, 255, 256]), "mac": np.array([2**40, 0, 7])}
    full = layer.with_counts(counts, np.array([[top, 0, 1], [2, 3, 2**32]]))
    other = replace(layer, name="b").with_counts({}, None)
    blobs = pack(Ledger(2, 3, "integer", "direct", (full, other)))
    assert unpack((layer, other), blobs, 2) == (full, other)


@pytest.mark.parametrize("seed", range(3))
def test_order_changes_nothing(head: Head, rows: list[Row], store: Store, seed: int) -> None:
    given = list(rows)
    random.Random(seed).shuffle(given)
    for start in range(0, len(given), 3):
        store.add(0, given[start : start + 3], notices=[f"notice {start % 2}"])
    assert list(store.rows()) == rows
    assert store.notices() == ("notice 0", "notice 1")
    assert not store.missing()


def test_rows_are_kept_once(rows: list[Row], store: Store) -> None:
    store.add(0, rows[:3])
    store.add(0, rows[1:5])
    assert list(store.rows()) == rows[:5]
    assert store.missing() == list(range(5, len(rows)))
    again = replace(rows[2], counts=zlib.compress(zlib.decompress(rows[2].counts), 9))
    store.add(0, [again])  # compressed by another zlib
    for wrong in (
        replace(rows[2], prediction=3 - (rows[2].prediction or 0)),
        replace(rows[2], counts=rows[3].counts),
        replace(rows[2], counts=b"", prediction=None, top=(), error="corrupt"),
        replace(rows[2], label=1),
    ):
        with pytest.raises(InputError, match="another result"):
            store.add(0, [rows[-1], wrong])
    assert list(store.rows()) == rows[:5]  # nothing of a refused addition
    for index in (-1, len(rows)):
        with pytest.raises(InputError, match="no sample"):
            store.add(0, [replace(rows[0], index=index)])


def test_errors_are_rows(network: DigitsNetwork, rows: list[Row], store: Store) -> None:
    failed = Row(1, "broken.png", 3, None, (), b"", "a damaged image")
    store.add(0, [rows[0], failed, rows[2]])
    store.close()
    run = read_run(store.path)
    assert run.indices == (0, 1, 2)
    assert run.errors == {1: "a damaged image"}
    assert run.predictions == (rows[0].prediction, None, rows[2].prediction)
    assert (run.samples, run.ledger.images, run.complete) == (len(rows), 2, False)
    assert run.ledger.total("ac_unary") == sum(
        int(v[i]) for layer in network.ledger for v in [layer.counts.get("ac_unary")] if v is not None for i in (0, 2)
    )


def test_a_closed_store_is_one_file(rows: list[Row], head: Head, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with Store.create(path, [head]) as store:
        store.add(0, rows[:2])
        assert (tmp_path / "run.sqlite-wal").exists()
        with Store.open(path) as reader:
            assert list(reader.rows()) == rows[:2]
        with pytest.raises(InputError, match="another program writes"):
            Store.open(path, write=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run.sqlite"]
    with pytest.raises(InputError, match="exists already"):
        Store.create(path, [head])
    with Store.create(path, [head], force=True) as store:
        assert len(store.missing()) == len(rows)


def test_nothing_has_run_yet(store: Store) -> None:
    with pytest.raises(InputError, match="no sample of this run has a result"):
        read_run(store.path)


def test_several_runs(head: Head, rows: list[Row], tmp_path: Path) -> None:
    heads = [replace(head, config={"name": name}) for name in ("T=2", "T=4")]
    path = tmp_path / "sweep.sqlite"
    write(path, heads, [rows[:1], rows])
    assert read_run(path, "T=4").indices == read_run(path, 1).indices == read_run(path, "1").indices
    assert read_run(path, "T=2").indices == (0,)
    for which, text in ((None, "holds 2 runs"), ("T=3", "no run 'T=3'"), (2, "no run 2"), (-1, "no run -1")):
        with pytest.raises(UsageError, match=text) as caught:
            read_run(path, which)
        assert "0: T=2; 1: T=4" in (caught.value.hint or "")


_WRITER = """
import sys
from pathlib import Path
from qkf_deploy.runs.store import Store
from dataclasses import replace
with Store.open(sys.argv[1], write=True) as store, Store.open(sys.argv[2]) as source:
    rows = list(source.rows())
    for index in store.missing():
        store.add(0, [replace(rows[index % len(rows)], index=index)])
        print(index, flush=True)
"""


def test_killed_writers_lose_nothing(head: Head, rows: list[Row], tmp_path: Path) -> None:
    source, path = tmp_path / "source.sqlite", tmp_path / "run.sqlite"
    write(source, [head], [rows])
    Store.create(path, [replace(head, samples=4000)]).close()
    rng, acknowledged = random.Random(7), set()
    for _ in range(6):
        command = [sys.executable, "-c", _WRITER, str(path), str(source)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            stop = rng.randrange(1, 120)
            for line in process.stdout:
                acknowledged.add(int(line))
                stop -= 1
                if not stop:
                    process.send_signal(signal.SIGKILL)
                    acknowledged |= {int(rest) for rest in process.stdout if rest.endswith("\n")}
                    break
        with Store.open(path) as store:
            found = [row.index for row in store.rows()]
        assert acknowledged <= set(found)
        assert len(found) == len(set(found)) <= len(acknowledged) + 6
    assert len(acknowledged) > 50


@pytest.fixture
def killed(head: Head, rows: list[Row], tmp_path: Path) -> Path:
    """A file whose writer was killed: two of its rows are in the log beside it only."""
    script = (
        "import os, signal, sys; from qkf_deploy.runs.store import Store\n"
        "with Store.open(sys.argv[2]) as source, Store.open(sys.argv[1], write=True) as store:\n"
        "    store.add(0, list(source.rows())[:2]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    write(tmp_path / "source.sqlite", [head], [rows])
    Store.create(tmp_path / "run.sqlite", [head]).close()
    command = [sys.executable, "-c", script, str(tmp_path / "run.sqlite"), str(tmp_path / "source.sqlite")]
    subprocess.run(command, check=False)
    assert (tmp_path / "run.sqlite-wal").stat().st_size
    return tmp_path / "run.sqlite"


def test_the_log_of_another_file_is_not_read(killed: Path, head: Head, rows: list[Row], tmp_path: Path) -> None:
    log = (tmp_path / "run.sqlite-wal").read_bytes()
    write(killed, [replace(head, data="new")], [rows[3:4]])
    assert not (tmp_path / "run.sqlite-wal").exists()
    for _ in range(2):
        with Store.open(killed) as store:
            assert (store.runs[0].data, list(store.rows())) == ("new", rows[3:4])
        (tmp_path / "run.sqlite-wal").write_bytes(log)  # as if a run had been copied over a killed one
    with Store.open(killed, write=True) as store:
        store.add(0, rows[4:5])
        assert list(store.rows()) == rows[3:5]
    assert read_run(killed).indices == (3, 4)


def test_a_replacement_that_fails_loses_nothing(killed: Path, head: Head, rows: list[Row]) -> None:
    with pytest.raises(TypeError):
        Store.create(killed, [replace(head, config={"not": object()})], force=True)
    with Store.open(killed) as store:
        assert list(store.rows()) == rows[:2]
    with Store.open(killed, write=True) as store:
        with pytest.raises(InputError, match="another program writes"):
            Store.create(killed, [head], force=True)
        with pytest.raises(InputError, match="another program writes"):
            write(killed, [head], [rows])
        store.add(0, rows[2:3])
    assert read_run(killed).indices == (0, 1, 2)


def test_more_samples_than_memory(head: Head, tmp_path: Path) -> None:
    vast = [replace(head, samples=2**62)]
    with Store.create(tmp_path / "run.sqlite", vast) as store, pytest.raises(InputError, match="the list of samples"):
        store.missing()


def test_full_disk_keeps_what_was_written(head: Head, rows: list[Row], store: Store) -> None:
    store.add(0, rows[:2])
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    huge = replace(rows[2], counts=np.random.default_rng(0).bytes(100_000))
    with pytest.raises(InputError, match=r"full.*\n.*make room"):
        store.add(0, [huge])
    assert list(store.rows()) == rows[:2]


def test_read_only_folders_can_be_read(rows: list[Row], head: Head, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    write(folder / "run.sqlite", [head], [rows])
    (folder / "run.sqlite").chmod(0o400)
    folder.chmod(0o500)
    try:
        before = (folder / "run.sqlite").stat().st_mtime_ns
        assert len(read_run(folder / "run.sqlite").indices) == len(rows)
        assert (folder / "run.sqlite").stat().st_mtime_ns == before
        assert len(list(folder.iterdir())) == 1
    finally:
        folder.chmod(0o700)


#: The output node in a run's description.
_LAST = "$.graph.nodes[#-1]"


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON sample BEGIN DELETE FROM sample; END", "other tables"),
        ("CREATE VIEW v AS SELECT * FROM sample", "other tables"),
        ("CREATE TABLE more (x)", "other tables"),
        ("CREATE INDEX i ON sample (name)", "other tables"),
        ("ALTER TABLE sample ADD COLUMN more TEXT", "other tables"),
        ("DROP TABLE notice", "other tables"),
        ("DELETE FROM run", "no runs"),
        ("UPDATE run SET id = 5", "no runs"),
        ("UPDATE run SET samples = 0", "no samples"),
        ("UPDATE run SET samples = 'many'", "no samples"),
        ("UPDATE run SET samples = 2", "out of order"),
        ("UPDATE run SET head = '['", "JSON"),
        ("UPDATE run SET head = '{}'", "missing"),
        ("UPDATE run SET head = json_remove(head, '$.counts')", "counts are those of another version"),
        ("UPDATE run SET head = json_remove(head, '$.counts[0]')", "counts are those of another version"),
        ("UPDATE run SET gates = '7'", "gates"),
        ("UPDATE sample SET position = -1 WHERE position = 0", "out of order"),
        ("UPDATE sample SET top = '[1.5]'", "sample 0"),
        ("UPDATE sample SET top = '[1, 1, 2]', prediction = 1", "sample 0"),
        ("UPDATE sample SET top = '[1, 2, 3, 4, 5, 6]', prediction = 1", "sample 0"),
        ("UPDATE sample SET top = '[1, 2]', prediction = 2", "sample 0"),
        ("UPDATE sample SET position = 'a' WHERE position = 0", "sample a"),
        ("UPDATE sample SET position = 0.5 WHERE position = 0", "sample 0.5"),
        ("UPDATE sample SET run = 3 WHERE position = 0", "samples of no run"),
        ("UPDATE sample SET label = 1000000", "classes of sample 0"),
        ("UPDATE run SET network = x'00'", "digests or settings"),
        ("UPDATE run SET head = json_set(head, '$.config', json('[]'))", "digests or settings"),
        ("UPDATE run SET head = json_set(head, '$.class_names', json('[\"a\"]'))", "1 names of 10 classes"),
        (f"UPDATE run SET head = json_set(head, '{_LAST}.attributes.shapes', 5)", "the shapes of the outputs is '5'"),
        (
            f"UPDATE run SET head = json_set(head, '{_LAST}.attributes.shapes', json('[5]'))",
            "shape of an output is '5'",
        ),
        ("UPDATE sample SET name = CAST(x'ff' AS TEXT)", "no UTF-8"),
        ("UPDATE sample SET top = 'x'", "JSON"),
        ("UPDATE sample SET prediction = -1", "sample 0"),
        ("UPDATE sample SET prediction = 10, top = '[10]'", "classes of sample 0"),
        ("UPDATE sample SET top = json_array(prediction, 99)", "classes of sample 0"),
        ("UPDATE sample SET label = 'cat'", "sample 0"),
        ("UPDATE sample SET name = x'00'", "sample 0"),
        ("UPDATE sample SET counts = 'text'", "sample 0"),
        ("UPDATE sample SET counts = x''", "sample 0"),
        ("UPDATE sample SET error = 'both' WHERE position = 1", "sample 1"),
        ("UPDATE sample SET counts = x'0102'", "damaged counts"),
        ("PRAGMA user_version = 9", "run schema 9"),
        ("PRAGMA application_id = 1", "not a run file"),
    ],
)
def test_files_that_lie(head: Head, rows: list[Row], tmp_path: Path, statement: str, text: str) -> None:
    path = tmp_path / "run.sqlite"
    write(path, [head], [rows])
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()
    with pytest.raises(InputError, match=text) as caught:
        read_run(path)
    assert caught.value.where == str(path)
    assert "another version" not in text or not caught.value.message.startswith("a damaged")


def test_counts_that_swell(head: Head, rows: list[Row], tmp_path: Path) -> None:
    """A stream that unpacks to more than its network has is cut off, not unpacked."""
    bomb = zlib.compress(zlib.decompress(rows[0].counts) + bytes(200_000_000), 9)
    write(tmp_path / "run.sqlite", [head], [[replace(rows[0], counts=bomb)]])
    with pytest.raises(InputError, match="damaged counts"):
        read_run(tmp_path / "run.sqlite")
    assert not same(bomb, rows[0].counts)


def test_memory_is_limited(head: Head, rows: list[Row], tmp_path: Path) -> None:
    write(tmp_path / "run.sqlite", [head], [rows])
    with limits.memory_limit(10_000), pytest.raises(InputError, match="memory"):
        read_run(tmp_path / "run.sqlite")


def test_old_runs_are_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"kind": "qkf-run"}')
    with pytest.raises(InputError, match="no longer kept as JSON"):
        read_run(tmp_path / "run.json")
    assert not database.is_run(tmp_path / "run.json")
