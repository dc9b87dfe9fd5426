"""Resizing and cropping of image files: equal to torchvision's, kept with the network, and said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracle.field import module
from PIL import Image
from test_image_files import network

import qkf_deploy as qd
from qkf_deploy.converters.torch import pixels
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph, Preprocessing, Resize
from qkf_deploy.options import DataOptions, TraceOptions
from qkf_deploy.report.layer_table import facts

RNG = np.random.default_rng(7)


def with_resize(resize: Resize, channels: int = 3) -> Graph:
    return replace(network(channels), preprocessing=Preprocessing((0.5,) * channels, (0.25,) * channels, resize))


def read(path: Path, graph: Graph, **options: object) -> np.ndarray:
    return qd.load_images(path, graph, **options).array[0]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"])
def test_equal_to_torchvision(tmp_path: Path, interpolation: str) -> None:
    transforms = module("torchvision.transforms")
    for size in ((8, 8), (9, 9), (21, 13), (13, 21), (10, 31), (4, 3), (64, 9)):
        for shorter in (8, 9, 11):
            image = Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
            image.save(tmp_path / "x.png")
            theirs = transforms.Compose(
                [transforms.Resize(shorter, getattr(transforms.InterpolationMode, interpolation.upper())),
                 transforms.CenterCrop(8)]
            )(image)  # fmt: skip
            ours = read(tmp_path / "x.png", with_resize(Resize(shorter, interpolation)))
            np.testing.assert_array_equal(ours, np.asarray(theirs).transpose(2, 0, 1), err_msg=f"{size} {shorter}")


def test_orientation_is_left_alone_as_there(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    colour = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "x.png", exif=exif)
    given = qd.load_images(tmp_path / "x.png", with_resize(Resize(8)))
    np.testing.assert_array_equal(given.array[0], colour.transpose(2, 0, 1))
    assert any("left lying" in n for n in given.notices)


def test_stored_resizing_is_used_unless_the_user_says_no(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (20, 10, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    graph = with_resize(Resize(9, "bilinear"))
    data = open_dataset(tmp_path / "x.png", graph, DataOptions())
    assert data.notices == (
        "images are resized to 9 pixels (bilinear) and cropped to 8 x 8, as stored with the network "
        "(--no-resize: taken as they are)",
    )
    with pytest.raises(InputError, match="10x20, the network takes 8x8"):
        read(tmp_path / "x.png", graph, resize=False)
    with pytest.raises(InputError, match="10x20, the network takes 8x8"):
        read(tmp_path / "x.png", network(3))
    assert read(tmp_path / "x.png", network(3), resize=True).shape == (3, 8, 8)
    other = open_dataset(tmp_path / "x.png", with_resize(Resize(9)), DataOptions())
    assert data.digest != other.digest


def test_very_long_images_are_refused_from_their_size(tmp_path: Path) -> None:
    Image.new("1", (65000, 1)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="scaled to 72800000 x 1120"):
        read(tmp_path / "x.png", with_resize(Resize(1120)))


def test_kept_by_files_and_shown(tmp_path: Path) -> None:
    graph = with_resize(Resize(9, "lanczos"))
    qd.save(graph, tmp_path / "x.qkf")
    assert qd.load(tmp_path / "x.qkf").preprocessing == graph.preprocessing
    assert "image files: shorter side to 9 pixels (lanczos), centre 8 x 8" in facts(graph, ())
    qd.save(network(3), tmp_path / "x.qkf")
    assert qd.load(tmp_path / "x.qkf").preprocessing is None
    integer = qd.quantize(replace(graph), 8)
    assert integer.preprocessing == graph.preprocessing


@pytest.mark.parametrize("resize", [Resize(7), Resize(2**16 + 1)])
def test_files_with_another_resizing_are_refused(tmp_path: Path, resize: Resize) -> None:
    qd.save(with_resize(resize), tmp_path / "x.qkf")
    with pytest.raises(InputError, match="do not hold an input"):
        qd.load(tmp_path / "x.qkf")
    for wrong in ((0.5, "bicubic"), (9, "cubic"), (True, "bicubic"), ("9", "bicubic")):
        with pytest.raises(InputError, match="Resize"):
            Resize(*wrong)


PRESETS = [
    ({"preset": "imagenet"}, 224, Resize(256)),
    ({"preset": "imagenet"}, 192, Resize(219)),
    ({"preset": "imagenet"}, 288, Resize(288)),
    ({"preset": "cifar10"}, 32, None),
    ({"preset": "none"}, 224, None),
    ({}, 224, None),
    ({"mean": (0.5,), "std": (0.5,)}, 224, None),
    ({"preset": "imagenet", "eval_resize": 232, "interpolation": "bilinear"}, 224, Resize(232, "bilinear")),
    ({"eval_resize": 40}, 32, Resize(40)),
]


@pytest.mark.parametrize(("options", "size", "wanted"), PRESETS)
def test_presets(options: dict[str, object], size: int, wanted: Resize | None) -> None:
    assert pixels.resizing(TraceOptions(**options), (3, size, size), None, "") == (wanted, [])


def test_official_files_have_that_of_the_official_evaluation() -> None:
    resize, (assumption,) = pixels.resizing(TraceOptions(), (3, 224, 224), "imagenet", "as in the official code")
    assert resize == Resize(256, "bicubic")
    assert (assumption.name, assumption.value, assumption.option) == ("resize", "256 pixels (bicubic)", "--eval-resize")
    assert pixels.resizing(TraceOptions(preset="none"), (3, 224, 224), "imagenet", "") == (None, [])


def test_options_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="smaller than the input of 32x32"):
        pixels.resizing(TraceOptions(eval_resize=31), (3, 32, 32), None, "")
    with pytest.raises(UsageError, match="is that of --eval-resize"):
        pixels.resizing(TraceOptions(interpolation="box"), (3, 32, 32), None, "")
