"""Whole networks from this environment, through files, in Lava: equal to the reference to the unit."""

from __future__ import annotations

from dataclasses import replace

import lava_cases
import numpy as np
import pytest

from qkf_deploy import ops
from qkf_deploy.errors import InputError, UnsupportedError, UsageError
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.lava import bridge
from qkf_deploy.simulators.lava.environment import LavaEnvironment
from qkf_deploy.simulators.run import Record

pytestmark = pytest.mark.lava


@pytest.mark.parametrize("granularity", ["operator", "block"])
def test_a_network(lava: LavaEnvironment, granularity: str) -> None:
    case = lava_cases.network_case(images=4)
    record = Record.of(case.graph, list(case.graph.nodes), "all")
    seen: list[tuple[int, int]] = []
    done = bridge.simulate(
        case.graph, case.inputs, record, lambda *x: seen.append(x), granularity=granularity, timeout_s=60
    )
    expected = reference.run(case.graph, case.inputs, record)
    assert all(0 < v.mean() < 1 for v in expected.spikes.values())
    assert lava_cases.differing(done.run, expected) == []
    assert seen[-1] == (4, 4)
    assert done.processes == (13 if granularity == "operator" else 5)
    assert done.seconds["total"] > done.seconds["run"] > 0


@pytest.mark.parametrize("extreme", ["zeros", "high"])
def test_extreme_inputs_and_nothing_recorded(lava: LavaEnvironment, extreme: str) -> None:
    maker_case = lava_cases.network_case(seed=3, steps=1)
    fill = 0 if extreme == "zeros" else 255
    inputs = np.full_like(maker_case.inputs, fill)
    done = bridge.run(maker_case.graph, inputs, timeout_s=60)
    assert lava_cases.differing(done, reference.run(maker_case.graph, inputs)) == []
    assert not done.values


#: Widths of the build `qkformer-10-384` (HST-10-384 of arXiv 2403.16552, 224 x 224, 6 heads): stage 2 has 192 channels
#: on 28 x 28 positions and Q-K token attention, stage 3 has 384 channels on 14 x 14 and spiking self-attention.
@pytest.mark.parametrize(("kind", "dim", "side"), [("qkta", 192, 28), ("ssa", 384, 14)])
def test_blocks_of_the_imagenet_network(lava: LavaEnvironment, kind: str, dim: int, side: int) -> None:
    case = lava_cases.block_case(kind, dim, 6, side, steps=4, images=1)
    record = Record.of(case.graph, [n.name for n in case.graph if n.op.kind == "integer_neuron"], "all")
    expected = reference.run(case.graph, case.inputs, record)
    rates = {k: float(v.mean()) for k, v in expected.spikes.items()}
    assert all(0.005 < rate < 0.8 for rate in rates.values()), rates
    done = bridge.run(case.graph, case.inputs, record, timeout_s=120, granularity="operator")
    assert lava_cases.differing(done, expected) == []


def test_what_lava_cannot_run_is_refused_before_it_starts() -> None:
    case = lava_cases.network_case()
    graph, x = case.graph, case.inputs
    with pytest.raises(UsageError, match="integer graphs"):
        bridge.run(replace(graph, arithmetic="float"), x)
    foreign = {n.name: replace(n, op=ops.Scale(2.0)) if n.name == "add1" else n for n in graph}
    with pytest.raises(UnsupportedError, match="no Lava process for scale"):
        bridge.run(replace(graph, nodes=foreign), x)
    with pytest.raises(UsageError, match="granularity 'stage'"):
        bridge.run(graph, x, granularity="stage")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="timeout of 0"):
        bridge.run(graph, x, timeout_s=0)
    with pytest.raises(InputError, match="has shape"):
        bridge.run(graph, x[:, :, :, :4])
    with pytest.raises(InputError, match="has shape"):
        bridge.run(graph, x[:, :0])
    with pytest.raises(InputError, match="float64"):
        bridge.run(graph, x.astype(np.float64))


def test_carry_over_between_images_is_refused_for_a_batch() -> None:
    case = lava_cases.network_case()
    nodes = {n.name: replace(n, op=replace(n.op, carry="official")) if n.name == "lif2" else n for n in case.graph}
    assert isinstance(nodes["lif2"].op, ops.IntegerNeuron)
    with pytest.raises(UnsupportedError, match="lif2: carry-over"):
        bridge.run(replace(case.graph, nodes=nodes), case.inputs)
