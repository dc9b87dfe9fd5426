"""CIFAR in its four published forms, and pickles that are none; the digits by name."""

from __future__ import annotations

import pickle
import pickletools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from netbuild import Net
from published import CIFAR10, cifar_images, cifar_pickle, write_cifar

import qkf_deploy as qd
from qkf_deploy.datasets.dataset import Dataset
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.datasets.plain_pickle import read
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.limits import memory_limit
from qkf_deploy.options import DataOptions

FORMS = [(10, "python"), (10, "binary"), (100, "python"), (100, "binary")]


def network(classes: int, size: int = 32, channels: int = 3) -> Graph:
    net = Net(0, (channels, size, size))
    net.lif("lif", net.conv("conv", "input", 2))
    net.head("lif", classes)
    return net.build()


def opened(path: Path | str, classes: int = 10, **options: object) -> Dataset:
    return open_dataset(path, network(classes), DataOptions(**options))


@pytest.mark.parametrize(("classes", "form"), FORMS)
def test_published_forms(tmp_path: Path, classes: int, form: str) -> None:
    made = write_cifar(tmp_path / "x", classes, form)
    *train, test = made
    data = opened(tmp_path / "x", classes)
    assert data.notices == (f"the test part of cifar{classes} {form} is read (--part train, --part all)",)
    images, known = made[test]
    np.testing.assert_array_equal(data.read(range(30)).array, images)
    assert data.labels is not None
    assert data.labels.tolist() == known
    whole = opened(tmp_path / "x", classes, part="all")
    assert len(whole) == 30 * len(made)
    first = made[train[0]][0]
    np.testing.assert_array_equal(whole.read([29, 0, len(whole) - 1]).array, [first[29], first[0], images[29]])
    assert len(opened(tmp_path / "x", classes, part="train", limit=7)) == 7
    single = opened(tmp_path / "x" / train[0], classes)
    np.testing.assert_array_equal(single.read([3]).array[0], made[train[0]][0][3])
    assert len({data.digest, whole.digest, single.digest}) == 3


@pytest.mark.parametrize("classes", [10, 100])
def test_both_forms_say_the_same(tmp_path: Path, classes: int) -> None:
    found = []
    for form in ("python", "binary"):
        write_cifar(tmp_path / form, classes, form)
        found.append(opened(tmp_path / form, classes, part="all"))
    first, second = found
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.read(range(40)).array, second.read(range(40)).array)


def test_python_reads_the_same(tmp_path: Path) -> None:
    """The files made here are what Python's unpickler, as torchvision calls it, takes for a batch."""
    write_cifar(tmp_path / "x", 10, "python", count=1200)
    data = (tmp_path / "x" / "test_batch").read_bytes()
    theirs = pickle.loads(data, encoding="latin1")
    ours = read(tmp_path / "x" / "test_batch")
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value)
    assert max(op.proto for op, _, _ in pickletools.genops(data)) == 2


def test_labels_follow_the_networks_names(tmp_path: Path) -> None:
    made = write_cifar(tmp_path / "x", 10, "python")
    graph = replace(network(10), class_names=CIFAR10[::-1])
    data = open_dataset(tmp_path / "x", graph, DataOptions())
    assert data.labels is not None
    assert data.labels.tolist() == [9 - k for k in made["test_batch"][1]]
    (tmp_path / "x" / "batches.meta").unlink()
    assert "batches.meta is not there" in opened(tmp_path / "x").notices[1]


def damaged(form: str, change: str) -> bytes:
    records = np.concatenate([np.zeros((3, 1), np.uint8), cifar_images(3).reshape(3, -1)], axis=1)
    if form == "binary":
        if change == "label":
            records[1, 0] = 10
        data = records.tobytes()
    else:
        known = [0, 10, 1] if change == "label" else [0, 1] if change == "few" else [0, 1, 2]
        data = cifar_pickle({"labels": known, "data": records[:, 1:]})
    longer = data + b"x" if form == "binary" else b"\x80\x02}q"
    return {"cut": data[:-1], "empty": b"", "more": longer}.get(change, data)


@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("change", ["cut", "empty", "more", "label", "few"])
def test_damaged_batches(tmp_path: Path, form: str, change: str) -> None:
    name = "test_batch.bin" if form == "binary" else "test_batch"
    (tmp_path / name).write_bytes(damaged(form, change))
    if (form, change) == ("binary", "few"):
        pytest.skip("a record has its label")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(InputError):
            opened(path)


class Calls:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("called",)


HOSTILE = {
    "calls": pickle.dumps({"data": Calls(), "labels": []}, 2),
    "names os": b"\x80\x02cposix\nsystem\nU\x04true\x85R.",
    "names by stack": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "memory by memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "endless string": b"\x80\x02T\xff\xff\xff\x7fabc.",
    "negative string": b"\x80\x02T\xff\xff\xff\xffabc.",
    "huge array": b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R\x89U\x01xtbs.",
    "array without state": b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\n"
    b"cnumpy\nndarray\nK\x00\x85U\x01b\x87Rs.",
    "list in itself": b"\x80\x02]q\x00h\x00a.",
    "dictionary in itself": b"\x80\x02}q\x00U\x04datah\x00s.",
    "list as key": b"\x80\x02}]K\x01s.",
    "deep": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
    "persistent": b"\x80\x02Q.",
    "stack underflow": b"\x80\x02\x87.",
    "two results": b"\x80\x02}}.",
    "no mark": b"\x80\x02}u.",
    "odd items": b"\x80\x02}(U\x01au.",
    "number": b"\x80\x02K\x01.",
    "text protocol": b"(dp0\nS'data'\np1\nI1\ns.",
    "empty": b"",
    "not a pickle": b"\x89PNG\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "test_batch"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(InputError) as caught:
        opened(path)
    assert "\n" not in caught.value.message
    assert capsys.readouterr().out == ""


def test_a_long_pickle_takes_seconds_at_most(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(b"\x80\x02}" + b"(" * 200_000 + b".")
    with pytest.raises(InputError):
        opened(tmp_path)
    with memory_limit("1M"), pytest.raises(InputError, match="of memory"):
        opened(tmp_path)


def test_other_networks(tmp_path: Path) -> None:
    write_cifar(tmp_path / "x", 10, "binary", 3)
    with pytest.raises(InputError, match="is 32, not 16"):
        open_dataset(tmp_path / "x", network(10, 16), DataOptions())
    (tmp_path / "x" / "data_batch_3.bin").unlink()
    assert len(opened(tmp_path / "x")) == 3
    with pytest.raises(InputError, match=r"has no data_batch_3\.bin"):
        opened(tmp_path / "x", part="train")


def test_digits_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network(10, 16, 1)
    held = open_dataset("digits", graph, DataOptions())
    named = qd.load_images("digits:test", graph)
    assert (len(held), held.address) == (360, "digits:test")
    assert open_dataset(held.address, graph, DataOptions()).digest == held.digest
    np.testing.assert_array_equal(held.read(range(360)).array, named.array)
    np.testing.assert_array_equal(held.labels, named.labels)
    train = open_dataset("digits:train", graph, DataOptions())
    both = open_dataset("digits", graph, DataOptions(part="all"))
    assert (len(train), len(both)) == (1437, 1797)
    np.testing.assert_array_equal(both.read([1436, 1437]).array[1], held.read([0]).array[0])
    assert len({held.digest, train.digest, both.digest}) == 3
    with pytest.raises(UsageError, match="no part 'val'"):
        open_dataset("digits:val", graph, DataOptions())
    with pytest.raises(UsageError, match="say it once"):
        open_dataset("digits:test", graph, DataOptions(part="train"))
    with pytest.raises(InputError, match="digits: the input has shape"):
        open_dataset("digits", network(10, 8, 1), DataOptions())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    with pytest.raises(InputError, match="no images in this folder"):  # a folder of that name is what is meant
        open_dataset("digits", graph, DataOptions())
