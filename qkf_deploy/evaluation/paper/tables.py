"""The paper check as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from qkf_deploy.evaluation.paper import dense, published, statistics
from qkf_deploy.evaluation.paper.published import DENSE_ROWS, E_AC, E_MAC, SPIKING_ROWS, TABLE_4, TABLE_9
from qkf_deploy.report.formats import Column, Sheet, si

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
    columns = (
        Column("table", "table", True),
        Column("row", "row", True),
        Column("image_size", "pixels"),
        Column("parameters", "parameters"),
        Column("published_parameters_m", "printed (M)"),
        Column("dense_macs_per_step", "dense MACs / step"),
        Column("first_layer_macs", "first layer"),
        Column("head_macs", "head"),
        Column("verdict", "verdict", True),
    )
    rows, shown, differs = [], [], []
    for row in SPIKING_ROWS:
        found = cost(row.build, row.image_size)
        rounded = (Decimal(found.parameters) / 10**6).quantize(Decimal("0.01"), ROUND_HALF_UP)
        same = row.parameters_m is None or rounded == Decimal(row.parameters_m)
        verdict = "equal" if same else row.note or "differs"
        if not same:
            differs.append(f"{row.name}: {rounded} M")
        cells = (
            row.table, row.name, row.image_size, found.parameters, row.parameters_m or "", found.dense_macs,
            found.first_macs, found.head_macs, verdict,
        )  # fmt: skip
        rows.append(cells)
        shown.append(tuple(f"{c:,}" if isinstance(c, int) else str(c) for c in cells))
    remarks = ("Parameters and MACs come from the shapes alone; accuracy needs the published weights and ImageNet.",)
    return Check(Sheet("Parameters and MACs", columns, tuple(rows), tuple(shown)), tuple(differs), remarks)


def dense_rows() -> Check:
    """The ANN rows: 4.6 pJ x MACs truncated to 0.1 G, as all five of them are."""
    columns = (
        Column("row", "row", True),
        Column("image_size", "pixels"),
        Column("linear_macs", "convolution and linear"),
        Column("attention_macs", "attention products"),
        Column("energy_mj", "4.6 pJ x total (mJ)"),
        Column("truncated_energy_mj", "total cut to 0.1 G (mJ)"),
        Column("published_mj", "printed (mJ)"),
        Column("verdict", "verdict", True),
    )
    rows, shown, differs = [], [], []
    for row in DENSE_ROWS:
        cost = dense.MODELS[row.model](row.image_size)
        exact = E_MAC * cost.total / 10**9
        giga = (Decimal(cost.total) / 10**9).quantize(Decimal("0.1"), ROUND_DOWN)
        truncated = E_MAC * giga
        same = truncated == Decimal(row.power_mj)
        if not same:
            differs.append(f"{row.name} at {row.image_size}: {truncated} mJ")
        verdict = "equal" if same else "differs"
        rows.append((row.name, row.image_size, cost.linear, cost.attention, exact, truncated, row.power_mj, verdict))
        numbers = (si(cost.linear, digits=6), si(cost.attention, digits=5), f"{exact:.2f}", f"{truncated:.2f}")
        shown.append((row.name, str(row.image_size), *numbers, row.power_mj, verdict))
    sheet = Sheet("Energy of the ANN rows (Table 2)", columns, tuple(rows), tuple(shown))
    return Check(sheet, tuple(differs), ("Every printed figure is 4.6 pJ times the MACs cut (not rounded) to 0.1 G.",))


def implied_rates(cost: Cost) -> Check:
    """The mean input value that each printed energy of a QKFormer row implies (Eq. 22-23 turned round)."""
    columns = (
        Column("row", "row", True),
        Column("time_steps", "T"),
        Column("published_mj", "printed (mJ)"),
        Column("implied_sops", "implied SOPs"),
        Column("mean_value_conv_once", "mean value, first layer once"),
        Column("mean_value_conv_every_step", "first layer at every step, head as MAC"),
        Column("spikes_per_synapse", "spikes per synapse"),
    )
    rows, shown = [], []
    for row in SPIKING_ROWS:
        if row.power_mj is None:
            continue
        found = cost(row.build, row.image_size)
        energy = Fraction(Decimal(row.power_mj)) * 10**9  # pJ
        once = (energy - Fraction(E_MAC) * found.first_macs) / Fraction(E_AC)
        fixed = row.time_steps * found.first_macs + found.head_macs
        every = (energy - Fraction(E_MAC) * fixed) / Fraction(E_AC)
        per_step = row.time_steps * found.event_macs
        values = (once / per_step, every / per_step, once / found.event_macs)
        rows.append((row.name, row.time_steps, row.power_mj, once, *values))
        texts = (f"{float(values[0]):.3f}", f"{float(values[1]):.3f}", f"{float(values[2]):.2f}")
        shown.append((row.name, str(row.time_steps), row.power_mj, si(once), *texts))
    remarks = (
        "The printed energies cannot be recomputed without the weights, the images and a counting rule that was "
        "published only as a formula. Turned round, they imply mean values above every firing rate of Table 4 (0.02 to "
        "0.35), so integer residual inputs were counted by their value, not as binary spikes.",
        "Counting the first layer once or at every step fits every row equally well.",
    )
    return Check(Sheet("Mean input value implied by the energy rows", columns, tuple(rows), tuple(shown)), (), remarks)


def variance_bounds() -> Check:
    """The maxima of Figure 4."""
    columns = (
        Column("attention", "attention", True),
        Column("formula", "variance", True),
        Column("largest", "largest at d = 64, N = 196"),
        Column("published", "printed", True),
    )
    token, shared = statistics.largest_token_variance(64), statistics.largest_self_variance(64, 196)
    rows = (
        ("Q-K token attention", "d f (1 - f), f = f_Q", token, str(published.LARGEST_QKTA_VARIANCE)),
        ("SSA", "N d p (1 - p), p = f_Q f_K f_V", shared, f"over {published.LARGEST_SSA_VARIANCE}"),
    )
    differs = []
    if token != published.LARGEST_QKTA_VARIANCE or shared <= published.LARGEST_SSA_VARIANCE:
        differs.append("largest variances")
    remark = (
        "The formula takes the N d products of SSA as independent; they share the spikes of Q and V, so the variance "
        "of independent spikes is larger (column 'shared' where a network is measured)."
    )
    return Check(
        Sheet("Largest variance of the attention sums (Eq. 15-20, Figure 4)", columns, rows), tuple(differs), (remark,)
    )


def memory_growth(measured: Sequence[Growth]) -> Check:
    """Table 9: memory of one attention as tokens grow; the power of N is that of the two largest sizes."""
    names = list(dict.fromkeys(g.name for g in measured))
    columns = (
        Column("side", "√N"),
        *(Column(name, f"{name} (MiB)") for name in names),
        Column("published", "printed: QKTA, SSA (MB)", True),
    )
    sides = sorted({round(g.tokens**0.5) for g in measured})
    by_key = {(g.name, round(g.tokens**0.5)): g.peak_mib for g in measured}
    rows = [(s, *(by_key[n, s] for n in names), ", ".join(TABLE_9.get(s, ()))) for s in sides]
    shown = [(str(r[0]), *(f"{v:.2f}" for v in r[1:-1]), str(r[-1])) for r in rows]
    before, last = sides[-2:]
    slopes = [_slope(by_key[n, before], by_key[n, last], (last / before) ** 2) for n in names]
    footer = (f"power of N, {before} to {last}", *(f"{s:.2f}" for s in slopes), "")
    remarks = (
        "Bytes that intermediates and result hold at once on float32 tensors of one head; Q, K, V are not counted. The "
        "published SSA column is the N x N form; the published code multiplies K^T V first and grows linearly.",
    )
    sheet = Sheet("Memory as tokens grow (Table 9, C = 256)", columns, tuple(rows), tuple(shown), footer)
    return Check(sheet, (), remarks)


def _slope(small: float, large: float, factor: float) -> float:
    from qkf_deploy.evaluation.paper.growth import exponent

    return exponent(small, large, factor)


def operation_growth(measured: Sequence[Growth], base: tuple[int, int]) -> Check:
    """Table 1: how counted operations grow with N and with D."""
    columns = (
        Column("attention", "attention", True),
        Column("macs", "MACs"),
        Column("additions", "additions"),
        Column("ands", "gate ANDs"),
        Column("power_of_tokens", "power of N"),
        Column("power_of_channels", "power of D"),
    )
    tokens, channels = base
    sizes = {(g.name, g.tokens, g.channels): g for g in measured}
    rows, shown = [], []
    for name in dict.fromkeys(g.name for g in measured):
        first = sizes[name, tokens, channels]
        work = first.macs + first.additions + first.ands
        doubled = (sizes[name, 2 * tokens, channels], sizes[name, tokens, 2 * channels])
        powers = [_slope(work, g.macs + g.additions + g.ands, 2) for g in doubled]
        rows.append((name, first.macs, first.additions, first.ands, *powers))
        shown.append((name, *(f"{v:,}" for v in rows[-1][1:4]), *(f"{p:.2f}" for p in powers)))
    title = f"Operations of one attention (Table 1), N = {tokens}, D = {channels}, one head"
    return Check(Sheet(title, columns, tuple(rows), tuple(shown)))


def firing_rates(blocks: Sequence[BlockRates]) -> Check:
    """Table 4 of the given network beside the printed one (ImageNet, stages 1 and 2)."""
    columns = (
        Column("value", "value", True),
        *(Column(b.block, b.block) for b in blocks),
        Column("published_stage1", "printed, stage 1"),
        Column("published_stage2", "printed, stage 2"),
    )
    rows = [(name, *(b.rates.get(name) for b in blocks), *TABLE_4[name]) for name in TABLE_4]
    shown = [(str(r[0]), *("" if v is None else f"{float(v):.4f}" for v in r[1:])) for r in rows]
    sheet = Sheet("Firing rates in Q-K attention blocks (Table 4), this network", columns, tuple(rows), tuple(shown))
    return Check(sheet, (), ("Rates are those of the neurons' outputs; the printed ones are of the ImageNet network.",))


def measured_moments(found: Sequence[MeasuredMoments]) -> Check:
    """Eq. 15-20 against measurement on the given network."""
    columns = (
        Column("node", "attention sum", True),
        Column("rates", "rates", True),
        Column("measured_mean", "mean"),
        Column("theory_mean", "theory"),
        Column("measured_variance", "variance"),
        Column("theory_variance", "theory (Eq. 15-20)"),
        Column("shared_variance", "theory, shared"),
    )
    rows = tuple(
        (
            m.node, ", ".join(f"{r:.4f}" for r in m.rates), m.measured.mean, m.theory.mean, m.measured.variance,
            m.theory.variance, m.shared.variance,
        )
        for m in found
    )  # fmt: skip
    shown = tuple((str(r[0]), str(r[1]), *(f"{float(v):.4g}" for v in r[2:])) for r in rows)
    remark = "Theory takes every spike as independent with one rate; measured variance above it is correlation."
    sheet = Sheet("Expectation and variance of attention sums, this network", columns, rows, shown)
    return Check(sheet, (), (remark,))
