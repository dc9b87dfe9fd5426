"""Labels of image folders: by class names, in ImageNet's layout, or by a CSV."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from netbuild import Net
from oracle.field import module
from PIL import Image

from qkf_deploy.datasets.dataset import Dataset
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


def write(root: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[i]).save(root / name)
    return root


def network() -> Graph:
    net = Net(0, (3, 8, 8))
    net.lif("lif", net.conv("conv", "input", 3))
    net.head("lif", 2)
    return net.build()


def opened(path: Path, classes: tuple[str, ...] = (), **options: object) -> Dataset:
    return open_dataset(path, replace(network(), class_names=classes), DataOptions(**options))


def known(data: Dataset) -> list[int] | None:
    return None if data.labels is None else data.labels.tolist()


def test_folders_named_like_classes_are_those_classes(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "dog/1.png", "cat/1.png", "cat/2.png")
    data = opened(root, ("dog", "cat"))
    assert data.names == ("cat/1.png", "cat/2.png", "dog/1.png")
    assert known(data) == [1, 1, 0]
    assert data.notices == ()
    np.testing.assert_array_equal(data.read([2]).array[0], PIXELS[0].transpose(2, 0, 1))


def test_other_folders_are_numbered_as_torchvision_does(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "n02/b.JPEG", "n02/a.JPEG", "n01/deep/c.png", "n01/z.jpg")
    (root / "n01" / "readme.txt").write_text("no image")
    data = opened(root)
    theirs = module("torchvision.datasets.folder").ImageFolder(str(root))
    assert [str(root / name) for name in data.names] == sorted(p for p, _ in theirs.samples)
    assert dict(zip(data.names, known(data) or [], strict=True)) == {
        Path(p).relative_to(root).as_posix(): label for p, label in theirs.samples
    }
    assert data.notices == ("classes are the folders in the order of their names: 0 n01, 1 n02 ... 1 n02",)


def test_empty_class_folders_count(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "b/1.png")
    (root / "a").mkdir()
    assert known(opened(root)) == [1]


def test_a_part_of_the_classes_has_no_labels(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "x", "a/1.png", "b/1.png", "c/1.png"))
    assert data.labels is None
    assert "3 folders are not the network's 2 classes" in data.notices[0]
    flat = opened(write(tmp_path / "y", "1.png", "2.png"))
    assert (flat.labels, flat.notices) == (None, ())


def test_parts(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "train/a/1.png", "train/b/1.png", "val/a/7.png", "val/b/8.png")
    data = opened(root)
    assert data.names == ("a/7.png", "b/8.png")
    assert known(data) == [0, 1]
    assert data.notices[0] == "the part val is read (--part train, --part all)"
    assert opened(root, part="train").names == ("a/1.png", "b/1.png")
    assert len(opened(root, ("a", "b"), part="all")) == 4
    assert known(opened(root, ("b", "a"), part="all")) == [1, 0, 1, 0]
    digests = {opened(root, part=part).digest for part in ("train", "test", "all")}
    assert len(digests) == 3
    with pytest.raises(UsageError, match="keeps no parts"):
        opened(root / "val", part="test")


def table(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


TABLES = {
    "names": ("1.png,cat\n3.png,dog\n", ("dog", "cat"), ["1.png", "3.png"], [1, 0]),
    "indices": ("2.png,0\r\n1.png,1\r\n", ("dog", "cat"), ["2.png", "1.png"], [0, 1]),
    "columns": ("id,label,file\n7,dog,1.png\n8,cat,2.png\n", ("dog", "cat"), ["1.png", "2.png"], [0, 1]),
    "byte order mark": ("\ufefffilename,class\n1.png,1\n", (), ["1.png"], [1]),
    "quotes": ('"1.png","cat"\n\n', ("dog", "cat"), ["1.png"], [1]),
    "own names": ("1.png,zebra\n2.png,ape\n", (), ["1.png", "2.png"], [1, 0]),
    "numbers as names": ("1.png,1\n2.png,0\n", ("1", "0"), ["1.png", "2.png"], [0, 1]),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path: Path, name: str) -> None:
    root = write(tmp_path / "x", "1.png", "2.png", "3.png")
    text, classes, names, wanted = TABLES[name]
    data = opened(root, classes, labels=table(tmp_path, text))
    assert list(data.names) == names
    assert known(data) == wanted
    left = {
        1: "1 image of the folder is not in labels.csv and is",
        2: "2 images of the folder are not in labels.csv and are",
    }
    assert data.notices[-1] == f"{left[3 - len(names)]} left out"


def test_a_file_of_the_table_that_is_missing_stays_a_sample(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "1.png", "3.png")
    data = opened(root, labels=table(tmp_path, "1.png,0\n2.png,1\n3.png,1\n"))
    samples = data.read(range(3))
    assert len(data) == 3
    assert samples.indices == (0, 2)
    assert set(samples.errors) == {1}
    assert data.digest


WRONG = {
    "empty": "",
    "one column": "1.png\n",
    "head alone": "file,label\n",
    "outside": "../secret.png,1\n",
    "absolute": "/etc/passwd,1\n",
    "no name": ",1\n",
    "twice": "1.png,0\n1.png,1\n",
    "beyond the classes": "1.png,2\n",
    "negative": "1.png,-1\n",
    "half": "1.png,0.5\n",
    "unknown": "1.png,zebra\n",
    "bytes": b"\xff\xfe\x00\x01",
    "null": b"1.png,\x001\n",
    "quote": '"1.png,0\n',
    "huge number": "1.png," + "9" * 400 + "\n",
    "huge field": "1.png," + "x" * 200_000 + "\n",
}


@pytest.mark.parametrize("name", WRONG)
def test_tables_that_are_none(tmp_path: Path, name: str) -> None:
    root = write(tmp_path / "x", "1.png")
    with pytest.raises(InputError) as caught:
        opened(root, ("dog", "cat"), labels=table(tmp_path, WRONG[name]))
    assert "labels.csv" in str(caught.value)
    assert "\n" not in caught.value.message


def test_a_name_that_comes_again_at_the_end_of_a_long_table(tmp_path: Path) -> None:
    """Found in seconds, as every fault of a file is; comparing each with all before it would take minutes."""
    root, began = write(tmp_path / "x", "1.png"), time.process_time()
    lines = [f"{i}.png,0\n" for i in range(30_000)]
    with pytest.raises(InputError, match=r"names 29999\.png twice"):
        opened(root, labels=table(tmp_path, "".join([*lines, lines[-1]])))
    assert time.process_time() - began < 5


def test_labels_are_about_folders(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "1.png")
    with pytest.raises(UsageError, match="about a folder"):
        opened(root / "1.png", labels=table(tmp_path, "1.png,0\n"))
    with pytest.raises(InputError, match="cannot be read"):
        opened(root, labels=tmp_path / "absent.csv")


def test_folders_that_hold_themselves(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "a/1.png", "b/1.png")
    (root / "a" / "again").symlink_to(root)
    assert len(opened(root)) == 2
    (root / "c").symlink_to(write(tmp_path / "y", "2.png"))
    assert len(opened(root)) == 3  # a linked class folder is one


def test_options_are_kept_as_plain_data(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "1.png")
    options = DataOptions(labels=table(tmp_path, "1.png,1\n"), limit=1)
    kept = DataOptions(**json.loads(json.dumps(options.stored())))
    assert kept.stored() == options.stored()
    assert open_dataset(root, network(), kept).digest == open_dataset(root, network(), options).digest
