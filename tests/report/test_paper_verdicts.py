"""No number of the paper's tables is left without a verdict, and the verdicts are what can be computed here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from click.testing import CliRunner

from qkf_deploy.cli import group
from qkf_deploy.evaluation.paper import complete, energies, memory, other_networks, verdicts
from qkf_deploy.evaluation.paper.published import DENSE_ROWS, SPIKING_ROWS, TABLE_4
from qkf_deploy.evaluation.paper.spiking import spiking_cost
from qkf_deploy.evaluation.paper.verdicts import (
    CONTRADICTED,
    NEEDS_MACHINE,
    NEEDS_WEIGHTS,
    RECOMPUTED,
    SETTING,
    Printed,
    Verdict,
)  # fmt: skip
from qkf_deploy.hw_models.network_shape import load_shape
from qkf_deploy.models import ann
from qkf_deploy.models.spikingformer import Spikingformer

COST = lru_cache(maxsize=None)(spiking_cost)
NUMBERS = verdicts.printed_numbers()


@pytest.fixture(scope="module")
def found() -> tuple[Verdict, ...]:
    return verdicts.verdicts(NUMBERS, COST)


def test_every_number_has_a_verdict(found: tuple[Verdict, ...]) -> None:
    assert [v.printed for v in found] == list(NUMBERS)
    assert len(NUMBERS) == len(set((n.table, n.row, n.column) for n in NUMBERS)) == 527
    for verdict in found:
        assert verdict.verdict in verdicts.VERDICTS
        assert verdict.verdict == SETTING or verdict.evidence
        assert (verdict.verdict in (RECOMPUTED, CONTRADICTED)) <= bool(verdict.found)
    counts = {RECOMPUTED: 140, CONTRADICTED: 24, NEEDS_WEIGHTS: 149, NEEDS_MACHINE: 8, SETTING: 206}
    assert Counter(v.verdict for v in found) == counts


def test_the_tables_are_those_of_the_rest_of_the_check() -> None:
    by_row = {(n.row, n.column): n.value for n in NUMBERS if n.table == "Table 2"}
    for row in SPIKING_ROWS:
        if row.table == "Table 2":
            name = f"{row.name.split(',')[0].split(' at ')[0]} {row.image_size} T={row.time_steps}"
            assert (by_row[name, "power_mj"], by_row[name, "parameters_m"]) == (row.power_mj, row.parameters_m)
    for row_ in DENSE_ROWS:
        assert by_row[f"{row_.name} {row_.image_size} T=1", "power_mj"] == row_.power_mj
    rates = [n for n in NUMBERS if n.table == "Table 4"]
    printed = [float(value) for pair in TABLE_4.values() for value in pair]
    assert [float(n.value) for n in rates] == printed


CASES = {
    ("Table 2", "SEW-ResNet-34 224 T=4", "power_mj"): (CONTRADICTED, "4.89 mJ is SEW-ResNet-50's row there (4.89)"),
    ("Table 2", "Spikformer-8-384 224 T=4", "power_mj"): (CONTRADICTED, "first layer of the 512 network (7.733)"),
    ("Table 2", "Spikformer-8-512 224 T=4", "power_mj"): (RECOMPUTED, "Spikformer's Table 2"),
    ("Table 2", "Spikformer-8-768 224 T=4", "power_mj"): (CONTRADICTED, "first layer of the 512 network (21.476)"),
    ("Table 2", "S-Transformer-8-768 288 T=4", "power_mj"): (CONTRADICTED, "0.0195, at 224 one of 0.0559"),
    ("Table 2", "S-Transformer-8-512 224 T=4", "power_mj"): (NEEDS_WEIGHTS, "at every step"),
    ("Table 2", "Spikingformer-8-768 224 T=4", "power_mj"): (RECOMPUTED, "own first layer"),
    ("Table 2", "HST-10-768 384 T=4", "power_mj"): (NEEDS_WEIGHTS, "118.453 G and 0.4344"),
    ("Table 2", "Swin-B 384 T=1", "parameters_m"): (CONTRADICTED, "87,903,584"),
    ("Table 3", "QKFormer DVS128", "parameters_m"): (CONTRADICTED, "1,999,371"),
    ("Table 3", "QKFormer CIFAR10", "parameters_m"): (CONTRADICTED, "6,706,234"),
    ("Table 3", "S-Transformer CIFAR100", "parameters_m"): (RECOMPUTED, "10,279,588"),
    ("Table 6", "SSA", "cifar100_parameters_m"): (RECOMPUTED, "ssa, ssa, ssa"),
    ("Table 6", "QKTA + QKCA", "cifar10dvs_parameters_m"): (RECOMPUTED, "qkta, qkca"),
    ("Table 9", "side 190, 36100 tokens", "ssa_mib"): (RECOMPUTED, "hold"),
}  # fmt: skip


@pytest.mark.parametrize("place", CASES, ids=" ".join)
def test_single_verdicts(place: tuple[str, str, str], found: tuple[Verdict, ...]) -> None:
    (verdict,) = [v for v in found if (v.printed.table, v.printed.row, v.printed.column) == place]
    wanted, evidence = CASES[place]
    assert verdict.verdict == wanted
    assert evidence in verdict.evidence


def test_another_printed_number_would_be_contradicted(found: tuple[Verdict, ...]) -> None:
    """Every recomputed number is one that could have been wrong."""
    recomputed = [v.printed for v in found if v.verdict == RECOMPUTED]
    moved = [replace(n, value=f"{float(n.value) * 1.2 + 0.02:.2f}") for n in recomputed]
    changed = {(n.table, n.row, n.column): n for n in moved}
    for number in moved:
        others = [n for n in NUMBERS if (n.table, n.row) == (number.table, number.row)]
        row = [changed[n.table, n.row, n.column] if n.column == number.column else n for n in others]
        (verdict,) = [v for v in verdicts.verdicts(row, COST) if v.printed == number]
        assert verdict.verdict == CONTRADICTED, number


def test_an_unknown_column_is_no_silence() -> None:
    with pytest.raises(KeyError):
        verdicts.verdicts([Printed("Table 2", "HST-10-384 224 T=4", "latency_ms", "3")], COST)


def test_parameters_against_modules() -> None:
    with torch.device("meta"):
        vit = {size: ann.VisionTransformer(size) for size in (224, 384)}
        resnets = {"18": ann.ResNet((2, 2, 2, 2), False), "101": ann.ResNet((3, 4, 23, 3), True)}
        spiking = {dim: Spikingformer(dim) for dim in (384, 512, 768)}
        swin = ann.SwinTransformer(7)

    def size(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert {s: other_networks.vit_base(s) for s in vit} == {s: size(m) for s, m in vit.items()}
    assert {n: other_networks.resnet(n) for n in resnets} == {n: size(m) for n, m in resnets.items()}
    assert {d: other_networks.spiking_transformer(d, 8, 3, 1000) for d in spiking} == {
        d: size(m) for d, m in spiking.items()
    }
    positions = 169 * (2 * 4 + 2 * 8 + 18 * 16 + 2 * 32)  # the module has no relative positions
    assert other_networks.swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 7) == size(swin) + positions == 87_768_224
    assert other_networks.swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 7) == 28_288_354  # torchvision's swin_t
    assert other_networks.resnet("152") == 60_192_808


def test_macs_of_the_spike_driven_transformer() -> None:
    """Of the traced Spikingformer, which has the same layers: all but the attention products and the head."""
    for dim in (384, 512, 768):
        shape = load_shape(f"spikingformer-8-{dim}")
        first, events = other_networks.spiking_transformer_macs(dim, 8, 224)
        convs = [n.dense_macs for n in shape if n.op == "conv"]
        assert (first, events) == (convs[0], sum(convs[1:]))


def test_energies_of_other_papers() -> None:
    assert abs(float(energies._millijoule("6.82", 4 * 86_704_128)) - 7.734) < 0.002  # type: ignore[attr-defined]
    assert abs(float(energies._millijoule("22.09", 4 * 86_704_128)) - 21.477) < 0.002  # type: ignore[attr-defined]


def test_memory_of_attention() -> None:
    assert memory.held_mib("ssa_mib", 40_000) == pytest.approx(6142.58, abs=0.01)  # as measured on tensors
    assert memory.held_mib("qkta_mib", 100) == pytest.approx(0.098, abs=0.001)


def test_table_4_prices_a_small_part() -> None:
    row = next(r for r in SPIKING_ROWS if r.name == "HST-10-768")
    check = complete.table_4_pricing(load_shape("qkformer-10-768"), row, COST)
    (remark,) = check.remarks
    assert "7.48% of the operations" in remark
    assert "0.258 G of the 40.6 G" in remark
    assert len(check.sheet.rows) == 6


def test_consistency_of_sizes_and_steps() -> None:
    rows = {(r[0], r[1]): r for r in complete.consistency(COST).sheet.rows}
    larger = rows["HST-10-768", "HST-10-768 at 288"]
    assert [round(float(v), 4) for v in larger[2:]] == [1.6518, 1.6531, 0.4373, 0.4369]  # type: ignore[arg-type]
    largest = rows["HST-10-768", "HST-10-768 at 384"]
    assert [round(float(v), 4) for v in largest[2:4]] == [2.9206, 2.9388]  # type: ignore[arg-type]


def test_command_lists_every_number() -> None:
    done = CliRunner().invoke(group, ["paper", "--every", "--format", "json"])
    assert done.exit_code == 0
    tables = {t["title"]: t["rows"] for t in json.loads(done.stdout)["tables"]}
    assert len(tables["Every printed number"]) == 527
    assert len(tables["Contradicted"]) == 24
    assert sum(row["numbers"] for row in tables["Every printed number, by verdict"]) == 527
