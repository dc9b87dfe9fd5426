"""Stored runs of a small network on images whose labels are made so that some answers are wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from netbuild import random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.runs.content import RunFile, content, head, rows
from qkf_deploy.runs.store import Row

IMAGES = 12
NAMES = ("ant", "bee", "cat", "dog")

#: Makes a run of the small network at so many bits (0: float).
MakeRun = Callable[..., RunFile]


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """``make_run(bits, failed={3: "reason"}, samples=20, data="x", labels=...)``."""
    floating = replace(small_transformer(1), class_names=NAMES)
    pixels = random_pixels(5, (3, 9, 7), IMAGES)
    known: dict[int, qd.Run] = {}
    graphs: dict[int, qd.Graph] = {}

    def make(
        bits: int = 8,
        *,
        failed: Mapping[int, str] | None = None,
        samples: int = IMAGES,
        data: str = "a digest",
        labels: tuple[int | None, ...] | None = None,
        left_out: tuple[int, ...] = (),
    ) -> RunFile:
        if bits not in known:
            graphs[bits] = qd.quantize(floating, bits) if bits else qd.fold(floating)
            known[bits] = qd.simulate(graphs[bits], pixels, engine="reference")
        found = rows(known[bits])
        if labels is not None:
            found = [replace(row, label=labels[row.index]) for row in found]
        for index, reason in (failed or {}).items():
            found[index] = Row(index, f"image {index}", found[index].label, None, (), b"", reason)
        kept = [row for row in found if row.index not in left_out]
        return content(head(graphs[bits], data, samples, {}), kept)

    return make


@pytest.fixture(scope="session")
def labels(make_run: MakeRun) -> tuple[int | None, ...]:
    """What the 8-bit network answers, but for every third image, and unknown for the last one."""
    answers = [a if a is not None else 0 for a in make_run(8).predictions]
    wrong = np.arange(IMAGES) % 3 == 0
    made = [(a + 1) % len(NAMES) if w else a for a, w in zip(answers, wrong, strict=True)]
    return (*made[:-1], None)
