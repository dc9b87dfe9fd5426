"""The paper check: what is recomputed equals the printed numbers, or says where it does not."""

from __future__ import annotations

import io
import json
from decimal import Decimal

import numpy as np
import pytest
import torch
from digits_network import DigitsNetwork
from PIL import Image

from qkf_deploy import api
from qkf_deploy.evaluation.paper import check, dense, growth, published, statistics, tables
from qkf_deploy.evaluation.paper.spiking import SpikingCost, spiking_cost

#: Dense MACs of one step: torch's FLOP counter on the official files, halved.
OFFICIAL_MACS = {
    ("qkformer-10-384", 224): 5_898_673_152,
    ("qkformer-10-384", 288): 9_750_617_088,
    ("qkformer-10-384", 384): 17_334_131_712,
    ("qkformer-10-512", 224): 10_427_486_208,
    ("qkformer-10-512", 288): 17_236_938_752,
    ("qkformer-10-512", 384): 30_643_048_448,
    ("qkformer-10-768", 224): 23_328_995_328,
    ("qkformer-10-768", 288): 38_563_756_032,
    ("qkformer-10-768", 384): 68_557_191_168,
    ("qkformer-4-384-cifar10", 32): 1_515_998_976,
    ("qkformer-4-384-cifar100", 32): 1_516_033_536,
    ("qkformer-2-256-dvs128", 128): 557_845_248,
    ("qkformer-2-256-cifar10dvs", 128): 507_513_344,
}
PARAMETERS = {
    "qkformer-10-384": 16_473_688,
    "qkformer-10-512": 29_079_336,
    "qkformer-10-768": 64_962_760,
    "qkformer-4-384-cifar10": 6_706_234,
    "qkformer-4-384-cifar100": 6_740_884,
    "qkformer-2-256-dvs128": 1_999_371,
    "qkformer-2-256-cifar10dvs": 1_504_138,
}


@pytest.mark.parametrize(("build", "size"), OFFICIAL_MACS)
def test_macs_and_parameters_of_the_official_builds(build: str, size: int) -> None:
    found = spiking_cost(build, size)
    assert found.dense_macs == OFFICIAL_MACS[build, size]
    assert found.parameters == PARAMETERS[build]


def test_first_layer_and_head() -> None:
    found = spiking_cost("qkformer-10-768", 224)
    assert (found.first_macs, found.head_macs) == (130_056_192, 768_000)
    assert found.event_macs == found.dense_macs - 130_056_192 - 768_000


@pytest.mark.parametrize(
    ("model", "size", "linear", "attention"),
    [
        ("vit-base-16", 384, 49.3478, 6.1365),
        ("vit-base-16", 224, 16.8485, 0.7153),
        ("swin-base", 224, 15.1261, 0.3049),
        ("swin-base", 384, 44.4502, 2.6330),
    ],
)
def test_dense_models_in_giga_macs(model: str, size: int, linear: float, attention: float) -> None:
    """Against hooks and torch's FLOP counter on timm models, four decimals."""
    cost = dense.MODELS[model](size)
    assert round(cost.linear / 1e9, 4) == linear
    assert round(cost.attention / 1e9, 4) == attention


def test_every_printed_ann_energy_is_reached_to_the_cent() -> None:
    found = tables.dense_rows()
    assert found.differs == ()
    assert [row[-1] for row in found.sheet.rows] == ["equal"] * 5
    for row in found.sheet.rows:
        assert abs(float(row[4]) - float(row[6])) < 0.4  # type: ignore[arg-type]


def test_a_wrong_shape_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dense.MODELS, "swin-base", lambda size: dense.vit_base_16(size))  # type: ignore[arg-type]
    assert len(tables.dense_rows().differs) == 2


def test_implied_rates() -> None:
    rows = {r[0]: r for r in tables.implied_rates(spiking_cost).sheet.rows}
    assert [round(float(v), 3) for v in rows["HST-10-384"][4:6]] == [0.706, 0.663]  # type: ignore[arg-type]
    assert [round(float(v), 3) for v in rows["HST-10-768"][4:6]] == [0.459, 0.437]  # type: ignore[arg-type]
    assert round(float(rows["HST-10-768, T=1"][6]), 2) == 0.38  # type: ignore[arg-type]
    largest_rate = max(Decimal(v) for pair in published.TABLE_4.values() for v in pair)
    assert all(r[4] > largest_rate for r in rows.values())  # type: ignore[operator]


def test_rows_that_are_not_what_is_printed() -> None:
    found = tables.parameters_and_macs(spiking_cost)
    assert found.differs == ("CIFAR10 HST-4-384: 6.71 M", "DVS128 HST-2-256: 2.00 M")
    wrong = tables.parameters_and_macs(lambda build, size: SpikingCost(1, 1, 1, 0))
    assert len(wrong.differs) == len(published.SPIKING_ROWS)


def test_largest_variances() -> None:
    assert statistics.largest_token_variance(64) == 16
    assert statistics.largest_self_variance(64, 196) == 3136
    assert tables.variance_bounds().differs == ()


@pytest.mark.parametrize("rates", [(0.1, 0.2, 0.3), (0.5, 0.5, 0.5), (0.9, 0.05, 0.6)])
def test_moments_against_simulated_spikes(rates: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(7)
    d, n, draws = 8, 6, 40_000
    q, k, v = (rng.random((draws, *shape)) < rate for shape, rate in zip(((d,), (n, d), (n,)), rates, strict=True))
    sums = np.einsum("bi,bmi,bm->b", q.astype(float), k.astype(float), v.astype(float))
    shared = statistics.self_attention_shared(d, n, *rates)
    assert sums.mean() == pytest.approx(shared.mean, rel=0.03)
    assert sums.var() == pytest.approx(shared.variance, rel=0.04)
    assert shared.mean == pytest.approx(statistics.self_attention(d, n, *rates).mean)
    assert shared.variance > statistics.self_attention(d, n, *rates).variance
    token = statistics.token_attention(d, rates[0])
    assert (q.sum(1).mean(), q.sum(1).var()) == pytest.approx((token.mean, token.variance), rel=0.03)


def test_memory_of_table_9() -> None:
    assert round(growth.measure("SSA, scores first", 100, 256).peak_mib, 2) == 0.14
    assert round(growth.measure("SSA, scores first", 40_000, 256).peak_mib) == 6143
    assert round(growth.measure("Q-K token attention", 100, 256).peak_mib, 2) == 0.10
    small, large = (growth.measure("Q-K token attention", n, 256).peak_mib for n in (10_000, 40_000))
    assert growth.exponent(small, large, 4) == pytest.approx(1, abs=0.01)
    small, large = (growth.measure("SSA, scores first", n, 256).peak_mib for n in (10_000, 40_000))
    assert growth.exponent(small, large, 4) == pytest.approx(2, abs=0.02)


def test_peak_memory_counts_what_lives_at_once() -> None:
    given = torch.zeros(1000)
    with growth.PeakMemory(given) as memory:
        a = given + 1
        del a
        b = given + 2
        _ = given.view(10, 100)
        c = b + 1
        del b, c
    assert memory.peak == 2 * 4000
    assert memory.live == 0


def test_attentions_compute_what_they_are_named() -> None:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randint(0, 2, (6, 5), generator=generator).double() for _ in range(3))
    assert torch.equal(growth.self_attention_scores_first(q, k, v), growth.self_attention_context_first(q, k, v))
    gated = growth.token_attention(q, k, v)
    for token in range(5):
        assert torch.equal(gated[:, token], k[:, token] if q[:, token].any() else torch.zeros(6).double())
    assert torch.equal(growth.channel_attention(q, k, v), growth.token_attention(q.T, k.T, v.T).T)


def test_the_whole_check(network_checks: list[tables.Check]) -> None:
    text = check.render(network_checks, "table")
    for words in ("Table 4", "Eq. 15-20", "projection", "stage3.0.ssa.matmul#2", "stage1.0"):
        assert words in text
    data = json.loads(check.render(network_checks, "json"))
    assert data["kind"] == "paper-check"
    assert len(data["tables"]) == 2


@pytest.fixture(scope="module")
def network_checks(network: DigitsNetwork) -> list[tables.Check]:
    return check.network_checks(network.integer_graph, network.pixels, "reference", {})[0]


def test_table_4_is_the_rate_of_the_recorded_spikes(network: DigitsNetwork) -> None:
    from qkf_deploy.evaluation.paper.network import block_rates, figure_3, moments, recorded_nodes

    graph = network.integer_graph
    run = api.simulate(graph, network.pixels, record=recorded_nodes(graph), engine="reference")
    blocks = {b.block: b.rates for b in block_rates(graph, run.ledger)}
    assert list(blocks) == ["stage1.0", "stage2.0"]
    assert float(blocks["stage1.0"]["Q"]) == pytest.approx(run.values["stage1.0.tssa.q_lif"].mean(), rel=1e-12)
    assert float(blocks["stage2.0"]["X'"]) == pytest.approx(run.values["stage2.0.tssa.mask"].mean(), rel=1e-12)
    assert set(blocks["stage1.0"]) == set(published.TABLE_4)
    found = {m.node: m for m in moments(graph, run)}
    assert set(found) == {"stage1.0.tssa.sum", "stage2.0.tssa.sum", "stage3.0.ssa.matmul#2"}
    gate = found["stage1.0.tssa.sum"]
    assert gate.theory.mean == pytest.approx(gate.measured.mean, rel=1e-12)  # a mean does not feel correlation
    picture = figure_3(graph, run)
    assert picture is not None
    image = Image.open(io.BytesIO(picture))
    assert image.size[0] == 4 * 256
    assert network_has_black_and_white(np.asarray(image))


def network_has_black_and_white(pixels: np.ndarray) -> bool:
    return {0, 128, 255} == set(np.unique(pixels).tolist())
