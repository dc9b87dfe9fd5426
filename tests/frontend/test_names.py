"""Layers may have any name: every module's node has its path, and the graph's own nodes give way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from frontend_networks import Traced, assert_exact, assert_faithful, traced
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.converters.event_streams import read_events

#: What the graph and its passes call their own nodes, what exporters call theirs, and what files cannot hold.
NAMES = (
    "input", "output", "readout", "mean", "scale", "sum", "linear", "conv", "neuron", "identity", "fc#2", "logits",
    "raw_output", "file", "all", "self", "class", "1", "weight", "ReadOut", "a b", "a/b", "/etc/x", "a@1", "x[0]",
    "é漢", "<b>", "[red]", "a=b", "a\"b", "a'b", "a\\b", "a\nb", "a\x00b", "\ud800", "__metadata__", "n" * 300,
)  # fmt: skip


class Named(nn.Module):
    """A network whose layers have the given names, all in one module."""

    def __init__(self, first: str, spikes: str, pool: str, second: str, more: str, last: str) -> None:
        super().__init__()
        self.steps, self.names = 2, (first, spikes, pool, second, more, last)
        layers = (
            nn.Conv2d(1, 4, 3, padding=1),
            neuron.LIFNode(step_mode="m", v_threshold=0.1),
            nn.Identity(),
            nn.Linear(16, 6),
            neuron.LIFNode(step_mode="m", v_threshold=0.1),
            nn.Linear(6, 3),
        )
        for name, layer in zip(self.names, layers, strict=True):
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        first, spikes, pool, second, more, last = (self._modules[n] for n in self.names)
        x = spikes(first(x)[None].repeat(self.steps, 1, 1, 1, 1))
        x = pool(x).flatten(3).mean(2)
        return last(more(second(x)).mean(0))


def network(names: tuple[str, ...]) -> Traced:
    return traced(Named(*names), image_size=4, in_channels=1, preset="none")


@pytest.mark.parametrize("start", range(0, len(NAMES), 6))
def test_any_name(start: int, tmp_path: Path) -> None:
    names = tuple((*NAMES, *NAMES)[start : start + 6])
    net = network(names)
    assert_faithful(net)
    kinds = {name: net.graph[escaped].op.kind for name in names if (escaped := _escaped(name)) in net.graph.nodes}
    assert [kinds.get(name) for name in names] == ["conv", "neuron", None, "linear", "neuron", "linear"]
    integer = assert_exact(net.graph, net.images)
    qd.save(integer, tmp_path / "net.qkf")
    again = qd.load(tmp_path / "net.qkf")
    assert list(again.nodes) == list(integer.nodes)
    assert np.array_equal(qd.simulate(again, net.images).raw_output, qd.simulate(integer, net.images).raw_output)


def _escaped(name: str) -> str:
    return {"a\nb": "a\\nb", "a\x00b": "a\\x00b", "\ud800": "\\ud800"}.get(name, name)


def test_the_graphs_own_nodes_are_numbered() -> None:
    graph = network(("input", "lif", "sum", "scale", "readout", "output")).graph
    assert (graph.input.name, graph.output.name) == ("input#2", "output#2")
    assert [(n.name, n.op.kind) for n in graph if "#" in n.name] == [
        ("input#2", "input"),
        ("sum#2", "sum"),
        ("readout#2", "readout"),
        ("output#2", "output"),
    ]


def test_a_function_never_takes_the_name_of_a_module_that_runs_later() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.sum = nn.Conv2d(1, 2, 1), neuron.IFNode(step_mode="m", v_threshold=0.1)
            nn.init.constant_(self.conv.weight, 0.1)
            nn.init.constant_(self.conv.bias, 0.1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).sum(2)[None].repeat(2, 1, 1, 1)
            return self.sum(x).mean((0, 3))

    net = traced(Late(), image_size=4, in_channels=1)
    assert net.graph["sum"].op.kind == "neuron"
    assert net.graph["sum#2"].op.kind == "sum"
    assert_faithful(net)


def test_recorded_values_never_take_the_place_of_the_logits(tmp_path: Path) -> None:
    net = network(("logits", "file", "pool", "raw_output", "logits#2", "all"))
    run = qd.simulate(net.graph, net.images, record="all")
    assert len(run.values) == len(net.graph.nodes) - 1
    qd.save_arrays(run, tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as saved:
        assert set(saved.files) == {"raw_output#2", "logits#3", *run.values} | {"logits", "raw_output"}
        assert np.array_equal(saved["logits"], run.logits)
        assert np.array_equal(saved["raw_output"], run.raw_output)
        for key, node in (("logits#3", "logits"), ("raw_output#2", "raw_output"), ("file", "file"), ("all", "all")):
            assert np.array_equal(saved[key], run.values[node])


EXPORTED = (
    ("logits", "raw_output", "pool", "LIF", "lif", "readOut"),
    ("input", "n" * 300, "pool", "fc", "é" * 90, "output"),
    ("readout", "N" * 300, "pool", "fc", "n" * 299 + "m", "scale"),
)


@pytest.mark.parametrize("names", EXPORTED, ids=["results and case", "long", "long and case"])
def test_exports_keep_every_node_apart(names: tuple[str, ...], tmp_path: Path) -> None:
    net = network(names)
    integer = qd.quantize(net.graph)
    run = qd.simulate(integer, net.images, record="events")
    qd.export_events(run, tmp_path / "events")
    read = read_events(tmp_path / "events")
    assert set(read) == set(run.values)
    assert all(np.array_equal(read[name], run.values[name]) for name in read)
    files = [path.name.lower() for path in (tmp_path / "events" / "image_00000").iterdir()]
    assert len(set(files)) == len(files) == len(read)
    assert [(r.compared > 0, r.different, r.refused) for r in qd.check_export(integer, "onnx", net.images)] == [
        (True, 0, "")
    ] * 2
    qd.export_nir(net.graph, tmp_path / "net.nir", mode="annotated")
    assert list(qd.import_nir(tmp_path / "net.nir").nodes) == list(net.graph.nodes)
