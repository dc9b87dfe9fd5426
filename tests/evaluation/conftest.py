"""A small evaluation: the digits network and 48 of its held-out images, and what an undisturbed run of them stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from evaluations import Cluster, cluster, rows

from qkf_deploy.datasets.digits import Digits
from qkf_deploy.ir import Graph
from qkf_deploy.runs.store import Row

IMAGES = 48


@dataclass(frozen=True)
class Place:
    """Files to evaluate with, and the right rows."""

    network: Path
    data: Path
    deadly: Path
    rows: list[Row]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, digits_int8: Graph, digits_data: Digits) -> Place:
    import qkf_deploy as qd

    folder = tmp_path_factory.mktemp("evaluation")
    network = folder / "net.int.qkf"
    qd.save(digits_int8, network)
    arrays = {"images": digits_data.test_images[:IMAGES], "labels": digits_data.test_labels[:IMAGES]}
    for name in ("data", "deadly"):
        np.savez(folder / f"{name}.npz", **arrays)
    qd.evaluate(network, folder / "data.npz", folder / "undisturbed.sqlite")
    found = rows(folder / "undisturbed.sqlite")
    assert [row.index for row in found] == list(range(IMAGES))
    return Place(network, folder / "data.npz", folder / "deadly.npz", found)


@pytest.fixture(scope="session")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found
