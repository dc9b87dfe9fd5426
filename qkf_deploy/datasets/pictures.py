"""Image files as pixels: what each kind of file means, or why it is refused.

The meaning is that of the usual ImageNet evaluation (decode, convert to RGB or grey, resize, centre crop) where that
one is defined; where it would silently clip or guess, the file is refused or a notice says what was done.
"""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from qkf_deploy import limits
from qkf_deploy.errors import InputError, told
from qkf_deploy.ir import Resize

# What Pillow logs of a damaged file is in the error, too; without a handler it would reach stderr as a stray line.
logging.getLogger("PIL").addHandler(logging.NullHandler())

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".gif")
"""Of image files, in lower case."""

#: Shorter side before the centre crop, relative to the crop (the usual ImageNet evaluation, 256 / 224).
_CROP = 256 / 224
#: Bytes that decoding, converting and resizing take for each pixel of a file.
_BYTES_PER_PIXEL = 8
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_CONVERTED = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
#: What Pillow raises for damaged and hostile files.
_DAMAGE = (OSError, ValueError, TypeError, SyntaxError, EOFError, IndexError, KeyError, OverflowError, struct.error,
           zlib.error, Image.DecompressionBombError)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A decoded image file.

    Attributes:
        pixels: ``(C, H, W)`` uint8.
        notices: what was done to it that a user should know.
    """

    pixels: np.ndarray
    notices: tuple[str, ...]


def read(path: Path, shape: tuple[int, ...], resize: bool | Resize) -> Picture:
    """Pixels of an image file.

    Args:
        path: of the file.
        shape: ``(C, H, W)`` of the network's input, C = 1 or 3.
        resize: a resizing, for images of every size as torchvision has it, which leaves EXIF orientations alone; True:
            scale (bicubic) and crop the centre where the size does not fit; False: only that size.

    Raises:
        InputError: unreadable, animated, with transparent pixels, of a depth without a defined range, too large, or of
            another size.
    """
    channels, height, width = shape
    mode = {1: "L", 3: "RGB"}.get(channels)
    if mode is None:
        raise InputError(f"the network takes {channels} channels, image files have 1 or 3", where=str(path))
    limits.regular_size(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of half-read metadata; and the size is checked below
            image, notices = _decode(path, mode, turn=not isinstance(resize, Resize))
    except _DAMAGE as error:
        raise InputError(f"not a readable image: {told(error)}", where=str(path)) from error
    if isinstance(resize, Resize):
        image = _as_torchvision(image, resize, width, height)
    elif image.size != (width, height):
        if not resize:
            raise InputError(
                f"the image is {image.size[0]}x{image.size[1]}, the network takes {width}x{height}",
                where=str(path),
                hint="add --resize, or trace the network with another --image-size",
            )
        image = _fit(image, width, height)
    array = np.asarray(image, dtype=np.uint8)
    return Picture(array[None] if mode == "L" else np.ascontiguousarray(array.transpose(2, 0, 1)), notices)


def _decode(path: Path, mode: str, turn: bool) -> tuple[Image.Image, tuple[str, ...]]:
    """One upright image in ``L`` or ``RGB``, with 8 bits a channel, and notices."""
    with Image.open(path) as opened:
        pixels = opened.width * opened.height
        limits.check(pixels * _BYTES_PER_PIXEL, f"an image of {opened.width} x {opened.height} pixels", str(path))
        if (count := getattr(opened, "n_frames", 1)) > 1:
            raise InputError(f"holds {count} images", where=str(path), hint="save the one you mean by itself")
        opened.load()
        upright, notices = _turned(opened, turn)
        return _eight_bits(upright, path).convert(mode), (*notices, *_depth_notice(upright))


def _turned(image: Image.Image, turn: bool) -> tuple[Image.Image, tuple[str, ...]]:
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in (0, 1):
        return image, ()
    if not turn:
        return image, ("images with an EXIF orientation are left lying, as torchvision's ImageNet evaluation does",)
    notice = "images with an EXIF orientation are turned upright (torchvision's ImageNet evaluation leaves them lying)"
    return ImageOps.exif_transpose(image), (notice,)


def _depth_notice(image: Image.Image) -> tuple[str, ...]:
    if image.mode in _SIXTEEN_BIT:
        return ("16-bit images: the high byte of each pixel is used",)
    return ("CMYK images are converted to RGB without their colour profile",) if image.mode == "CMYK" else ()


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """The same image in a mode that Pillow converts without clipping or dropping anything."""
    if image.mode in _SIXTEEN_BIT:
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # older Pillow reads 16-bit PNG and PGM so
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        return _opaque(image.convert("RGBA"), path)
    if image.mode not in _CONVERTED:
        raise InputError(
            f"pixels of mode {image.mode} have no defined range of brightness",
            where=str(path),
            hint="save it with 8 or 16 bits, or give a .npy file",
        )
    return image


def _opaque(image: Image.Image, path: Path) -> Image.Image:
    """The colours of an image whose alpha channel hides nothing."""
    low, _ = image.getchannel("A").getextrema()
    if low != 255:
        raise InputError("has transparent pixels", where=str(path), hint="flatten it onto the background you mean")
    return image.convert("RGB")


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    factor = _CROP * max(width / image.width, height / image.height)
    size = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    _check_scaled(size)
    scaled = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return scaled.crop((left, top, left + width, top + height))


def _as_torchvision(image: Image.Image, resize: Resize, width: int, height: int) -> Image.Image:
    """``Resize`` and ``CenterCrop`` of torchvision 0.28 on Pillow images."""
    short, long = sorted(image.size)
    other = int(resize.shorter * long / short)
    size = (resize.shorter, other) if image.width <= image.height else (other, resize.shorter)
    _check_scaled(size)
    scaled = image if image.size == size else image.resize(size, Image.Resampling[resize.interpolation.upper()])
    left, top = (round((a - b) / 2) for a, b in zip(size, (width, height), strict=True))
    return scaled.crop((left, top, left + width, top + height))


def _check_scaled(size: tuple[int, int]) -> None:
    limits.check(size[0] * size[1] * _BYTES_PER_PIXEL, f"the image scaled to {size[0]} x {size[1]} pixels")
