"""Another T: the graph of a model at that T, whatever T it was traced with; refused where T is part of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from netbuild import Net, random_pixels, small_transformer
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import UnsupportedError, UsageError
from qkf_deploy.ir.digest import digest
from qkf_deploy.ops import Linear, Output, Readout, Scale, Sum
from qkf_deploy.passes.steps import with_time_steps


def _mean_then_head(model: Small, x: Tensor) -> Tensor:
    return model.head(x.mean((3, 4)).mean(0))


def _sum_then_head(model: Small, x: Tensor) -> Tensor:
    return model.head(x.mean((3, 4)).sum(0))


def _all_at_once(model: Small, x: Tensor) -> Tensor:
    return model.head(x.mean((0, 3, 4)))


def _head_then_mean(model: Small, x: Tensor) -> Tensor:
    return model.head(x.mean((3, 4))).mean(0)


def _time_first(model: Small, x: Tensor) -> Tensor:
    return model.head(x.mean(0).mean((2, 3)))


def _every_step(model: Small, x: Tensor) -> Tensor:
    return model.head(x.mean((3, 4)))


def _running_sum(model: Small, x: Tensor) -> Tensor:
    total = 0.0
    for t in range(model.steps):
        total = total + model.head(x[t].mean((2, 3)))
    return total / model.steps


HEADS: dict[str, Callable[[Small, Tensor], Tensor]] = {
    f.__name__: f
    for f in (_mean_then_head, _sum_then_head, _all_at_once, _head_then_mean, _time_first, _every_step, _running_sum)
}


class Small(nn.Module):
    """Two spiking layers on 6 x 6 pixels and a head."""

    def __init__(self, form: str, steps: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.form, self.steps = form, steps
        self.conv, self.second, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 5, 3), nn.Linear(5, 3)
        self.lif = neuron.LIFNode(step_mode="m", v_threshold=0.12, detach_reset=True)
        self.last = neuron.IFNode(step_mode="m", v_threshold=0.2, v_reset=None)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0).repeat(self.steps, 1, 1, 1, 1)
        x = self.lif(functional.seq_to_ann_forward(x, self.conv))
        return HEADS[self.form](self, self.last(functional.seq_to_ann_forward(x, self.second)))


def _traced(form: str, steps: int) -> qd.Graph:
    return qd.trace(Small(form, steps), image_size=6, preset="none", time_steps=steps)


@pytest.mark.parametrize("form", HEADS)
def test_equals_the_model_traced_at_that_t(form: str) -> None:
    images = random_pixels(1, (1, 6, 6), 4)
    graph = _traced(form, 4)
    for steps in (2, 7):
        wanted = qd.fold(_traced(form, steps))
        for source in (graph, qd.fold(graph)):
            found = with_time_steps(source, steps)
            assert found.time_steps == steps
            names = [n.name for n in found if n.op.kind == "neuron"]
            ours, theirs = (qd.simulate(g, images, record=names) for g in (found, wanted))
            for name in names:
                assert np.array_equal(ours.values[name], theirs.values[name])
                assert ours.values[name].any()
            np.testing.assert_allclose(ours.logits, theirs.logits, rtol=1e-13, atol=1e-14)
            assert found.factors == wanted.factors
        with torch.no_grad():
            model = Small(form, steps).double()
            outputs = model(torch.from_numpy(images / 255.0))
        outputs = outputs.mean(0) if form == "_every_step" else outputs
        np.testing.assert_allclose(ours.logits, outputs.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 6])
def test_the_digits_network_is_the_same_to_the_last_bit(digits_checkpoint, digits_float: qd.Graph, steps: int) -> None:
    """Traced at 4 and changed, or traced at that T: one digest; changed back too, where no division rounds."""
    traced = qd.trace(digits_checkpoint, time_steps=steps)
    changed = with_time_steps(digits_float, steps)
    assert digest(changed) == digest(qd.fold(traced))
    assert changed.factors == qd.fold(traced).factors
    assert (digest(with_time_steps(changed, 4)) == digest(qd.fold(digits_float))) == (steps == 1)
    assert changed.provenance["steps"] == f"{steps} instead of 4"
    assert f"runs {quantity(steps, 'time step')}, the network was made with 4" in changed.notices
    assert qd.quantize(changed, 4).time_steps == steps


def test_the_same_t_changes_nothing(digits_float: qd.Graph) -> None:
    same = with_time_steps(digits_float, 4)
    assert digest(same) == digest(qd.fold(digits_float))
    assert (same.notices, "steps" in same.provenance) == (digits_float.notices, False)


def test_one_step_is_taken_as_a_mean_and_says_so(digits_checkpoint) -> None:
    one = qd.trace(digits_checkpoint, time_steps=1)
    assert "where the sum and the mean over time are the same" in with_time_steps(one, 4).notices[-1]


def test_an_assumed_t_is_no_longer_assumed() -> None:
    graph = qd.trace(Small("_mean_then_head", 4), image_size=6)
    named = replace(graph, assumptions=(*graph.assumptions, replace(graph.assumptions[0], name="T")))
    kept = [a.name for a in with_time_steps(named, 2).assumptions]
    assert kept == [a.name for a in graph.assumptions if a.name != "T"]
    assert kept


def _behind(*factors: float, tokens: int = 1) -> qd.Graph:
    """A network whose readout is multiplied by these factors, over the sum of ``tokens`` positions."""
    net = Net(0, (1, tokens, 1))
    last = net.lif("lif", net.conv("conv", "input", 2, 1))
    last = net.add("tokens", Sum((1, 2), role="readout"), last)
    last = net.add("readout", Readout(), last)
    for index, factor in enumerate(factors):
        last = net.add(f"factor{index}", Scale(factor), last)
    last = net.add("head", Linear(), last, weight=np.ones((2, 2)), bias=np.ones(2))
    net.add("output", Output(), last)
    return net.build(4)


def test_a_factor_that_may_hold_t_is_refused() -> None:
    for graph in (_behind(0.1), _behind(0.25, tokens=4)):  # neither; the mean over T, or over as many tokens
        with pytest.raises(UnsupportedError, match="whether T = 4 is part of that is not known\n  try: trace"):
            with_time_steps(graph, 2)
    assert with_time_steps(small_transformer(0), 2).factors["head"][0] == 1 / 16  # a sum pool, then 8 tokens' mean
    assert with_time_steps(_behind(0.25, 0.25, tokens=4), 2).factors["head"][0] == 1 / 8
    assert with_time_steps(small_transformer(0), 2).factors["head"][0] == 1 / 16  # a sum pool, then 8 tokens' mean
    assert with_time_steps(_behind(0.25, 0.2, tokens=5), 2).factors["head"][0] * 10 == 1


def test_t_that_is_part_of_the_network_is_refused(digits_int8: qd.Graph) -> None:
    with pytest.raises(UnsupportedError, match="property of the input: 4 event frames"):
        with_time_steps(small_transformer(0, frames=True), 2)
    graph = small_transformer(0)
    node = graph["qk_gate"]
    op = replace(node.op, carry="stored", time_merged_with_batch=True)
    stored = replace(node, op=op, params={"leftover": np.zeros((4, *node.type.shape))})
    with pytest.raises(UnsupportedError, match="qk_gate: starts each of its 4 steps from a membrane stored for it"):
        with_time_steps(replace(graph, nodes={**graph.nodes, "qk_gate": stored}).verify(), 2)
    with pytest.raises(UsageError, match="give the float network"):
        with_time_steps(digits_int8, 2)
    with pytest.raises(UsageError, match="time_steps: 0"):
        with_time_steps(graph, 0)
