"""Activity by step and tile adds up to the ledger, and what is counted at borders and gates is what loops count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from netbuild import random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.hw_models.activity import ABOVE_ONE, LIVE, LIVE_ABOVE_ONE, Activity, measure_activity
from qkf_deploy.ir import Graph
from qkf_deploy.simulators.inputs import encode


def ran(graph: Graph, pixels: np.ndarray) -> tuple[qd.Run, Activity, dict[str, np.ndarray]]:
    run = qd.simulate(graph, pixels, engine="reference", record="all")
    values = {**run.values, graph.input.name: encode(graph, pixels)[0]}
    return run, measure_activity(graph, values), values


@pytest.fixture(scope="module")
def case() -> tuple[Graph, qd.Run, Activity, dict[str, np.ndarray]]:
    graph = qd.quantize(small_transformer(1))
    return graph, *ran(graph, random_pixels(1, (3, 9, 7), 4))


def test_steps_add_up_to_the_ledger(case: tuple[Graph, qd.Run, Activity, dict[str, np.ndarray]]) -> None:
    graph, run, activity, _ = case
    compared = set()
    for layer in run.ledger:
        node = activity.nodes.get(layer.name)
        for name in node.counts if node else ():
            if name in layer.counts and graph[layer.name].type.timing.value == "step":
                assert node is not None
                assert node.total(name) == layer.total(name), (layer.name, name)
                compared.add(name)
    assert {"ac_graded", "ac_unary", "coincidences", "events_out_graded", "neuron_updates_driven"} <= compared
    assert {"gate_ands", "residual_adds", "resets", "pool_comparisons", "bias_adds"} <= compared


def test_images_add_up(case: tuple[Graph, qd.Run, Activity, dict[str, np.ndarray]]) -> None:
    graph, _, activity, values = case
    halves = [measure_activity(graph, {n: v[:, part] for n, v in values.items()}) for part in (slice(1), slice(1, 4))]
    assert halves[0] + halves[1] == activity


def test_bands_by_loops(case: tuple[Graph, qd.Run, Activity, dict[str, np.ndarray]]) -> None:
    """A 3 x 3 convolution of stride 2 behind 5 x 4 spikes, and a grouped, dilated one: every window by hand."""
    graph, _, activity, values = case
    for name in ("short_conv", "pool_conv", "mlp1_conv"):
        node = graph[name]
        x = values[node.inputs[0].node]
        weight, op = node.params["weight"], node.op
        rows, columns = node.type.shape[1:]
        outputs = len(weight) // op.groups
        for count, bands in activity.nodes[name].bands.items():
            edges = [i * rows // count for i in range(count + 1)]
            channels, events, ever, busiest = np.zeros((2, 4), int), np.zeros(4, int), 0, np.zeros(4, int)
            for image in range(x.shape[1]):
                adds = np.zeros((4, count), int)
                for band, (a, b) in enumerate(itertools.pairwise(edges)):
                    window = {
                        r * op.stride[0] - op.padding[0] + k * op.dilation[0]
                        for r in range(a, b)
                        for k in range(weight.shape[2])
                    }
                    inside = sorted(window & set(range(x.shape[3])))
                    part = x[:, image][:, :, inside] != 0
                    events += part.sum(axis=(1, 2, 3))
                    channels[0] += part.any(axis=(2, 3)).sum(axis=1)
                    ever += part.any(axis=(0, 2, 3)).sum()
                    for r in range(a, b):
                        for c in range(columns):
                            for i in range(weight.shape[2]):
                                for j in range(weight.shape[3]):
                                    y = r * op.stride[0] - op.padding[0] + i * op.dilation[0]
                                    z = c * op.stride[1] - op.padding[1] + j * op.dilation[1]
                                    if 0 <= y < x.shape[3] and 0 <= z < x.shape[4]:
                                        adds[:, band] += outputs * (x[:, image, :, y, z] != 0).sum(axis=1)
                busiest += adds.max(axis=1)
            assert bands.events == tuple(events), (name, count)
            assert bands.channels == tuple(channels[0])
            assert bands.channels_ever == ever
            assert bands.busiest == tuple(busiest)
        whole = activity.nodes[name].bands[1]
        assert whole.busiest == activity.nodes[name].counts["ac_graded"]


def test_additions_of_counts_and_behind_gates(case: tuple[Graph, qd.Run, Activity, dict[str, np.ndarray]]) -> None:
    graph, _, activity, values = case
    x = values["embed_add"].reshape(4, 4, 8, 6)
    assert activity.nodes["qk_q_conv"].counts[ABOVE_ONE] == tuple(8 * int((x[t] > 1).sum()) for t in range(4))
    assert activity.nodes["qk_q_conv"].total(ABOVE_ONE) > 0
    gate = values["qk_gate"]  # (T, B, heads, 1, N)
    live, above = [0] * 4, [0] * 4
    for t in range(4):
        for image in range(4):
            for head in range(2):
                for n in range(6):
                    if gate[t:, image, head, 0, n].any():
                        live[t] += 4 * int((x[t, image, :, n] > 0).sum())
                        above[t] += 4 * int((x[t, image, :, n] > 1).sum())
    assert activity.nodes["qk_k_conv"].counts[LIVE] == tuple(live)
    assert activity.nodes["qk_k_conv"].counts[LIVE_ABOVE_ONE] == tuple(above)
    assert 0 < sum(live) < activity.nodes["qk_k_conv"].total("ac_graded")
    assert {n for n, a in activity.nodes.items() if LIVE in a.counts} == {"qk_k_conv"}
    assert graph["qk_k_conv"].op.kind == "conv"
