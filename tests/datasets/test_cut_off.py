"""Files cut off at every few bytes beside a whole one: each stays a sample, and the whole one is read as before."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published import aedat2, aedat3, atis, random_events
from test_events import network as of_events
from test_image_files import network as of_pictures

from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions

_CUTS, _SECONDS = 60, 5


def picture(form: str) -> bytes:
    found = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(found, form)
    return found.getvalue()


def archive(**arrays: np.ndarray) -> bytes:
    found = io.BytesIO()
    np.savez(found, **arrays)
    return found.getvalue()


#: Suffix and what is stored -> a whole file, and the network.
FORMS: dict[str, tuple[Callable[[], bytes], Callable[[], Graph]]] = {
    ".png": (lambda: picture("png"), lambda: of_pictures(3)),
    ".jpg": (lambda: picture("jpeg"), lambda: of_pictures(3)),
    ".webp": (lambda: picture("webp"), lambda: of_pictures(3)),
    ".tif": (lambda: picture("tiff"), lambda: of_pictures(3)),
    ".bin": (lambda: atis(random_events(100, 34, 34)), lambda: of_events(34, 34)),
    ".aedat 2": (lambda: aedat2(random_events(60)), lambda: of_events(128, 128)),
    ".aedat 3": (lambda: aedat3(random_events(60)), lambda: of_events(128, 128)),
    ".npz events": (lambda: archive(**random_events(40, 34, 34)), lambda: of_events(34, 34)),
    ".npz frames": (lambda: archive(frames=np.ones((4, 2, 34, 34), np.uint8)), lambda: of_events(34, 34)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_cut_off_stays_a_sample(tmp_path: Path, form: str) -> None:
    whole, graph = FORMS[form][0](), FORMS[form][1]()
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"x{form.split()[0]}").write_bytes(whole)
    wanted, refused = open_dataset(tmp_path, graph, DataOptions()).read([0]).array[0], 0
    cut = tmp_path / "1" / f"x{form.split()[0]}"
    for size in range(0, len(whole), max(1, len(whole) // _CUTS)):
        cut.write_bytes(whole[:size])
        began = time.process_time()
        data = open_dataset(tmp_path, graph, DataOptions())
        samples = data.read(range(len(data)))
        assert data.digest
        assert time.process_time() - began < _SECONDS
        assert sorted({*samples.indices, *samples.errors}) == [0, 1] == list(range(len(data)))
        np.testing.assert_array_equal(samples.array[samples.indices.index(0)], wanted)
        refused += 1 in samples.errors
    assert refused > _CUTS // 2  # some formats may end at any record
