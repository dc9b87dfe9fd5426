"""What each kind of image file means: equality with pixels known beforehand, or a refusal that says why."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qkf_deploy.datasets.images import load
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph, GraphBuilder
from qkf_deploy.limits import memory_limit
from qkf_deploy.ops import Conv, Input, Linear, Neuron, Output, Readout

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)


def network(channels: int) -> Graph:
    build = GraphBuilder()
    build.add("input", Input((channels, 8, 8)))
    build.add("conv", Conv((1, 1), (1, 1), (1, 1)), ["input"], {"weight": np.ones((2, channels, 3, 3))})
    build.add("lif", Neuron(2.0, 1.0, 0.0), ["conv"])
    build.add("readout", Readout(), ["lif"])
    build.add("output", Output(), ["readout"])
    return build.build(time_steps=2)


def vectors() -> Graph:
    build = GraphBuilder()
    build.add("input", Input((4,)))
    build.add("fc", Linear(), ["input"], {"weight": np.ones((2, 4))})
    build.add("lif", Neuron(2.0, 1.0, 0.0), ["fc"])
    build.add("readout", Readout(), ["lif"])
    build.add("output", Output(), ["readout"])
    return build.build(time_steps=2)


def palette() -> Image.Image:
    image = Image.fromarray((np.arange(64) % 4).astype(np.uint8).reshape(8, 8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)[(np.arange(64) % 4).reshape(8, 8)]
#: name -> (image, suffix, pixels as a network of three channels must see them)
RIGHT = {
    "grey": (Image.fromarray(GREY), "png", np.stack([GREY] * 3, -1)),
    "colour": (Image.fromarray(COLOUR), "png", COLOUR),
    "one bit": (Image.fromarray(GREY > 100), "png", np.stack([np.where(GREY > 100, 255, 0)] * 3, -1)),
    "palette": (palette(), "png", PALETTE),
    "palette gif": (palette(), "gif", PALETTE),
    "16-bit png": (Image.fromarray(GREY.astype(np.uint16) * 256 + 200), "png", np.stack([GREY] * 3, -1)),
    "16-bit tiff": (Image.fromarray(GREY.astype(np.uint16) * 256 + 200), "tif", np.stack([GREY] * 3, -1)),
    "opaque alpha": (Image.fromarray(np.dstack([COLOUR, np.full((8, 8), 255, np.uint8)])), "png", COLOUR),
}


@pytest.mark.parametrize("name", RIGHT)
def test_pixels(tmp_path: Path, name: str) -> None:
    image, suffix, expected = RIGHT[name]
    image.save(tmp_path / f"x.{suffix}")
    given = load(tmp_path / f"x.{suffix}", network(3))
    np.testing.assert_array_equal(given.array[0], expected.transpose(2, 0, 1))
    assert bool(given.notices) == ("16-bit" in name)


def test_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to be seen upright
    Image.fromarray(COLOUR).save(tmp_path / "x.png", exif=exif)
    given = load(tmp_path / "x.png", network(3))
    np.testing.assert_array_equal(given.array[0], np.rot90(COLOUR, -1).transpose(2, 0, 1))
    assert "EXIF" in given.notices[0]


def transparent() -> Image.Image:
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[0, 0] = 254
    return Image.fromarray(np.dstack([COLOUR, alpha]))


REFUSED = {
    "transparent": (transparent(), "png", {}, "transparent pixels"),
    "32-bit integers": (Image.fromarray(GREY.astype(np.int32) * 257), "tif", {}, "no defined range"),
    "floats": (Image.fromarray(GREY.astype(np.float32)), "tif", {}, "no defined range"),
    "lab": (Image.new("LAB", (8, 8)), "tif", {}, "no defined range"),
    "animated gif": (palette(), "gif", {"save_all": True, "append_images": [palette().rotate(90)]}, "holds 2 images"),
    "pages": (Image.fromarray(GREY), "tif", {"save_all": True, "append_images": [Image.fromarray(GREY)]}, "2 images"),
    "size": (Image.fromarray(GREY[:7]), "png", {}, "8x7, the network takes 8x8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    image, suffix, options, message = REFUSED[name]
    path = tmp_path / f"x.{suffix}"
    image.save(path, **options)
    with pytest.raises(InputError, match=message) as caught:
        load(path, network(3))
    assert str(path) in str(caught.value)


def test_cmyk_says_so(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "x.tif")
    given = load(tmp_path / "x.tif", network(3))
    np.testing.assert_array_equal(given.array[0], COLOUR.transpose(2, 0, 1))
    assert "CMYK" in given.notices[0]


def test_colour_files_become_grey_for_one_channel(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "x.png")
    expected = np.asarray(Image.fromarray(COLOUR).convert("L"))
    np.testing.assert_array_equal(load(tmp_path / "x.png", network(1)).array[0, 0], expected)


def test_image_files_for_a_network_of_vectors(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"vectors of shape \(4,\)"):
        load(tmp_path / "x.png", vectors())
    np.save(tmp_path / "x.npy", np.zeros((3, 4)))
    assert load(tmp_path / "x.npy", vectors()).array.shape == (3, 4)


def test_every_damaged_image_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "x"
    for suffix in ("png", "jpg", "bmp", "gif", "webp", "tif"):
        Image.fromarray(COLOUR).save(tmp_path / f"whole.{suffix}")
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        for _ in range(30):
            data = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.5 else whole)
            for at in rng.integers(0, len(data), 3):
                data[at] = rng.integers(0, 256)
            path.write_bytes(data)
            try:
                assert load(path, network(3)).array.shape == (1, 3, 8, 8)
            except InputError:
                continue


def test_what_the_library_logs_is_no_line_of_ours(tmp_path: Path) -> None:
    """In a program of its own: pytest has a handler for everything."""
    Image.fromarray(COLOUR).save(tmp_path / "x.tif")
    entry = struct.pack("<HHIHH", 277, 3, 1, 3, 0)  # samples per pixel, a short, one of them: 3
    data = (tmp_path / "x.tif").read_bytes()
    assert data.count(entry) == 1
    (tmp_path / "x.tif").write_bytes(data.replace(entry, struct.pack("<HHIHH", 277, 3, 1, 189, 0)))
    code = (
        "import sys, pathlib\nfrom qkf_deploy.datasets import pictures\nfrom qkf_deploy.errors import InputError\n"
        "try:\n    pictures.read(pathlib.Path(sys.argv[1]), (3, 8, 8), False)\n"
        "except InputError as error:\n    print(error.message)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x.tif"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("not a readable image")
    assert done.stderr == ""


def test_a_large_image_is_refused_from_its_header(tmp_path: Path) -> None:
    Image.new("1", (13000, 13000)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"13000 x 13000 pixels takes 1\.259 GiB of memory, the limit is 1 GiB"):
        load(tmp_path / "x.png", network(1), resize=True)
    Image.new("1", (64, 64)).save(tmp_path / "x.png")
    with memory_limit(1000), pytest.raises(InputError, match="64 x 64"):
        load(tmp_path / "x.png", network(1), resize=True)
