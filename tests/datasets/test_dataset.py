"""Data sets read lazily: samples by place, bad ones as errors, and a digest of all that decides them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from netbuild import Net
from PIL import Image
from test_image_files import network

from qkf_deploy.datasets.dataset import Dataset
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.limits import memory_limit
from qkf_deploy.options import DataOptions

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)


def opened(path: Path, **options: object) -> Dataset:
    return open_dataset(path, network(3), DataOptions(**options))


def folder(root: Path, count: int = 6) -> Path:
    root.mkdir()
    for i in range(count):
        Image.fromarray(PIXELS[i].transpose(1, 2, 0)).save(root / f"{i}.png")
    return root


def test_samples_in_any_order(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", PIXELS)
    np.save(tmp_path / "f.npy", np.asfortranarray(PIXELS))
    np.savez_compressed(tmp_path / "x.npz", images=PIXELS)
    sets = [opened(folder(tmp_path / "images")), *(opened(tmp_path / n) for n in ("c.npy", "f.npy", "x.npz"))]
    for data in sets:
        assert len(data) == 6
        for wanted in ([0, 1, 2], [5, 0, 3], [4], [], [2, 2]):
            samples = data.read(wanted)
            assert samples.indices == tuple(wanted)
            assert not samples.errors
            np.testing.assert_array_equal(samples.array, PIXELS[wanted])
            assert samples.array.dtype == np.uint8


def test_bad_samples_are_errors_and_hinder_no_other(tmp_path: Path) -> None:
    root = folder(tmp_path / "images")
    (root / "1.png").write_bytes((root / "1.png").read_bytes()[:40])
    (root / "4.png").write_text("nothing")
    samples = opened(root).read(range(6))
    assert samples.indices == (0, 2, 3, 5)
    np.testing.assert_array_equal(samples.array, PIXELS[[0, 2, 3, 5]])
    assert set(samples.errors) == {1, 4}
    assert all("not a readable image" in text for text in samples.errors.values())
    alone = opened(root).read([4])
    assert alone.array.shape == (0, 3, 8, 8)
    assert alone.indices == ()


def test_bad_values_belong_to_their_sample(tmp_path: Path) -> None:
    floats = np.zeros((4, 3, 8, 8))
    floats[2, 0, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", floats)
    samples = opened(tmp_path / "x.npy").read(range(4))
    assert samples.indices == (0, 1, 3)
    assert samples.errors == {2: "the input has values that are not finite"}


def test_counts_beyond_the_network_belong_to_their_sample(tmp_path: Path) -> None:
    net = Net(0, (2, 4, 4), frames=True)
    net.lif("lif", net.conv("conv", "input", 3))
    net.head("lif", 2)
    graph = net.build()
    frames = np.zeros((3, graph.time_steps, 2, 4, 4), np.int32)
    frames[1, 0, 0, 0, 0] = 256
    np.save(tmp_path / "x.npy", frames)
    samples = open_dataset(tmp_path / "x.npy", graph, DataOptions()).read(range(3))
    assert samples.indices == (0, 2)
    assert "0 to 255" in samples.errors[1]


def test_names_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    labels = np.arange(6) % 2
    for images, names in (("x_test", "y_test"), ("data", "targets"), ("x", "y"), ("images", "labels")):
        np.savez(path, **{images: PIXELS, names: labels, "more": np.zeros(2)})
        data = opened(path)
        np.testing.assert_array_equal(data.read(range(6)).array, PIXELS)
        np.testing.assert_array_equal(data.labels, labels)
    np.savez(path, x_train=PIXELS[:2], y_train=labels[:2], x_test=PIXELS, y_test=labels[:, None])
    assert len(opened(path)) == 6
    np.testing.assert_array_equal(opened(path).labels, labels)
    train = opened(path, images_key="x_train", labels_key="y_train")
    np.testing.assert_array_equal(train.read([1]).array, PIXELS[1:2])
    np.testing.assert_array_equal(train.labels, labels[:2])
    np.savez(path, images=PIXELS, data=PIXELS)
    with pytest.raises(InputError, match="data, images") as caught:
        opened(path)
    assert "--images-key" in str(caught.value)
    np.savez(path, images=PIXELS, labels=labels, targets=labels)
    with pytest.raises(InputError, match="--labels-key"):
        opened(path)
    for key in ("images_key", "labels_key"):
        with pytest.raises(InputError, match="no array 'absent'"):
            opened(path, **{key: "absent"})


def test_memory_is_that_of_the_samples_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4000, 3, 8, 8), np.uint8))
    with memory_limit(2000):
        data = opened(tmp_path / "x.npy")
        assert data.read(range(3990, 4000)).array.shape == (10, 3, 8, 8)
        with pytest.raises(InputError, match="the limit is"):
            data.read(range(11))


def test_digest(tmp_path: Path) -> None:
    root = folder(tmp_path / "a")
    digest = opened(root).digest
    assert digest == opened(root).digest
    shutil.copytree(root, tmp_path / "b")
    os.utime(tmp_path / "b" / "0.png", (1, 1))
    (tmp_path / "b" / "readme.txt").write_text("not read")
    assert opened(tmp_path / "b").digest == digest  # elsewhere, older, with a file that is not read
    others = {digest, opened(root, limit=5).digest, opened(root, resize=True).digest}
    data = bytearray((root / "3.png").read_bytes())
    data[-20] ^= 1
    (root / "3.png").write_bytes(data)
    others.add(opened(root).digest)
    (root / "3.png").write_bytes((tmp_path / "b" / "3.png").read_bytes())
    assert opened(root).digest == digest
    (root / "3.png").rename(root / "9.png")
    others.add(opened(root).digest)
    assert len(others) == 5


def test_digest_of_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=PIXELS, labels=np.arange(6) % 2)
    digest = opened(tmp_path / "x.npz").digest
    (tmp_path / "x.npz").rename(tmp_path / "y.npz")
    assert opened(tmp_path / "y.npz").digest == digest
    np.savez(tmp_path / "x.npz", images=PIXELS, labels=np.arange(6) % 2, other=1 - np.arange(6) % 2)
    digests = {digest, opened(tmp_path / "x.npz").digest, opened(tmp_path / "x.npz", labels_key="other").digest}
    assert len(digests) == 3


def test_pipes_are_errors_not_waits(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", 2)
    os.mkfifo(root / "3.png")
    (root / "4.png").symlink_to(tmp_path / "absent.png")
    data = opened(root)
    assert len(data.digest) == 64
    samples = data.read(range(4))
    assert samples.indices == (0, 1)
    assert samples.errors[2] == "not a regular file"
    assert samples.errors[3].startswith("cannot be read")
    for name in ("x.npy", "x.npz", "test_batch.bin", "x.bin"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError):
            opened(tmp_path / name)


def test_other_files_beside_images_are_no_samples(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", 2)
    np.savez(root / "notes.npz", a=1)
    (root / "model.bin").write_bytes(b"x")
    assert opened(root).names == ("0.png", "1.png")


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", 2)
    np.savez(tmp_path / "x.npz", images=PIXELS)
    for path, option in (
        (root, {"images_key": "x"}),
        (root, {"frames_by": "time"}),
        (tmp_path / "x.npz", {"labels": tmp_path / "x.csv"}),
        (tmp_path / "x.npz", {"part": "test"}),
        (tmp_path / "x.npz", {"resize": True}),
        ("digits", {"resize": False}),
        ("digits", {"labels_key": "y"}),
    ):
        with pytest.raises(UsageError, match="is not about this form"):
            opened(Path(path), **option)
