"""One time step at a time gives what all time steps at once give. No Lava needed."""

from __future__ import annotations

from dataclasses import replace

import lava_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkf_deploy import ops
from qkf_deploy.ir import Graph
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.lava import stepping
from qkf_deploy.simulators.lava.partition import PROCESS_NAMES, blocks, source_of
from qkf_deploy.simulators.lava.stepping import Probe, Step, node_stepper, read_probe
from qkf_deploy.simulators.run import Record, Run


def stepped(graph: Graph, inputs: np.ndarray) -> dict[str, list[Step]]:
    """Every node, image after image, step after step."""
    steppers = {n.name: node_stepper(graph, n) for n in graph if n.op.kind != "input"}
    out: dict[str, list[Step]] = {name: [] for name in steppers}
    for image in range(inputs.shape[1]):
        for time in range(graph.time_steps):
            values = {graph.input.name: inputs[min(time, len(inputs) - 1), image]}
            for name, stepper in steppers.items():
                step = stepper.step([values[o.node] for o in graph[name].inputs])
                values[name] = step.value
                out[name].append(step)
    return out


def check(case: lava_cases.Case, run: Run) -> None:
    graph, steps = case.graph, case.graph.time_steps
    for name, history in stepped(graph, case.inputs).items():
        expected = run.values[name]
        for index, step in enumerate(history):
            image, time = divmod(index, steps)
            if graph[name].type.timing == "image" and time < steps - 1:
                np.testing.assert_array_equal(step.value, 0)
            else:
                np.testing.assert_array_equal(step.value, expected[min(time, len(expected) - 1), image])
            if name in run.membranes:
                np.testing.assert_array_equal(step.membrane, run.membranes[name][time, image])


@pytest.mark.parametrize("family", lava_cases.FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_operator(family: str, seed: int) -> None:
    for case in lava_cases.FAMILIES[family](1000 * seed):
        check(case, reference.run(case.graph, case.inputs, Record.of(case.graph, "all", "all")))


def test_a_classifier_after_the_readout() -> None:
    case = lava_cases.network_case()
    check(case, reference.run(case.graph, case.inputs, Record.of(case.graph, "all", "all")))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    steps=st.integers(1, 16),
    tau=st.sampled_from([None, 2.0, 4.0, 1.1, 1.7, 3.3, 10.0]),
    soft=st.booleans(),
    fraction=st.integers(0, 8),
    leftover=st.booleans(),
)
def test_neurons(seed: int, steps: int, tau: float | None, soft: bool, fraction: int, leftover: bool) -> None:
    case = lava_cases.neuron_case(seed, steps, tau=tau, soft=soft, fraction=fraction, leftover=leftover)
    check(case, reference.run(case.graph, case.inputs, Record.of(case.graph, "all", "all")))


@pytest.mark.parametrize("kind", ["qkta", "qkca", "ssa"])
@pytest.mark.parametrize("held", [1, 2500, 10**9])
def test_probes_count_what_the_reference_counts(kind: str, held: int, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(stepping, "_HELD_ELEMENTS", held)  # from one image at a time to all at once
    case = lava_cases.block_case(kind, 12, 2, 3, steps=3, images=5)
    graph = case.graph
    run = reference.run(graph, case.inputs, Record.of(graph, "all"))
    for name, history in stepped(graph, case.inputs).items():
        path = tmp_path / "probe.npz"
        probe = Probe(graph, graph[name], value=True, membrane=False, images=5, path=path)
        for step in history:
            probe.observe(step)
        with np.load(path) as arrays:
            assert read_probe(graph, graph[name], arrays).to_dict() == run.ledger[name].to_dict()
            np.testing.assert_array_equal(arrays["value"], run.values[name])


def test_every_integer_operator_has_a_process_and_a_case() -> None:
    kinds = set(ops.OPERATORS) - {"input", "output", "batch_norm", "neuron", "scale"}
    assert set(PROCESS_NAMES) == kinds
    covered = {node.op.kind for family in lava_cases.FAMILIES.values() for case in family(0) for node in case.graph}
    assert kinds <= covered


def test_the_state_is_cleared_between_images() -> None:
    case = lava_cases.neuron_case(3, 4, tau=None)
    twice = np.concatenate([case.inputs[:, :1]] * 2, axis=1)
    steps = stepped(case.graph, twice)["op"]
    assert any(step.membrane.any() for step in steps)
    for first, second in zip(steps[:4], steps[4:], strict=True):
        np.testing.assert_array_equal(first.membrane, second.membrane)


def test_carry_over_is_nothing_for_one_image() -> None:
    case = lava_cases.neuron_case(8, 5, tau=3.3, soft=True)
    nodes = {n.name: replace(n, op=replace(n.op, carry="official")) if n.name == "op" else n for n in case.graph}
    graph, inputs = replace(case.graph, nodes=nodes), case.inputs[:, :1]
    run = reference.run(graph, inputs, Record.of(graph, "all", "all"))
    check(lava_cases.Case("official", graph, inputs), run)


def test_blocks_cover_the_graph_and_hand_on_one_value() -> None:
    graph = lava_cases.network_case().graph
    parts = blocks(graph)
    assert [n.name for part in parts for n in part] == [n.name for n in graph if n.op.kind not in ("input", "output")]
    assert [part[-1].name for part in parts] == ["add1", "add2", "head"]
    for part in parts:
        inside = {n.name for n in part}
        outside = {o.node for n in part for o in n.inputs} - inside
        assert outside == {source_of(part)}
        late = {n.name for n in graph for o in n.inputs if o.node in inside - {part[-1].name}}
        assert late <= inside


def test_a_drive_that_bypasses_an_addition_keeps_its_block_whole() -> None:
    maker = lava_cases.Maker(0, (2, 4, 4))
    maker.conv("a", "input", 2, (1, 1))
    maker.conv("b", "input", 2, (1, 1))
    maker.add("add1", lava_cases.ops.Add(), "a", "b")
    maker.add("add2", lava_cases.ops.Add(), "add1", "a")
    case = maker.case("bypass", 2, 1)
    assert [[n.name for n in part] for part in blocks(case.graph)] == [["a", "b", "add1", "add2"]]
