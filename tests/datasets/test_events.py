"""Recordings in their published formats, equal to what SpikingJelly and tonic read of the same files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from netbuild import Net
from oracle.field import module
from published import CIFAR10, aedat2, aedat3, atis, random_events

from qkf_deploy.datasets.dataset import Dataset
from qkf_deploy.datasets.events import formats
from qkf_deploy.datasets.events.recording import Events, frames
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions

FIELDS = ("t", "x", "y", "p")


def network(height: int, width: int, classes: int = 10, steps: int = 4) -> Graph:
    net = Net(0, (2, height, width), frames=True)
    net.lif("lif", net.conv("conv", "input", 2))
    net.head("lif", classes)
    return net.build(steps)


def opened(path: Path, graph: Graph, **options: object) -> Dataset:
    return open_dataset(path, graph, DataOptions(**options))


def same(ours: Events, theirs: object) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(ours, field), np.asarray(theirs[field]).astype(np.int64), err_msg=field)


def test_aedat2_as_spikingjelly_reads_it(tmp_path: Path) -> None:
    events = random_events(2000)
    (tmp_path / "x.aedat").write_bytes(aedat2(events))
    ours = formats.read_aedat(tmp_path / "x.aedat")
    same(ours, events)
    same(ours, module("spikingjelly.datasets.cifar10_dvs")._load_origin_data(tmp_path / "x.aedat"))


def test_aedat3_as_spikingjelly_reads_it(tmp_path: Path) -> None:
    events = random_events(2000)
    events["t"] = events["t"] + 2**31 - 500_000  # beyond 31 bits in the middle
    (tmp_path / "x.aedat").write_bytes(aedat3(events))
    ours = formats.read_aedat(tmp_path / "x.aedat")
    same(ours, events)
    same(ours, module("spikingjelly.datasets.utils").load_aedat_v3(tmp_path / "x.aedat"))


def test_atis_as_spikingjelly_and_tonic_read_it(tmp_path: Path) -> None:
    events = random_events(2000, 34, 34)
    (tmp_path / "x.bin").write_bytes(atis(events))
    ours = formats.read_atis(tmp_path / "x.bin")
    same(ours, events)
    same(ours, module("spikingjelly.datasets.utils").load_ATIS_bin(tmp_path / "x.bin"))
    io = pytest.importorskip("tonic.io")
    kind = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
    same(ours, io.read_mnist_file(str(tmp_path / "x.bin"), kind))
    events["y"][[100, 700]] = 240  # the clock went on
    (tmp_path / "x.bin").write_bytes(atis(events))
    ours = formats.read_atis(tmp_path / "x.bin")
    assert len(ours) == 1998
    same(ours, io.read_mnist_file(str(tmp_path / "x.bin"), kind))


@pytest.mark.parametrize("split_by", ["number", "time"])
@pytest.mark.parametrize("count", [1, 3, 4, 10, 16])
def test_frames_as_spikingjelly_integrates_them(split_by: str, count: int) -> None:
    integrate = module("spikingjelly.datasets.utils").integrate_events_by_fixed_frames_number
    for seed, size in enumerate((400, 401, 997, 1500)):
        events = random_events(size, 20, 11, seed)
        theirs = integrate(events, split_by, count, 11, 20)
        ours = frames(Events(*(events[f] for f in FIELDS)), count, split_by, 11, 20)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.sum() == size or split_by == "time"


def test_frames_of_unsorted_and_few_events() -> None:
    integrate = module("spikingjelly.datasets.utils").integrate_events_by_fixed_frames_number
    events = random_events(500, 8, 8, 5)
    events["t"][1:-1] = np.random.default_rng(0).permutation(events["t"][1:-1])
    np.testing.assert_array_equal(
        frames(Events(*(events[f] for f in FIELDS)), 5, "time", 8, 8), integrate(events, "time", 5, 8, 8)
    )
    few = random_events(3, 8, 8)
    np.testing.assert_array_equal(
        frames(Events(*(few[f] for f in FIELDS)), 5, "number", 8, 8), integrate(few, "number", 5, 8, 8)
    )
    apart = Events(np.array([0, 1, 90, 100]), *np.zeros((3, 4), np.int64))
    assert frames(apart, 5, "time", 8, 8).sum(axis=(1, 2, 3)).tolist() == [2, 0, 0, 0, 2]


def test_time_that_goes_backwards_is_said(tmp_path: Path) -> None:
    """By number every event is in one frame; by time, the rule takes a stretch of the file per frame."""
    events = random_events(400, 34, 34, 3)
    (tmp_path / "right.bin").write_bytes(atis(events))
    events["t"] = np.concatenate([events["t"][200:], events["t"][:200] // 2])  # wraps around in the middle
    events["t"][-1] = 1_400_000
    (tmp_path / "wrapped.bin").write_bytes(atis(events))
    graph = network(34, 34)
    for name, split_by, said in (("right", "time", 0), ("wrapped", "time", 1), ("wrapped", "number", 0)):
        samples = opened(tmp_path / f"{name}.bin", graph, frames_by=split_by).read([0])
        assert not samples.errors
        assert len([n for n in samples.notices if "goes backwards" in n]) == said
        assert (samples.array.sum() == 400) is not bool(said)


def write_cifar10_dvs(root: Path, each: int = 10) -> dict[str, dict[str, np.ndarray]]:
    made = {}
    for label, name in enumerate(CIFAR10):
        (root / name).mkdir(parents=True)
        for i in range(each):
            made[f"{name}/cifar10_{name}_{i}.aedat"] = random_events(300, seed=100 * label + i)
    for name, events in made.items():
        (root / name).write_bytes(aedat2(events))
    return made


def test_cifar10_dvs(tmp_path: Path) -> None:
    integrate = module("spikingjelly.datasets.utils").integrate_events_by_fixed_frames_number
    root = tmp_path / "x"
    made = write_cifar10_dvs(root)
    graph = network(128, 128)
    data = opened(root, graph)
    assert len(data) == 100
    assert any("--part test" in n for n in data.notices)
    test = opened(root, graph, part="test")
    assert test.names == tuple(f"{name}/cifar10_{name}_9.aedat" for name in CIFAR10)
    assert test.labels is not None
    assert test.labels.tolist() == list(range(10))
    assert len(opened(root, graph, part="train")) == 90
    samples = test.read([3, 0])
    for array, index in zip(samples.array, samples.indices, strict=True):
        np.testing.assert_array_equal(array, integrate(made[test.names[index]], "number", 4, 128, 128))
    timed = opened(root, graph, part="test", frames_by="time")
    np.testing.assert_array_equal(timed.read([3]).array[0], integrate(made[test.names[3]], "time", 4, 128, 128))
    assert len({data.digest, test.digest, timed.digest}) == 3
    (root / test.names[4]).write_bytes(b"#!AER-DAT2.0\r\nabc")
    (root / test.names[5]).unlink()
    again = opened(root, graph, part="test")
    samples = test.read(range(10))
    assert set(samples.errors) == {4, 5}
    assert "cut off" in samples.errors[4]
    assert len(samples.array) == 8
    assert again.digest != test.digest


def write_gestures(root: Path) -> dict[str, dict[str, np.ndarray]]:
    root.mkdir()
    made = {}
    for seed, name in enumerate(("user01_led", "user02_lab", "user24_fluorescent")):
        made[name] = random_events(3000, seed=seed)
        (root / f"{name}.aedat").write_bytes(aedat3(made[name]))
        rows = [(1, 1000, 200_000), (11, 200_000, 500_000), (3, 400_000, 800_000), (1, 900_000, 1_300_000)]
        text = "class,startTime_usec,endTime_usec\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows)
        (root / f"{name}_labels.csv").write_text(text)
    (root / "trials_to_train.txt").write_text("user01_led.aedat\nuser02_lab.aedat\n")
    (root / "trials_to_test.txt").write_text("user24_fluorescent.aedat\n\n")
    return made


def test_dvs128_gesture_as_spikingjelly_splits_it(tmp_path: Path) -> None:
    """Both ways to the same samples: the published files, and the folders that SpikingJelly makes of them."""
    theirs, utils = (module(f"spikingjelly.datasets.{n}") for n in ("dvs128_gesture", "utils"))
    write_gestures(tmp_path / "x")
    graph = network(128, 128, 11)
    data = opened(tmp_path / "x", graph)
    npz = tmp_path / "npz"
    for label in range(11):
        (npz / "test" / str(label)).mkdir(parents=True)
        (npz / "train" / str(label)).mkdir(parents=True)
    stem = "user24_fluorescent"
    theirs._split_aedat_files_to_np(
        stem, tmp_path / "x" / f"{stem}.aedat", tmp_path / "x" / f"{stem}_labels.csv", npz / "test"
    )
    made = opened(npz, graph)
    assert tuple(f"{name}.npz" for name in data.names) == made.names
    assert data.names == (
        "0/user24_fluorescent_0",
        "0/user24_fluorescent_1",
        "10/user24_fluorescent_0",
        "2/user24_fluorescent_0",
    )
    np.testing.assert_array_equal(data.labels, made.labels)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 2, 3]  # by text: 0, 1, 10, 2 ...
    assert any("by text, so 10 comes before 2" in n for n in data.notices)
    np.testing.assert_array_equal(data.read(range(4)).array, made.read(range(4)).array)
    for path in sorted((npz / "test").rglob("*.npz")):
        (tmp_path / "frames" / path.parent.name).mkdir(parents=True, exist_ok=True)
        utils.integrate_events_file_to_frames_file_by_fixed_frames_number(
            np.load, str(path), str(tmp_path / "frames" / path.parent.name), "number", 4, 128, 128
        )
    ready = opened(tmp_path / "frames", graph)
    np.testing.assert_array_equal(ready.read(range(4)).array, data.read(range(4)).array)
    named = replace(graph, class_names=tuple(map(str, range(11))))
    by_name = opened(tmp_path / "x", named)
    assert by_name.labels is not None
    assert by_name.labels.tolist() == [0, 0, 10, 2]
    assert len(opened(tmp_path / "x", graph, part="train")) == 8
    assert len(opened(tmp_path / "x", graph, part="all")) == 12


def test_n_mnist_and_n_caltech101(tmp_path: Path) -> None:
    for part, count in (("Train", 3), ("Test", 2)):
        for label in range(10):
            (tmp_path / "m" / part / str(label)).mkdir(parents=True)
            for i in range(count):
                events = random_events(200, 34, 34, label)
                (tmp_path / "m" / part / str(label) / f"{i:05d}.bin").write_bytes(atis(events))
    data = opened(tmp_path / "m", network(34, 34))
    assert (len(data), data.notices[0]) == (20, "the part Test is read (--part train, --part all)")
    assert data.labels is not None
    assert data.labels.tolist() == [i // 2 for i in range(20)]
    assert not data.read(range(20)).errors
    with pytest.raises(InputError, match="recordings of 34 x 34 pixels, the network takes 128 x 128"):
        opened(tmp_path / "m", network(128, 128))
    for name in ("BACKGROUND_Google", "Faces_easy", "accordion"):
        (tmp_path / "c" / name).mkdir(parents=True)
        (tmp_path / "c" / name / "image_0001.bin").write_bytes(atis(random_events(200, 200, 170)))
    data = opened(tmp_path / "c", network(180, 240, 3))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2]
    assert not data.read(range(3)).errors
    with pytest.raises(InputError, match="recordings of 240 x 180"):
        opened(tmp_path / "c", network(34, 34, 3))
    with pytest.raises(UsageError, match="keeps no parts"):
        opened(tmp_path / "c", network(180, 240, 3), part="test")


def test_what_a_sample_cannot_be(tmp_path: Path) -> None:
    graph = network(34, 34)
    cases = {
        "empty.bin": (b"", "no events"),
        "torn.bin": (atis(random_events(9, 34, 34))[:-2], "cut off"),
        "outside.bin": (atis(random_events(99, 60, 34)), "lies at x = 5"),
        "hot.bin": (atis({k: np.zeros(2000, int) for k in FIELDS}), "0 to 255"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        samples = opened(tmp_path / name, graph).read([0])
        assert message in samples.errors[0], name
        with pytest.raises(InputError, match=r"cannot be split into 4 frames by time|no events|cut off|lies at"):
            frames(formats.read_atis(tmp_path / name), 4, "time", 34, 34)
    np.savez(tmp_path / "x.npz", frames=np.zeros((5, 2, 34, 34)))
    (tmp_path / "y").mkdir()
    (tmp_path / "x.npz").rename(tmp_path / "y" / "x.npz")
    assert "(5, 2, 34, 34), the network takes (4, 2, 34, 34)" in opened(tmp_path / "y", graph).read([0]).errors[0]


HOSTILE = {
    "version": b"#!AER-DAT1.0\r\n",
    "no end of the head": b"#!AER-DAT2.0",
    "many lines": b"#!AER-DAT2.0\r\n" + b"#\n" * 20_000,
    "other camera": b"#!AER-DAT2.0\r\n" + bytes([0x80, 0, 0, 0, 0, 0, 0, 1]),
    "torn pair": b"#!AER-DAT2.0\r\n" + bytes(13),
    "torn packet": b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + bytes(20),
    "huge packet": b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + bytes([1, 0, 1, 0]) + b"\xff" * 24,
    "events of one byte": b"#!AER-DAT3.1\r\n#!END-HEADER\r\n"
    + bytes([1, 0, 1, 0, 1] + [0] * 11 + [1, 0, 0, 0] * 3)
    + b"x",
    "packets of nothing": b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + bytes(28 * 1000),
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_recordings(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.aedat").write_bytes(HOSTILE[name])
    samples = opened(tmp_path / "x.aedat", network(128, 128)).read([0])
    assert set(samples.errors) == {0}
    assert "\n" not in samples.errors[0]


TABLES = {
    "class": "class,a,b\n12,0,1\n",
    "class 0": "class,a,b\n0,0,1\n",
    "columns": "class,a,b\n1,0\n",
    "text": "class,a,b\n1,x,1\n",
    "negative": "class,a,b\n1,-1,1\n",
    "huge": "class,a,b\n1,0," + "9" * 40 + "\n",
    "empty": "class,a,b\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_damaged_tables_of_gestures(tmp_path: Path, name: str) -> None:
    write_gestures(tmp_path / "x")
    (tmp_path / "x" / "user24_fluorescent_labels.csv").write_text(TABLES[name])
    with pytest.raises(InputError):
        opened(tmp_path / "x", network(128, 128, 11))
    (tmp_path / "x" / "trials_to_test.txt").write_text("../x.aedat\n")
    with pytest.raises(InputError, match="no recording beside it"):
        opened(tmp_path / "x", network(128, 128, 11))


def test_networks_that_take_no_events(tmp_path: Path) -> None:
    net = Net(0, (3, 8, 8))
    net.lif("lif", net.conv("conv", "input", 3))
    net.head("lif", 2)
    (tmp_path / "x.bin").write_bytes(atis(random_events(9, 34, 34)))
    with pytest.raises(InputError, match="2 polarities"):
        opened(tmp_path / "x.bin", net.build())
