"""The first sample on the page: the input itself, its gates beside and over it, neurons that never or always fire."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from netbuild import random_pixels, small_transformer
from PIL import Image

import qkf_deploy as qd
from qkf_deploy.errors import InputError
from qkf_deploy.report import pictures
from qkf_deploy.report.page import render_page
from qkf_deploy.runs.check import check_content
from qkf_deploy.runs.content import RunFile
from qkf_deploy.runs.first import input_picture, pixels


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFile:
    """Five images of 9 x 7 with labels, evaluated."""
    folder = tmp_path_factory.mktemp("pictures")
    graph, images = qd.quantize(small_transformer(0), 8), random_pixels(0, (3, 9, 7), 5)
    qd.save(graph, folder / "net.qkf")
    np.savez(folder / "data.npz", images=images, labels=np.array([0, 1, 2, 3, 0]))
    qd.evaluate(folder / "net.qkf", folder / "data.npz", folder / "run.sqlite", engine="reference", batch=2)
    return qd.load_run(folder / "run.sqlite")


def picture(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_the_first_sample_is_kept(run: RunFile) -> None:
    first = random_pixels(0, (3, 9, 7), 5)[0]
    assert run.input is not None
    np.testing.assert_array_equal(pixels(run.input), first)
    shown = pictures.input_picture(run)
    assert shown is not None
    np.testing.assert_array_equal(picture(shown.png), np.moveaxis(first, 0, -1))
    right = "right" if run.predictions[0] == run.labels[0] else "wrong"
    assert shown.caption == f"data.npz[0]; label 0; answer {run.predictions[0]}, {right}"
    page = render_page(run)
    assert page.count(shown.png) == 1
    assert shown.caption in page
    known = page[page.index("<h3>Assumptions</h3>") : page.index('<section id="evaluation">')]
    assert f"Data set: data.npz, 5 samples, SHA-256 {run.data}" in known
    assert render_page(replace(run, input=None)).count("veiled") < page.count("veiled")


def test_firing_is_that_of_the_neurons(run: RunFile) -> None:
    """Of all five images, whatever batches they run in, neuron by neuron."""
    graph, images = qd.quantize(small_transformer(0), 8), random_pixels(0, (3, 9, 7), 5)
    neurons = [n.name for n in graph if n.op.kind == "integer_neuron"]
    values = qd.simulate(graph, images, record=neurons, engine="reference").values
    assert [row["node"] for row in run.activity] == neurons
    for row in run.activity:
        fired = (values[row["node"]] != 0).mean(axis=(0, 1)).ravel()
        assert row["images"] == 5
        assert row["neurons"] == fired.size
        assert row["rates"][0] == (fired == 0).sum()
        assert row["rates"][-1] == (fired == 1).sum()
        assert row["rates"][5] == ((fired >= 0.4) & (fired < 0.5)).sum()
        assert sum(row["rates"]) == fired.size


def test_events_and_floats_as_pictures() -> None:
    frames = np.zeros((3, 2, 4, 5), dtype=np.uint8)
    frames[:, 1, 0, 0], frames[0, 0, 1, 1] = 2, 3
    shown = input_picture(frames)
    assert shown is not None
    assert shown["events"]
    assert pixels(shown)[1, 0, 0] == 255  # six events, the most
    assert pixels(shown)[0, 1, 1] == 128
    values = pixels(input_picture(np.linspace(-1, 1, 20).reshape(1, 4, 5)) or {})
    assert (values.min(), values.max()) == (0, 255)
    assert pixels(input_picture(np.full((1, 2, 2), 7.0)) or {}).max() == 0
    for odd in (np.zeros((9, 4, 4), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((3, 4096, 4096), np.uint8)):
        assert input_picture(odd) is None


def test_gates_lie_over_the_input(run: RunFile) -> None:
    """Rows and columns of the tokens are those of the input's sides; channels are no places."""
    gate = {"node": "gate", "time_steps": 4, "heads": 1, "positions": 63, "open_per_step": [1, 1, 1, 0]}
    opened = np.zeros((9, 7), dtype=int)
    opened[2, 3] = 3
    nodes = [{"name": "gate", "shape": [1, 1, 63]}]
    shown = pictures.gate({**gate, "open": [opened.ravel().tolist()]}, replace(run, graph={"nodes": nodes}))
    grey, veil = picture(shown.heads[0].png), picture(shown.heads[0].veil)
    assert grey.shape == (9, 7)
    assert (grey[2, 3], grey[0, 0]) == (64, 255)
    assert (veil[2, 3, 3], veil[0, 0, 3]) == (56, 225)
    channels = [{"name": "gate", "shape": [1, 63, 1]}]
    line = pictures.gate({**gate, "open": [opened.ravel().tolist()]}, replace(run, graph={"nodes": channels})).heads[0]
    assert line.line
    assert not line.veil


@pytest.mark.parametrize(
    "damage",
    [
        {"input": {"shape": [3, 9, 8], "pixels": ""}},
        {"input": {"shape": [3, 9], "pixels": ""}},
        {"input": {"shape": [3, 9, 7], "pixels": "%"}},
        {"input": {"shape": ["3", 9, 7], "pixels": ""}},
        {"activity": ({"node": "a", "images": 1, "neurons": 5, "rates": [5]},)},
        {"activity": ({"node": "a", "images": 1, "neurons": 5, "rates": [4] + [0] * 11},)},
    ],
)
def test_damaged_pictures(run: RunFile, damage: dict[str, object]) -> None:
    check_content(run)
    with pytest.raises(InputError, match="a damaged run file"):
        check_content(replace(run, **damage))  # type: ignore[arg-type]


def test_a_run_of_one_command_shows_its_image(tmp_path: Path) -> None:
    graph, images = qd.quantize(small_transformer(0), 8), random_pixels(0, (3, 9, 7), 2)
    measured = qd.measure(graph, images, engine="reference")
    assert measured.input is not None
    np.testing.assert_array_equal(pixels(measured.input), images[0])
    run = qd.simulate(graph, images, record="gates", engine="reference")
    qd.save_run(graph, run, tmp_path / "run.sqlite", image=images[0])
    assert qd.load_run(tmp_path / "run.sqlite").input == measured.input
