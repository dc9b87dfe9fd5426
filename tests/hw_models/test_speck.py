"""Speck: cores that are one whole layer each, with different memories; what fits, and the rule that is broken else."""

from __future__ import annotations

import importlib.machinery
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest
from netbuild import Net, small_transformer, window

import qkf_deploy as qd
from qkf_deploy import ops
from qkf_deploy.errors import ProfileError
from qkf_deploy.hw_models.architecture.chip import Chip
from qkf_deploy.hw_models.mapping import Placement
from qkf_deploy.ir import Graph, Operand, View
from qkf_deploy.report.mapping_table import render_mapping

IF = ops.Neuron(tau=None, v_threshold=1.0, v_reset=0.0)
#: Channels, side of the window, stride, padding, and side of the pool behind it.
Layers = Sequence[tuple[int, int, int, int, int]]


def chain(
    layers: Layers, shape: tuple[int, int, int], classes: int = 0, neuron: ops.Neuron = IF, seed: int = 0
) -> Graph:
    """Convolutions with neurons and pools on event frames, weights on one grid; last a linear layer of a whole map."""
    net = Net(seed, shape, frames=True)
    last: str = "input"
    for number, (out, kernel, stride, padding, pool) in enumerate(layers):
        weight = net.rng.integers(-3, 4, (out, net.shape(last)[0], kernel, kernel))
        weight[:, 0, 0, 0] = 3
        last = net.add(f"conv{number}", window(2, stride, padding), last, weight=weight / 4)
        last = net.add(f"neurons{number}", neuron, last)
        if pool > 1:
            last = net.add(f"pool{number}", ops.SumPool((pool, pool), (pool, pool), (0, 0)), last)
    if classes:
        whole = net.shape(last)
        weight = net.rng.integers(-3, 4, (classes, math.prod(whole)))
        weight[:, 0] = 3
        flat = Operand(last, View.of(whole, (0, 1, 2), (math.prod(whole),)))
        net.add("fc", ops.Linear(), flat, weight=weight / 4)
        net.add("fc_neurons", neuron)
    net.add("readout", ops.Readout())
    net.add("output", ops.Output())
    return qd.quantize(net.build(2))


def wide(chip: Chip) -> Chip:
    """The same without a limit of bits, so that memories alone decide."""
    return replace(chip, cores=tuple(replace(core, state_bits_max=64) for core in chip.cores))


def placed(graph: Graph, chip: Chip | str = "speck") -> dict[str, Placement]:
    return {p.unit.name: p for p in qd.map_network(graph, chip).placements}


def broken(graph: Graph, unit: str, chip: Chip | str = "speck") -> tuple[str, ...]:
    return placed(graph, chip)[unit].limits_broken


def test_a_small_network_fits() -> None:
    graph = chain([(8, 3, 1, 1, 2), (16, 3, 1, 1, 2)], (2, 16, 16), 10)
    mapping = qd.map_network(graph, "speck")
    assert mapping.infeasible == ()
    assert (mapping.cores, mapping.chips) == (4, 1)
    found = {p.unit.name: p for p in mapping.placements}
    assert len({p.first_core for p in found.values()}) == 4
    assert found["readout"].core.kind == "readout"
    assert found["readout"].first_core == 9
    words = {name: (p.synapses_per_core, p.memory_per_core_bytes - p.synapses_per_core) for name, p in found.items()}
    assert words["neurons0"] == (2 * 16 * 8, 2 * 8 * 16 * 16)  # nine taps take sixteen words
    assert words["neurons1"] == (8 * 16 * 16, 2 * 16 * 8 * 8)
    assert words["fc_neurons"] == (16 * 16 * 16, 2 * 10)  # ten outputs as well
    text = render_mapping(mapping, "table")
    assert "weights_16_state_64" in text
    assert "cut into equal pieces" not in text
    assert "not mappable" not in text


def test_the_example_of_the_documentation() -> None:
    """16 to 32 channels on 64 x 64: 8 Ki words of kernels fit, 128 Ki neurons do not."""
    graph = chain([(32, 3, 1, 1, 1)], (16, 64, 64))
    (problem,) = broken(graph, "neurons0", wide(qd.load_chip("speck")))
    assert problem == "131072 words of state, a weights_16_state_64 core has 65536"
    assert placed(graph)["neurons0"].synapses_per_core == 8 * 1024


def test_cores_are_shared_out_so_that_all_layers_fit() -> None:
    """Small layers leave the cores to those that need them, whatever the order; a tenth layer has none."""
    small, many_weights = (4, 3, 1, 1, 1), (64, 3, 1, 1, 1)
    graph = chain([small, small, small, many_weights, many_weights, small, small, small, small], (2, 8, 8))
    chip = wide(qd.load_chip("speck"))
    found = placed(graph, chip)
    assert [p.limits_broken for name, p in found.items() if name != "readout"] == [()] * 9
    assert found["readout"].limits_broken == ("20 cores of kind readout, a chip has 1",)  # 4 x 64 classes
    assert found["neurons4"].core.kind == "weights_64_state_16"  # 64 x 16 x 64 words
    ten = chain([small] * 10, (2, 8, 8))
    rules = [p.limits_broken for n, p in placed(ten, chip).items() if p.limits_broken and n != "readout"]
    assert rules == [("no core is left: 10 units that fit some core, 9 of them together",)]


@pytest.mark.parametrize(
    ("layers", "shape", "rule"),
    [
        ([(2, 17, 1, 7, 1)], (2, 20, 20), "window of side 17, at most 16"),
        ([(2, 3, 3, 1, 1)], (2, 9, 9), "stride 3, one of 1, 2, 4, 8"),
        ([(2, 16, 1, 8, 1)], (2, 16, 16), "padding 8, at most 7"),
        ([(1, 1, 8, 0, 1)], (1, 129, 129), "input of side 129, at most 128"),
        ([(1, 1, 1, 0, 1)], (1, 65, 65), "output of side 65, at most 64"),
        ([(1025, 1, 1, 0, 1)], (1, 1, 1), "1025 channels, at most 1024"),
        ([(2, 1, 1, 0, 3), (2, 1, 1, 0, 1)], (1, 9, 9), "sum pooling of 3 x 3, only squares of 1, 2, 4 side by side"),
    ],
)
def test_rules_of_a_layer(layers: Layers, shape: tuple[int, int, int], rule: str) -> None:
    graph = chain(layers, shape)
    assert rule in broken(graph, f"neurons{len(layers) - 1}", wide(qd.load_chip("speck")))


def test_rules_of_neurons() -> None:
    layers, shape = [(2, 3, 1, 1, 1)], (1, 6, 6)
    assert broken(chain(layers, shape), "neurons0") == ()
    assert "neurons whose membrane decays" in broken(chain(layers, shape, neuron=replace(IF, tau=2.0)), "neurons0")
    graph = chain(layers, shape)
    theta = graph["neurons0"].params["theta"]
    other = replace(graph["neurons0"], params={"theta": theta + np.arange(2).reshape(2, 1, 1)})
    graph = replace(graph, nodes={**graph.nodes, "neurons0": other})
    assert broken(graph, "neurons0") == ("thresholds that differ between neurons",)


def test_a_spiking_transformer_is_refused_by_the_names_of_the_rules() -> None:
    found = placed(qd.quantize(small_transformer(2)))
    assert not any(p.cores for p in found.values())
    assert found["pool_lif"].limits_broken == ("not supported: max_pool",)
    assert found["ssa_kv"].limits_broken == ("not supported: matmul",)
    assert "not supported: mask" in found["qk_proj_lif"].limits_broken  # reads events behind a gate
    assert "reads numbers or signed events, not spikes" in found["embed_lif"].limits_broken
    assert "sends to 6 layers, at most 2" in found["short_lif"].limits_broken


def test_energies_that_nobody_published_are_said_to_be_missing() -> None:
    graph = chain([(8, 3, 1, 1, 2), (16, 3, 1, 1, 2)], (2, 16, 16), 10)
    frames = np.random.default_rng(0).integers(0, 2, (1, 2, 2, 16, 16)).astype(np.uint8)
    found = qd.hardware(graph, qd.measure_activity(graph, frames, engine="reference"), "speck")
    assert found.pj.nominal == 0
    assert found.ns == 0
    assert found.excluded == (
        "the network between cores",
        "work without a price",
        "static power, as no time is known",
    )
    assert found.unpriced_counts["compute: accumulate"] > 0
    assert found.unpriced_counts["compute: neuron"] == 2 * (8 * 256 + 16 * 64 + 10)


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("strides = [1, 2, 4, 8]", "strides = []", "strides must be a list of whole numbers"),
        ("strides = [1, 2, 4, 8]", "strides = [0]", "core.weights_16_state_64.layer.strides"),
        ("pools = [1, 2, 4]", "pools = 2", "pools must be a list of whole numbers"),
        ("padding_max = 7", "padding_max = -1", "core.weights_16_state_64.layer.padding_max"),
        ("kernel_side_max = 16", "kernel_side = 16", "kernel_side"),
        ('execution = "resident"', 'execution = "layer-by-layer"', "cores that are one layer each keep it"),
    ],
)
def test_wrong_files_name_line_and_rule(tmp_path: Path, right: str, wrong: str, rule: str) -> None:
    text = (Path(qd.__file__).parent / "hw_models" / "chips" / "speck.toml").read_text()
    assert right in text
    bad = tmp_path / "bad.toml"
    dram = '\n[dram]\nword_bits = 64\nsource = "none"\n' if "layer-by-layer" in wrong else ""
    bad.write_text(text.replace(right, wrong, 1) + dram)
    with pytest.raises(ProfileError) as caught:
        qd.load_chip(bad)
    assert rule in str(caught.value)
    assert f"{bad}:" in str(caught.value)


class _Samna:
    """The chip's driver, which sinabs imports and its mapper does not use."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        driver = name.partition(".")[0] in ("samna", "samnagui")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if driver else None  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        made = MagicMock()
        made.__spec__, made.__path__, made.__name__ = spec, [], spec.name
        return made

    def exec_module(self, module: ModuleType) -> None:
        pass


def test_verdicts_are_those_of_sinabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of every layer, and whether a chain finds its cores, against SynSense's own mapper."""
    pytest.importorskip("sinabs", reason="sinabs is not installed: pip install --no-deps sinabs pbr nirtorch")
    monkeypatch.setattr(sys, "meta_path", [_Samna(), *sys.meta_path])
    import sinabs.layers as sl
    from sinabs.backend.dynapcnn.chips.dynapcnn import DynapcnnConfigBuilder
    from sinabs.backend.dynapcnn.dynapcnn_layer import DynapcnnLayer
    from sinabs.backend.dynapcnn.mapping import get_valid_mapping
    from torch import nn

    chip, rng = wide(qd.load_chip("speck")), np.random.default_rng(0)
    limits = DynapcnnConfigBuilder.get_constraints()
    assert [(c.kernel_memory, c.neuron_memory) for c in limits] == [
        tuple(8 * b.bytes // b.word_bits for b in core.buffers) for core in chip.cores[:-1] for _ in range(core.count)
    ]
    verdicts = []
    for seed in range(12):
        side = int(rng.choice([8, 16, 30, 32]))
        sizes = [[int(rng.choice(n)) for n in ([3, 8, 16, 33, 64], [1, 3, 5], [1, 1, 2])] for _ in range(seed % 9 + 2)]
        layers = [(out, kernel, stride, kernel // 2, 1) for out, kernel, stride in sizes]
        graph = chain(layers, (2, side, side), seed=seed)
        found, theirs, shape = placed(graph, chip), {}, (2, side, side)
        for number, (out, kernel, stride, padding, _) in enumerate(layers):
            conv = nn.Conv2d(shape[0], out, kernel, stride, padding, bias=False)
            theirs[number] = DynapcnnLayer(conv, sl.IAFSqueeze(batch_size=1), shape, [(1, 1)], discretize=False)
            shape = graph[f"neurons{number}"].type.shape
            memory, mine = theirs[number].memory_summary(), found[f"neurons{number}"]
            assert mine.synapses_per_core == memory["kernel"]
            assert mine.memory_per_core_bytes == memory["kernel"] + 2 * memory["neuron"]
        try:
            fits = bool(get_valid_mapping(theirs, limits))
        except ValueError:
            fits = False
        assert fits == all(not p.limits_broken for n, p in found.items() if n != "readout"), layers
        verdicts.append(fits)
    assert 2 < sum(verdicts) < 10
