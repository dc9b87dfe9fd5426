"""Event streams written to files read back as the same tensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from event_cases import neurons

from qkf_deploy.converters import event_streams
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.simulators import event
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record, Run


@pytest.fixture(scope="module")
def recorded(digits_int8: Graph, digits_data) -> Run:
    inputs, _ = encode(digits_int8, digits_data.test_images[:2])
    names = [*neurons(digits_int8), "stage1.0.add", "stage1.0.tssa.mask", "sum"]
    return event.run(digits_int8, inputs, Record.of(digits_int8, names))


@pytest.mark.parametrize("fmt", ["npz", "aer"])
def test_round_trip(recorded: Run, tmp_path: Path, fmt: str) -> None:
    event_streams.write_events(recorded, tmp_path / "out", fmt)
    back = event_streams.read_events(tmp_path / "out")
    assert set(back) == set(recorded.values)
    for name, value in recorded.values.items():
        assert back[name].shape == value.shape
        assert np.array_equal(back[name], value), name
    assert back["stage1.0.add"].max() > 1


def test_addresses(recorded: Run, tmp_path: Path) -> None:
    event_streams.write_events(recorded, tmp_path, "aer")
    text = (tmp_path / "image_00001" / "stage1.0.add.aer").read_text().splitlines()
    value = recorded.values["stage1.0.add"][:, 1]
    assert text[0] == "# t c y x value; T=4 C=16 H=16 W=16"
    rows = [tuple(map(int, line.split())) for line in text[1:]]
    assert rows == sorted(rows)
    assert len(rows) == np.count_nonzero(value)
    assert all(value[t, c, y, x] == v for t, c, y, x, v in rows)


def test_nothing_recorded(digits_int8: Graph, digits_data, tmp_path: Path) -> None:
    inputs, _ = encode(digits_int8, digits_data.test_images[:1])
    with pytest.raises(UsageError, match="no layer with events"):
        event_streams.write_events(event.run(digits_int8, inputs), tmp_path)


def test_unknown_format(recorded: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown event format"):
        event_streams.write_events(recorded, tmp_path, "csv")  # type: ignore[arg-type]


def _break_manifest(root: Path) -> None:
    (root / "manifest.json").write_text("{}")


def _huge_shape(root: Path) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["layers"][0]["shape"] = [10**6, 10**6]
    (root / "manifest.json").write_text(json.dumps(manifest))


def _remove_file(root: Path) -> None:
    next((root / "image_00000").iterdir()).unlink()


def _truncate(root: Path) -> None:
    path = sorted((root / "image_00000").iterdir())[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _outside(root: Path) -> None:
    path = root / "image_00000" / "stage1.0.add.aer"
    path.write_text("0 999 0 0 1\n")


@pytest.mark.parametrize(
    ("fmt", "damage"),
    [("npz", _break_manifest), ("npz", _huge_shape), ("aer", _remove_file), ("npz", _truncate), ("aer", _outside)],
)
def test_damaged_files_are_refused(recorded: Run, tmp_path: Path, fmt: str, damage) -> None:
    event_streams.write_events(recorded, tmp_path, fmt)
    damage(tmp_path)
    with pytest.raises(InputError):
        event_streams.read_events(tmp_path)
