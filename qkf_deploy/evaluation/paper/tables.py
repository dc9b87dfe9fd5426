"""The paper check as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from qkf_deploy.display.numbers import decimals, rate, ratio, si
from qkf_deploy.display.tables import Field, Sheet, tabulate
from qkf_deploy.evaluation.paper import dense, published, statistics
from qkf_deploy.evaluation.paper.published import (
    DENSE_ROWS,
    E_AC,
    E_MAC,
    SPIKING_ROWS,
    TABLE_4,
    TABLE_9,
    DenseRow,
    SpikingRow,
)

if TYPE_CHECKING:
    from qkf_deploy.evaluation.paper.growth import Growth
    from qkf_deploy.evaluation.paper.network import BlockRates, MeasuredMoments
    from qkf_deploy.evaluation.paper.spiking import SpikingCost

Cost = Callable[[str, int], "SpikingCost"]


@dataclass(frozen=True)
class Check:
    """One table of the check.

    Attributes:
        sheet: the numbers.
        differs: rows in which a recomputed number is not the published one.
        remarks: what cannot be recomputed, and why rows differ.
    """

    sheet: Sheet
    differs: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def parameters_and_macs(cost: Cost) -> Check:
    """Parameters and MACs of every QKFormer row (Tables 2, 3)."""
    rows, differs = [], []
    for row in SPIKING_ROWS:
        found = cost(row.build, row.image_size)
        rounded = (Decimal(found.parameters) / 10**6).quantize(Decimal("0.01"), ROUND_HALF_UP)
        same = row.parameters_m is None or rounded == Decimal(row.parameters_m)
        rows.append((row, found, "equal" if same else row.note or "differs"))
        if not same:
            differs.append(f"{row.name}: {rounded} M")
    remarks = ("Parameters and MACs come from the shapes alone; accuracy needs the published weights and ImageNet.",)
    return Check(tabulate("Parameters and MACs", _PARAMETERS, rows), tuple(differs), remarks)


_PARAMETERS: tuple[Field[tuple[SpikingRow, SpikingCost, str]], ...] = (
    Field("table", "table", lambda r: r[0].table, left=True),
    Field("row", "row", lambda r: r[0].name, left=True),
    Field("image_size", "pixels", lambda r: r[0].image_size),
    Field("parameters", "parameters", lambda r: r[1].parameters),
    Field("published_parameters_m", "printed (M)", lambda r: r[0].parameters_m or ""),
    Field("dense_macs_per_step", "dense MACs / step", lambda r: r[1].dense_macs),
    Field("first_layer_macs", "first layer", lambda r: r[1].first_macs),
    Field("head_macs", "head", lambda r: r[1].head_macs),
    Field("verdict", "verdict", lambda r: r[2], left=True),
)


def dense_rows() -> Check:
    """The ANN rows: 4.6 pJ x MACs truncated to 0.1 G, as all five of them are."""
    rows = [_dense_energy(row) for row in DENSE_ROWS]
    sheet = tabulate("Energy of the ANN rows (Table 2)", _DENSE, rows)
    differs = [f"{r.row.name} at {r.row.image_size}: {r.truncated_mj} mJ" for r in rows if not r.same]
    return Check(sheet, tuple(differs), ("Every printed figure is 4.6 pJ times the MACs cut (not rounded) to 0.1 G.",))


@dataclass(frozen=True)
class _DenseEnergy:
    """An ANN row, its MACs, and their energy exactly and with the MACs cut to 0.1 G."""

    row: DenseRow
    cost: dense.DenseCost
    energy_mj: Decimal
    truncated_mj: Decimal

    @property
    def same(self) -> bool:
        return self.truncated_mj == Decimal(self.row.power_mj)


def _dense_energy(row: DenseRow) -> _DenseEnergy:
    cost = dense.MODELS[row.model](row.image_size)
    giga = Decimal(cost.total) / 10**9
    return _DenseEnergy(row, cost, E_MAC * cost.total / 10**9, E_MAC * giga.quantize(Decimal("0.1"), ROUND_DOWN))


_DENSE: tuple[Field[_DenseEnergy], ...] = (
    Field("row", "row", lambda r: r.row.name, left=True),
    Field("image_size", "pixels", lambda r: r.row.image_size),
    Field("linear_macs", "convolution and linear", lambda r: r.cost.linear, partial(si, digits=6)),
    Field("attention_macs", "attention products", lambda r: r.cost.attention, partial(si, digits=5)),
    Field("energy_mj", "4.6 pJ x total (mJ)", lambda r: r.energy_mj, decimals(2)),
    Field("truncated_energy_mj", "total cut to 0.1 G (mJ)", lambda r: r.truncated_mj, decimals(2)),
    Field("published_mj", "printed (mJ)", lambda r: r.row.power_mj),
    Field("verdict", "verdict", lambda r: "equal" if r.same else "differs", left=True),
)


@dataclass(frozen=True)
class _Implied:
    """What the printed energy of a row implies, with the first layer counted once or at every step."""

    row: SpikingRow
    cost: SpikingCost
    sops: Fraction
    sops_every_step: Fraction


def implied_rates(cost: Cost) -> Check:
    """The mean input value that each printed energy of a QKFormer row implies (Eq. 22-23 turned round)."""
    rows = []
    for row in SPIKING_ROWS:
        if row.power_mj is None:
            continue
        found = cost(row.build, row.image_size)
        energy = Fraction(Decimal(row.power_mj)) * 10**9  # pJ
        fixed = row.time_steps * found.first_macs + found.head_macs
        once, every = ((energy - Fraction(E_MAC) * macs) / Fraction(E_AC) for macs in (found.first_macs, fixed))
        rows.append(_Implied(row, found, once, every))
    remarks = (
        "The printed energies cannot be recomputed without the weights, the images and a counting rule that was "
        "published only as a formula. Turned round, they imply mean values above every firing rate of Table 4 (0.02 to "
        "0.35), so integer residual inputs were counted by their value, not as binary spikes.",
        "Counting the first layer once or at every step fits every row equally well.",
    )
    return Check(tabulate("Mean input value implied by the energy rows", _IMPLIED, rows), (), remarks)


def _per_step(r: _Implied) -> int:
    return r.row.time_steps * r.cost.event_macs


_IMPLIED: tuple[Field[_Implied], ...] = (
    Field("row", "row", lambda r: r.row.name, left=True),
    Field("time_steps", "T", lambda r: r.row.time_steps),
    Field("published_mj", "printed (mJ)", lambda r: r.row.power_mj),
    Field("implied_sops", "implied SOPs", lambda r: r.sops, si),
    Field("mean_value_conv_once", "mean value, first layer once", lambda r: r.sops / _per_step(r), decimals(3)),
    Field(
        "mean_value_conv_every_step",
        "first layer at every step, head as MAC",
        lambda r: r.sops_every_step / _per_step(r),
        decimals(3),
    ),
    Field("spikes_per_synapse", "spikes per synapse", lambda r: r.sops / r.cost.event_macs, decimals(2)),
)


def variance_bounds() -> Check:
    """The maxima of Figure 4."""
    token, shared = statistics.largest_token_variance(64), statistics.largest_self_variance(64, 196)
    rows = (
        ("Q-K token attention", "d f (1 - f), f = f_Q", token, str(published.LARGEST_QKTA_VARIANCE)),
        ("SSA", "N d p (1 - p), p = f_Q f_K f_V", shared, f"over {published.LARGEST_SSA_VARIANCE}"),
    )
    same = token == published.LARGEST_QKTA_VARIANCE and shared > published.LARGEST_SSA_VARIANCE
    remark = (
        "The formula takes the N d products of SSA as independent; they share the spikes of Q and V, so the variance "
        "of independent spikes is larger (column 'shared' where a network is measured)."
    )
    sheet = tabulate("Largest variance of the attention sums (Eq. 15-20, Figure 4)", _VARIANCE, rows)
    return Check(sheet, () if same else ("largest variances",), (remark,))


_VARIANCE: tuple[Field[tuple[str, str, float, str]], ...] = (
    Field("attention", "attention", lambda r: r[0], left=True),
    Field("formula", "variance", lambda r: r[1], left=True),
    Field("largest", "largest at d = 64, N = 196", lambda r: r[2]),
    Field("published", "printed", lambda r: r[3], left=True),
)


def memory_growth(measured: Sequence[Growth]) -> Check:
    """Table 9: memory of one attention as tokens grow; the power of N is that of the two largest sizes."""
    by_key = {(g.name, round(g.tokens**0.5)): g.peak_mib for g in measured}
    sides = sorted({side for _, side in by_key})
    before, last = sides[-2:]

    def column(name: str) -> Field[int]:
        def power(_: Sequence[int]) -> float:
            return _slope(by_key[name, before], by_key[name, last], (last / before) ** 2)

        return Field(name, f"{name} (MiB)", lambda side: by_key[name, side], decimals(2), total=power)

    fields: tuple[Field[int], ...] = (
        Field("side", "√N", lambda side: side, total=lambda _: f"power of N, {before} to {last}"),
        *(column(name) for name in dict.fromkeys(g.name for g in measured)),
        Field("published", "printed: QKTA, SSA (MB)", lambda side: ", ".join(TABLE_9.get(side, ())), left=True),
    )
    remarks = (
        "Bytes that intermediates and result hold at once on float32 tensors of one head; Q, K, V are not counted. The "
        "published SSA column is the N x N form; the published code multiplies K^T V first and grows linearly.",
    )
    return Check(tabulate("Memory as tokens grow (Table 9, C = 256)", fields, sides), (), remarks)


def _slope(small: float, large: float, factor: float) -> float:
    from qkf_deploy.evaluation.paper.growth import exponent

    return exponent(small, large, factor)


def operation_growth(measured: Sequence[Growth], base: tuple[int, int]) -> Check:
    """Table 1: how counted operations grow with N and with D."""
    tokens, channels = base
    sizes = {(g.name, g.tokens, g.channels): g for g in measured}

    def power(first: Growth, tokens: int, channels: int) -> float:
        work, doubled = (g.macs + g.additions + g.ands for g in (first, sizes[first.name, tokens, channels]))
        return _slope(work, doubled, 2)

    fields: tuple[Field[Growth], ...] = (
        Field("attention", "attention", lambda g: g.name, left=True),
        Field("macs", "MACs", lambda g: g.macs),
        Field("additions", "additions", lambda g: g.additions),
        Field("ands", "gate ANDs", lambda g: g.ands),
        Field("power_of_tokens", "power of N", lambda g: power(g, 2 * tokens, channels), decimals(2)),
        Field("power_of_channels", "power of D", lambda g: power(g, tokens, 2 * channels), decimals(2)),
    )
    rows = [sizes[name, tokens, channels] for name in dict.fromkeys(g.name for g in measured)]
    title = f"Operations of one attention (Table 1), N = {tokens}, D = {channels}, one head"
    return Check(tabulate(title, fields, rows))


def firing_rates(blocks: Sequence[BlockRates]) -> Check:
    """Table 4 of the given network beside the printed one (ImageNet, stages 1 and 2)."""

    def column(block: BlockRates) -> Field[str]:
        return Field(block.block, block.block, block.rates.get, rate)

    fields: tuple[Field[str], ...] = (
        Field("value", "value", lambda name: name, left=True),
        *map(column, blocks),
        Field("published_stage1", "printed, stage 1", lambda name: TABLE_4[name][0], decimals(4)),
        Field("published_stage2", "printed, stage 2", lambda name: TABLE_4[name][1], decimals(4)),
    )
    sheet = tabulate("Firing rates in Q-K attention blocks (Table 4), this network", fields, TABLE_4)
    return Check(sheet, (), ("Rates are those of the neurons' outputs; the printed ones are of the ImageNet network.",))


def measured_moments(found: Sequence[MeasuredMoments]) -> Check:
    """Eq. 15-20 against measurement on the given network."""
    remark = "Theory takes every spike as independent with one rate; measured variance above it is correlation."
    return Check(tabulate("Expectation and variance of attention sums, this network", _MOMENTS, found), (), (remark,))


_digits = partial(ratio, digits=4)
_MOMENTS: tuple[Field[MeasuredMoments], ...] = (
    Field("node", "attention sum", lambda m: m.node, left=True),
    Field("rates", "rates", lambda m: ", ".join(f"{r:.4f}" for r in m.rates), left=True),
    Field("measured_mean", "mean", lambda m: m.measured.mean, _digits),
    Field("theory_mean", "theory", lambda m: m.theory.mean, _digits),
    Field("measured_variance", "variance", lambda m: m.measured.variance, _digits),
    Field("theory_variance", "theory (Eq. 15-20)", lambda m: m.theory.variance, _digits),
    Field("shared_variance", "theory, shared", lambda m: m.shared.variance, _digits),
)
