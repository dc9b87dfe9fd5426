"""Chip files: every part is read; what breaks a rule is refused with the line and the rule."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from qkf_deploy.errors import ProfileError
from qkf_deploy.hw_models.architecture.chip import Chip
from qkf_deploy.hw_models.architecture.ranges import Range
from qkf_deploy.hw_models.architecture.reading import load_chip

GOOD = """schema = 2
id = "two"
title = "Two kinds of cores"
citation = "made up"
node_nm = 28
execution = "layer-by-layer"
clock_mhz = 400
static_mw = { low = 1, nominal = 2.5, high = 4 }
static_source = "a guess"

[core.large]
count = 3
neurons_max = 100
weight_bits_max = 8
state_bits_max = 16
share_convolution_weights = true
supports = ["conv", "integer_neuron"]
source = "made up"

[core.large.buffer.weights]
bytes = 1024
holds = ["weights"]
word_bits = 64
read_pj = { low = 0.5, nominal = 1, high = 2 }
source = "made up"

[core.large.buffer.rest]
bytes = 512
holds = ["state", "events"]
word_bits = 32
source = "made up"

[core.large.operation.accumulate]
pj = 0.1
lanes = 16
source = "made up"

[core.large.operation.accumulate_conv]
ns = 3.1
source = "made up"

[core.small]
count = 1
neurons_max = 10
weight_bits_max = 8
state_bits_max = 16
share_convolution_weights = false
supports = ["linear", "integer_neuron"]
source = "made up"

[core.small.buffer.all]
bytes = 256
holds = ["weights", "state"]
word_bits = 8
source = "made up"

[network]
columns = 2
rows = 1
cores_per_tile = 2
multicast = true
message_bits = 20
barrier_ns = [600, 700]
source = "made up"

[network.link.east_west]
pj = 0.05
per = "bit"
source = "made up"

[dram]
word_bits = 64
read_pj = 1300
source = "made up"
"""


def read(folder: Path, text: str) -> Chip:
    path = folder / "chip.toml"
    path.write_text(text)
    return load_chip(path)


def test_everything_is_read(tmp_path: Path) -> None:
    chip = read(tmp_path, GOOD)
    large, small = chip.cores
    assert chip.static_mw == Range(Decimal(1), Decimal("2.5"), Decimal(4))
    assert [chip.core_at(i).kind for i in range(5)] == ["large", "large", "large", "small", "large"]
    accumulate = large.operation("accumulate", "linear")
    assert accumulate is large.operations["accumulate"]
    assert accumulate is not None
    assert chip.batch_ns(accumulate) == Fraction(5, 2)
    convolution = large.operation("accumulate", "conv")
    assert convolution is not None
    assert (convolution.pj, convolution.lanes, chip.batch_ns(convolution)) == (None, 1, Fraction(31, 10))
    assert small.operation("accumulate") is None
    assert [b.name for b in chip.levels(large, "partial-sums")] == ["rest", "DRAM"]
    assert [b.name for b in chip.levels(small, "events")] == ["DRAM"]
    assert chip.network is not None
    assert chip.network.barrier_ns == (600, 700)
    assert chip.network.links["east_west"].pj == Range.of("0.05")
    assert large.buffers[0].write_pj is None


def test_memory_that_is_apart_fills_up_apart(tmp_path: Path) -> None:
    large, small = read(tmp_path, GOOD).cores
    assert large.memory_problem(8192, 4096) == ""
    assert large.memory_problem(8193, 0) == "1025 bytes, a core has 1024 of weights"
    assert large.memory_problem(1, 4097) == "513 bytes, a core has 512 of rest"
    assert small.memory_problem(1024, 1024) == ""
    assert small.memory_problem(1024, 1025) == "257 bytes, a core has 256"


@pytest.mark.parametrize(
    ("before", "after", "line", "rule"),
    [
        ("schema = 2", "schema = 1", 1, "schema is 1"),
        ('"layer-by-layer"', '"whenever"', 6, "execution is 'whenever'"),
        ("clock_mhz = 400", "clock_mhz = 0", 7, "above zero"),
        ("nominal = 2.5, high = 4", "nominal = 2.5, high = 2", 8, "low <= nominal <= high"),
        ("low = 1, nominal", "least = 1, nominal", 8, "{ low, nominal, high }"),
        ('static_source = "a guess"\n', "", 7, "clock_mhz has no citation"),
        ("count = 3", "count = 0", 12, "at least 1"),
        ("count = 3", "count = 4", 57, "places for 4 cores, the chip has 5"),
        ("neurons_max = 100\n", "", 11, "missing in [core.large]: neurons_max"),
        ("neurons_max = 100", "neurons = 100", 13, "unknown key 'neurons'"),
        ('holds = ["weights"]', 'holds = ["weight"]', 22, "unknown operand 'weight'"),
        ('holds = ["state", "events"]', 'holds = ["state", "weights"]', 27, "weights and rest both hold weights"),
        ('holds = ["state", "events"]', 'holds = ["events"]', 11, "holds state"),
        ("bytes = 512", "bytes = 0.5", 28, "whole number"),
        ("operation.accumulate]", "operation.accumulates]", 33, "no core does 'accumulates'"),
        ("lanes = 16", "lanes = 0", 35, "at least 1"),
        ("pj = 0.1\n", 'pj = "0.1"\n', 34, "must be a number"),
        ("message_bits = 20\n", "", 65, "needs network.message_bits"),
        ("east_west", "west", 66, "no link is called 'west'"),
        ('per = "bit"', 'per = "byte"', 68, "per is 'byte'"),
        ("core.small]", 'core."a b"]', 42, "'a b' is no name"),
        (GOOD[GOOD.index("[dram]") :], "", 6, "needs [dram]"),
        ('source = "made up"\n\n[network]', "[network]", 51, "missing in [core.small.buffer.all]: source"),
    ],
)
def test_broken_rules_are_named_with_their_line(tmp_path: Path, before: str, after: str, line: int, rule: str) -> None:
    assert GOOD.count(before) >= 1
    with pytest.raises(ProfileError) as caught:
        read(tmp_path, GOOD.replace(before, after, 1))
    assert rule in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.where == f"{tmp_path / 'chip.toml'}:{line}"
