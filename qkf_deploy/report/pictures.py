"""Pictures of a page: the first input, and its Q-K gates beside and over it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

from qkf_deploy.display.numbers import percent, si
from qkf_deploy.runs.content import RunFile
from qkf_deploy.runs.first import pixels

#: Colours of events of polarity 0 and 1.
_POLARITIES = ((47, 120, 200), (199, 104, 28))


@dataclass(frozen=True)
class InputPicture:
    """The first sample: PNG as base64, width over height, and what it is in words."""

    png: str
    ratio: str
    caption: str


@dataclass(frozen=True)
class Head:
    """One head of a gate.

    Attributes:
        png: how often it was open, black for every step; a veil over the input, transparent where it was, as ``veil``.
        veil: empty where positions are no places of the input.
        line: positions that are no places, as one row.
    """

    png: str
    veil: str
    line: bool
    caption: str
    alt: str


@dataclass(frozen=True)
class Gate:
    """One gate: its node, its shares in words, its heads."""

    node: str
    text: str
    heads: tuple[Head, ...]


def input_picture(run: RunFile) -> InputPicture | None:
    """The first sample with its label and the network's answer; ``None`` where it is no picture."""
    if run.input is None:
        return None
    height, width = run.input["shape"][1:]
    return InputPicture(
        _png(_colours(pixels(run.input), bool(run.input.get("events")))), f"{width}/{height}", _said(run)
    )


def _said(run: RunFile) -> str:
    """Name, label and answer of the first sample."""
    name, label, answer = run.names[0], run.labels[0], run.predictions[0]
    parts = [name, *([f"label {_class(run, label)}"] if label is not None else [])]
    if answer is not None:
        right = "" if label is None else ", right" if answer == label else ", wrong"
        parts.append(f"answer {_class(run, answer)}{right}")
    if run.input and run.input.get("events"):
        parts.append("events of all steps, blue and orange by polarity")
    elif run.input and run.input.get("scaled"):
        parts.append("normalized values, from the smallest (black) to the largest (white)")
    return "; ".join(parts)


def _class(run: RunFile, index: int) -> str:
    return run.class_names[index] if run.class_names else str(index)


def _colours(values: np.ndarray, events: bool) -> np.ndarray:
    """``(C, H, W)`` as something that a picture can be: grey ``(H, W)`` or ``(H, W, 3)``."""
    if events and len(values) == 2:
        veil = values[..., None] / 255 * (255 - np.array(_POLARITIES)[:, None, None, :])
        return np.clip(255 - veil.sum(axis=0), 0, 255).astype(np.uint8)
    return np.moveaxis(values[:3], 0, -1) if len(values) >= 3 else values[0]


def gate(picture: Mapping[str, Any], run: RunFile) -> Gate:
    """The pictures of one gate."""
    steps = max(picture["time_steps"], 1)
    opened = np.array(picture["open"], dtype=np.float64)
    share = Fraction(int(opened.sum()), int(opened.size) * steps)
    place = _places(picture, run)
    heads = tuple(_head(picture["node"], i, row / steps, place, run.input is not None) for i, row in enumerate(opened))
    per_step = ", ".join(si(n) for n in picture["open_per_step"])
    return Gate(picture["node"], f"open {percent(share)}; open gates per step: {per_step}", heads)


def _places(picture: Mapping[str, Any], run: RunFile) -> tuple[int, int] | None:
    """Rows and columns of a gate's tokens; ``None`` where it gates channels, or tokens that are no grid."""
    shape = next((n["shape"] for n in run.graph["nodes"] if n["name"] == picture["node"]), [])
    positions = int(picture["positions"])
    if not shape or shape[-1] != positions:
        return None
    height, width = run.input["shape"][1:] if run.input is not None else (1, 1)
    rows = math.isqrt(positions * height // width)
    return (rows, positions // rows) if rows and rows * rows * width == positions * height else None


def _head(node: str, index: int, share: np.ndarray, place: tuple[int, int] | None, over: bool) -> Head:
    grid = share.reshape(place or (1, -1))
    fraction = percent(share.mean())
    veil = ""
    if place and over:
        alpha = np.rint(225 * (1 - grid)).astype(np.uint8)
        veil = _png(np.dstack([np.full_like(alpha, 20)] * 3 + [alpha]))
    grey = (255 - np.rint(255 * grid)).astype(np.uint8)
    alt = f"{node} head {index}: gate open for {fraction} of {'tokens' if place else 'positions'} and steps"
    return Head(_png(grey), veil, place is None, f"head {index}: open {fraction}", alt)


def _png(values: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
