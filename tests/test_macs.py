"""Multiply-accumulates of every layer of the 13 published QKFormer models, against counts from the official code.

``data/qkformer_macs.csv``: per layer and time step, recorded with forward hooks on the official files (dense: padding
counted, as libraries run them; border_exact: taps that exist). Neurons, pools, Q-K sums and gates are elements.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest
import torch

import qkf_deploy as qd
from qkf_deploy.ir import Graph
from qkf_deploy.models import QKFormer, build_config
from qkf_deploy.ops import MaxPool

Row = dict[str, str]

#: Model of the table -> named build and image size.
MODELS = {
    **{f"HST-10-{e}@{s}": (f"qkformer-10-{e}", s) for e in (384, 512, 768) for s in (224, 288, 384)},
    "HST-4-384@32-CIFAR10": ("qkformer-4-384-cifar10", 32),
    "HST-4-384@32-CIFAR100": ("qkformer-4-384-cifar100", 32),
    "HST-2-256@128-CIFAR10DVS(mlp1 10cls)": ("qkformer-2-256-cifar10dvs", 128),
    "HST-2-256@128-DVS128Gesture(mlp4 11cls)": ("qkformer-2-256-dvs128", 128),
}
#: What the hooks called an operation that is a function, and what the graph calls it.
FUNCTIONS = {"kTv": "matmul", "q_kv": "matmul#2", "sum_q": "sum", "mask_k": "mask"}


def table() -> dict[str, list[Row]]:
    rows = defaultdict(list)
    with (Path(__file__).parent / "data" / "qkformer_macs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["model"]].append(row)
    return rows


TABLE = table()


def traced(build: str, image_size: int) -> Graph:
    """The graph of a build whose weights are zero: only shapes matter here."""
    with torch.device("meta"):
        model = QKFormer(build_config(build, image_size=image_size)).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    return qd.trace(model)


def node_name(layer: str) -> str:
    path, _, last = layer.rpartition(".")
    return f"{path}.{FUNCTIONS.get(last, last)}" if path else last


def counts(graph: Graph, row: Row) -> tuple[int, int, int]:
    """(dense, border exact, bias additions) of the row's node, in the table's terms."""
    node = graph[node_name(row["layer"])]
    types = graph.input_types(node)
    if node.op.kind in ("conv", "linear", "matmul"):
        cost = node.op.static_cost(types, node.params)
        return cost.dense_macs, cost.border_exact_macs, node.type.size if "bias" in node.params else 0
    if isinstance(node.op, MaxPool):  # comparisons of a full window; the table counts none at borders
        return node.type.size * (node.op.kernel[0] * node.op.kernel[1] - 1), 0, 0
    size = types[0].size if node.op.kind == "sum" else node.type.size
    return size, size, 0


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(MODELS)
    assert sum(map(len, TABLE.values())) == 1773


SLOW = [pytest.param(m, marks=pytest.mark.slow) if m.startswith("HST-10") else m for m in MODELS]


@pytest.mark.parametrize("model", SLOW)
def test_counts_equal_the_official_code(model: str) -> None:
    graph = traced(*MODELS[model])
    wrong = []
    for row in TABLE[model]:
        expected = tuple(int(row[k]) for k in ("dense", "border_exact", "bias_adds"))
        found = counts(graph, row)
        if row["layer"].endswith(("attn.proj_lif", "ssa.proj_lif")) and "tssa" not in row["layer"]:
            # The official SSA calls this neuron on (T * B, C, N); the hook took C for the batch and counted N only.
            expected = (expected[0] * graph[node_name(row["layer"])].type.shape[0],) * 2 + (0,)
        if found != expected:
            wrong.append((row["layer"], expected, found))
    assert wrong == []
    listed = {node_name(row["layer"]) for row in TABLE[model]}
    assert [n.name for n in graph if n.op.kind in ("conv", "linear", "matmul", "neuron") and n.name not in listed] == []
