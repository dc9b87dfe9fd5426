"""The named builds are the official models: keys, shapes, neurons, parameter counts."""

from __future__ import annotations

import pytest
import torch
from official_layouts import LAYOUTS, OfficialLayout
from torch import nn

from qkf_deploy.models import BUILDS, build

PARAMETERS = {
    "qkformer-10-384": 16_473_688,
    "qkformer-10-512": 29_079_336,
    "qkformer-10-768": 64_962_760,
    "qkformer-4-384-cifar10": 6_706_234,
    "qkformer-4-384-cifar100": 6_740_884,
    "qkformer-2-256-cifar10dvs": 1_504_138,
    "qkformer-2-256-dvs128": 1_999_371,
}

every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build(name)


@every_layout
def test_keys_shapes_and_types_in_order(layout: OfficialLayout) -> None:
    found = tuple((name, tuple(t.shape), t.dtype) for name, t in on_meta(layout.build).state_dict().items())
    assert found == layout.tensors


@every_layout
def test_official_state_dict_loads_strict(layout: OfficialLayout) -> None:
    state = layout.random_state_dict()
    model = on_meta(layout.build)
    model.load_state_dict(state, strict=True, assign=True)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@every_layout
def test_neurons_are_the_official_ones_with_their_thresholds(layout: OfficialLayout) -> None:
    found = {name: m.v_threshold for name, m in on_meta(layout.build).named_modules() if hasattr(m, "v_threshold")}
    assert found == layout.thresholds


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_counts(name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == count


def test_parameter_counts_agree_with_the_listed_state_dicts() -> None:
    assert {layout.build: layout.parameters for layout in LAYOUTS.values()} == PARAMETERS


def test_every_neuron_is_the_papers() -> None:
    neurons = [m for m in on_meta("qkformer-10-384").modules() if hasattr(m, "v_threshold")]
    assert {(m.tau, m.v_reset, m.decay_input, m.detach_reset, m.step_mode) for m in neurons} == {
        (2.0, 0.0, True, True, "m")
    }


def test_official_builds_merge_batch_into_time_and_digits_does_not() -> None:
    merged = {name for name, config in BUILDS.items() if config.merge_batch_into_time}
    assert merged == set(PARAMETERS)
