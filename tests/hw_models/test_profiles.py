"""Profiles are data with sources; a broken one names its line."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import pytest
from netbuild import Net, random_pixels

import qkf_deploy as qd
from qkf_deploy.errors import ProfileError, UsageError
from qkf_deploy.hw_models import load_profile, profile_names
from qkf_deploy.hw_models.quantities import QUANTITIES
from qkf_deploy.hw_models.quantity import MEMORY_WORK
from qkf_deploy.ops import Output, Readout

GOOD = """schema = 1
id = "mine"
title = "My chip"
citation = "measured here"
node_nm = 22
voltage_v = 0.8
precision = "int8"
regime = "int8"
evidence = "measured"
scope = "per-term"

[price.ac_unary]
pj = 0.125
source = "lab book 7"

[price.weight_bytes]
tiers = [{ up_to_bytes = 1024, pj = 1.0 }, { up_to_bytes = 2048, pj = 3.0 }]
source = "datasheet"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "chip.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", profile_names())
def test_built_in_profiles_cite_every_price(name: str) -> None:
    profile = load_profile(name)
    assert profile.id == name
    assert len(profile.citation) > 10
    assert profile.assumptions
    for price in profile.prices.values():
        assert len(price.source) > 10
        assert price.pj >= 0
        assert price.pj == price.pj.quantize(Decimal("0.00000001"))
    if profile.scope == "all-in":
        assert not {w for q in profile.prices for w in QUANTITIES[q].work} & MEMORY_WORK


def test_the_expected_profiles_exist() -> None:
    wanted = {
        "paper-eq23", "exact-fp32", "spikingformer-script", "syops-0.0.5", "spikingjelly-2.0", "neurobench-2.3",
        "horowitz45-int8", "horowitz45-int8-acc16", "horowitz45-int8-acc32", "horowitz45-int16", "horowitz45-fp16",
        "horowitz45-sram", "int32-sram-per-access", "traffic-3.12pj-per-bit", "loihi2018-presilicon", "odin2019",
        "darwin3-2024", "truenorth2014-allin", "spinnaker2-hoppner2019", "seneca2023",
    }  # fmt: skip
    assert wanted <= set(profile_names())


def test_products_are_counted_as_synapses_are() -> None:
    """A profile that takes a value of 3 for three spikes in synapses takes it so in sums and products too."""
    for name in profile_names():
        prices = set(load_profile(name).prices)
        assert not ("ac_unary" in prices and prices & {"coincidences", "attention_sum_adds_graded", "head_adds_graded"})


def test_seneca_is_a_22_nm_chip() -> None:
    assert load_profile("seneca2023").node_nm == "22"


def test_a_users_file(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, GOOD))
    assert profile.prices["ac_unary"].pj == Decimal("0.125")
    memory = profile.prices["weight_bytes"]
    assert [memory.at(n) for n in (1, 1024, 1025, 2048, 10**9)] == [1, 1, 3, 3, 3]


def test_interpolated_tiers(tmp_path: Path) -> None:
    memory = load_profile(write(tmp_path, GOOD + "interpolate = true\n")).prices["weight_bytes"]
    assert [memory.at(n) for n in (1, 1024, 1536, 2048, 4096)] == [1, 1, 2, 3, 3]


@pytest.mark.parametrize(
    ("before", "after", "line", "text"),
    [
        ('source = "lab book 7"\n', "", 12, "missing in [price.ac_unary]: source"),
        ("pj = 0.125", "pj = 0.125\npj = 0.2", 14, "a key is given twice"),
        ("pj = 0.125", "nj = 0.125", 13, "unknown unit 'nj'"),
        ("pj = 0.125", 'pj = "0.125 pJ"', 13, "must be a number"),
        ("pj = 0.125", "pj = -1", 13, "zero or above"),
        ("pj = 0.125", "pj = nan", 13, "finite"),
        ("pj = 0.125", "pj = 1e12", 13, "at most 1e9"),
        ("pj = 0.125", "pj = 1e-15", 13, "12 decimals"),
        ("pj = 0.125", "pj = true", 13, "must be a number"),
        ("[price.ac_unary]", "[price.ac_unry]", 12, "nothing is counted under the name 'ac_unry'"),
        ("[price.ac_unary]", "[price.ac_unary]\npice = 1", 13, "unknown key 'pice'"),
        ('citation = "measured here"\n', "", 1, "missing: citation"),
        ('citation = "measured here"', 'citation = "  "', 4, "non-empty string"),
        ('evidence = "measured"', 'evidence = "guess"', 9, "evidence is 'guess'"),
        ('scope = "per-term"', 'scope = "all-in"', 16, "memory is never added to an all-in price"),
        ("schema = 1", "schema = 2", 1, "schema is 2"),
        ("node_nm = 22", "node_nm = twenty", 5, "not TOML"),
        ("up_to_bytes = 2048", "up_to_bytes = 512", 17, "tiers must grow"),
        ("up_to_bytes = 2048", "up_to_bytes = 1.5", 17, "whole number"),
        ("pj = 0.125", "tiers = [{ up_to_bytes = 8, pj = 1 }]", 13, "has no buffer"),
        ("[price.weight_bytes]", "[price.ac_graded]\npj = 1\nsource = 'x'\n[price.weight_bytes]", 16, "the same work"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, before: str, after: str, line: int, text: str) -> None:
    assert before in GOOD
    path = write(tmp_path, GOOD.replace(before, after))
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert caught.value.where == f"{path}:{line}"
    assert text in caught.value.message
    assert caught.value.exit_code == 3


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'exact-fp32'"):
        load_profile("exact-fp23")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path / "absent.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes(b'id = "\xff"')
    with pytest.raises(ProfileError, match="UTF-8"):
        load_profile(path)
    with pytest.raises(ProfileError, match="larger than"):
        load_profile(write(tmp_path, "# " + "x" * 1_000_001))


def test_lines_survive_multi_line_strings_and_arrays(tmp_path: Path) -> None:
    text = GOOD.replace('title = "My chip"', 'title = """My\npj = 3\nchip"""\nassumptions = [\n  "evidence = no",\n]')
    path = write(tmp_path, text.replace("pj = 0.125", "pj = -1"))
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert caught.value.where == f"{path}:18"


@pytest.mark.parametrize("kind", ["profile", "chip"])
def test_mutated_files_are_read_or_refused_with_their_line(tmp_path: Path, kind: str) -> None:
    """Any damage to a TOML file: a ProfileError that names the file, or a file that still makes sense."""
    from importlib import resources

    from qkf_deploy.hw_models.architecture.reading import load_chip

    folder = resources.files("qkf_deploy.hw_models")
    file = folder / "profiles" / "horowitz45-sram.toml" if kind == "profile" else folder / "chips" / "loihi2.toml"
    load = load_profile if kind == "profile" else load_chip
    source = file.read_text(encoding="utf-8")
    rng = random.Random(3)
    path = tmp_path / "mutated.toml"
    places = []
    junk = ["", '"', "[", "]", "=", "\n", "-", "9", "e9", "\x00", "é", "#"]
    for _ in range(300):
        text = source
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(text))
            stop = start + rng.choice([0, 1, 1, 20, 200])
            text = text[:start] + rng.choice(junk) + text[stop:]
        path.write_text(text, encoding="utf-8")
        try:
            load(path)
        except ProfileError as error:
            places.append(str(error.where))
    assert len(places) > 150
    assert all(place.startswith(f"{path}:") for place in places)


def test_a_weight_for_each_time_step_is_a_multiplication() -> None:
    """Of events too, in profiles that skip zero inputs of a head."""
    net = Net(0, (3, 6, 6))
    net.lif("lif", net.conv("conv", "input", 4))
    net.add("readout", Readout((0.5, -1.0, 2.0)), "lif")
    net.add("output", Output())
    graph = net.build(3)
    report = qd.price(qd.simulate(graph, random_pixels(0, (3, 6, 6), 2)).ledger, "neurobench-2.3")
    (row,) = (row for row in report.layers if row.layer == "readout")
    assert row.counts["head_macs_nonzero"] == 2 * 3 * 4 * 6 * 6
