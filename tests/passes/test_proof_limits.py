"""At the limit of 62 bits every rule refuses, naming the node; just below it, the proof is the true value."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import qkf_deploy as qd
from qkf_deploy.errors import GraphError, ProofError
from qkf_deploy.ir import Graph, GraphBuilder, Interval, Operator
from qkf_deploy.ops import Add, Conv, Input, IntegerNeuron, MatMul, Output, Readout, Sum, SumPool
from qkf_deploy.passes.widths import attach

ONE = np.ones((1, 1, 1, 1), np.int8)


def doubled(
    times: int,
    last: Operator | None = None,
    time_steps: int = 2,
    bias: int | None = None,
    last_params: dict[str, np.ndarray] | None = None,
) -> Graph:
    """A drive of 0..1 doubled again and again: the true range of the output is known without any arithmetic."""
    build = GraphBuilder()
    build.add("input", Input((1, 2, 2), "frames", high=1))
    params = {"weight": ONE} if bias is None else {"weight": ONE, "bias": np.array([bias], np.int64)}
    value = build.add("c", Conv((1, 1), (0, 0), (1, 1), weight_bits=8), ["input"], params)
    for index in range(times):
        value = build.add(f"a{index}", Add(), [value, value])
    if last is not None:
        value = build.add("last", last, [value] * len(last.ports), last_params)
    build.add("output", Output(), [value])
    return build.build(time_steps=time_steps, input_encoding="frames", arithmetic="integer")


#: name -> (graph that reaches exactly 2^61, the largest power that a proof holds; the same one step further; its node)
LIMITS: dict[str, tuple[Callable[[], Graph], Callable[[], Graph], str]] = {
    "add": (lambda: doubled(61), lambda: doubled(62), "a61"),
    "readout": (lambda: doubled(59, Readout(), 4), lambda: doubled(59, Readout(), 8), "last"),
    "sum": (lambda: doubled(59, Sum((1, 2))), lambda: doubled(60, Sum((1, 2))), "last"),
    "sum pool": (
        lambda: doubled(59, SumPool((2, 2), (1, 1), (0, 0))),
        lambda: doubled(60, SumPool((2, 2), (1, 1), (0, 0))),
        "last",
    ),
    "product": (lambda: doubled(30, MatMul()), lambda: doubled(31, MatMul()), "last"),
    "bias": (lambda: doubled(0, bias=2**61 - 1), lambda: doubled(0, bias=2**62 - 1), "c"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_below_and_at_the_limit(name: str) -> None:
    within, beyond, node = LIMITS[name]
    graph = attach(within())
    assert graph.widths["output"].value[1] == 2**61
    run = qd.simulate(graph, np.ones((1, graph.time_steps, 1, 2, 2), np.int64), engine="reference")
    assert int(run.raw_output.max()) == 2**61
    with pytest.raises(ProofError, match="more than 62 bits") as caught:
        attach(beyond())
    assert caught.value.where == node


@pytest.mark.parametrize("times", [63, 64, 65, 127, 128, 200])
def test_far_beyond_the_limit(times: int) -> None:
    """Here arithmetic that wraps would come back to small or empty ranges."""
    with pytest.raises(ProofError):
        attach(doubled(times))


def test_wide_biases_are_refused_when_the_graph_is_made() -> None:
    with pytest.raises(GraphError, match="bias"):
        doubled(0, bias=2**63 - 1)


def test_membranes() -> None:
    """A membrane that never fires adds up its drive over the steps."""
    unreached = {"theta": np.full((1, 1, 1), 2**62, np.int64)}

    def graph(times: int) -> Graph:
        return doubled(times, IntegerNeuron(1, 0, soft_reset=True), time_steps=4, last_params=unreached)

    assert attach(graph(59)).widths["last"].membrane == (0, 2**61)
    with pytest.raises(ProofError) as caught:
        attach(graph(60))
    assert caught.value.where == "last"


@pytest.mark.parametrize(
    ("low", "high"), [(0, 2**62), (-(2**62), 0), (1, 0), (0, 2**70), (-(2**63), 2**63 - 1), (2**63 - 1, 2**63 - 1)]
)
def test_ranges_that_cannot_be_made(low: int, high: int) -> None:
    with pytest.raises(ProofError):
        Interval(np.array([low], object), np.array([high], object))


def test_ranges_are_int64() -> None:
    interval = Interval(np.array([-(2**62) + 1], object), np.array([2**62 - 1], object))
    assert (interval.low.dtype, interval.high.dtype) == (np.int64, np.int64)
    assert (int(interval.low[0]), int(interval.high[0])) == (-(2**62) + 1, 2**62 - 1)
    assert (int(interval.high[0]) + int(interval.high[0])) < 2**63  # so two ends can be added without wrapping
