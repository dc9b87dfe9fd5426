"""Every number of the paper as tables: how many have which verdict, what is contradicted, what fits together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from qkf_deploy.display.numbers import decimals, ratio, si
from qkf_deploy.display.tables import Field, summed, tabulate
from qkf_deploy.evaluation.paper.published import E_AC, E_MAC, SPIKING_ROWS, TABLE_4, SpikingRow
from qkf_deploy.evaluation.paper.tables import Check, Cost
from qkf_deploy.evaluation.paper.verdicts import CONTRADICTED, VERDICTS, Verdict
from qkf_deploy.hw_models.network_shape import LayerShape, NetworkShape

if TYPE_CHECKING:
    from qkf_deploy.evaluation.paper.spiking import SpikingCost


def overview(found: Sequence[Verdict]) -> Check:
    """Numbers of each table by verdict."""
    names = list(dict.fromkeys(v.printed.table for v in found))

    def number(verdict: str) -> Callable[[str], int]:
        return lambda table: sum(v.printed.table == table and v.verdict == verdict for v in found)

    fields: tuple[Field[str], ...] = (
        Field("table", "table", lambda name: name, left=True),
        *(summed(verdict.replace(" ", "_"), verdict, number(verdict)) for verdict in VERDICTS),
        summed("numbers", "numbers", lambda name: sum(v.printed.table == name for v in found)),
    )
    remark = "A setting (T, image size, data set, a name) is a choice that the recomputation uses."
    return Check(tabulate("Every printed number, by verdict", fields, names), (), (remark,))


_CELLS: tuple[Field[Verdict], ...] = (
    Field("table", "table", lambda v: v.printed.table, left=True),
    Field("row", "row", lambda v: v.printed.row, left=True),
    Field("column", "column", lambda v: v.printed.column, left=True),
    Field("printed", "printed", lambda v: v.printed.value),
    Field("found", "found", lambda v: v.found),
    Field("verdict", "verdict", lambda v: v.verdict, left=True),
    Field("evidence", "evidence", lambda v: v.evidence, left=True),
)


def contradictions(found: Sequence[Verdict]) -> Check:
    """What evidence speaks against."""
    fields = [field for field in _CELLS if field.key != "verdict"]
    return Check(tabulate("Contradicted", fields, [v for v in found if v.verdict == CONTRADICTED]))


def every_number(found: Sequence[Verdict]) -> Check:
    """The whole list."""
    return Check(tabulate("Every printed number", _CELLS, found))


@dataclass(frozen=True)
class _Pair:
    """Two energy rows of one width, and what their ratio should be."""

    small: SpikingRow
    large: SpikingRow
    cost: Cost

    def energy_ratio(self) -> Fraction:
        return Fraction(Decimal(self.large.power_mj or 0)) / Fraction(Decimal(self.small.power_mj or 0))

    def work_ratio(self) -> Fraction:
        large, small = (row.time_steps * self._of(row).event_macs for row in (self.large, self.small))
        return Fraction(large, small)

    def mean(self, row: SpikingRow) -> Fraction:
        found = self._of(row)
        sops = Fraction(Decimal(row.power_mj or 0) * 10**9 - E_MAC * row.time_steps * found.first_macs) / Fraction(E_AC)
        return sops / (row.time_steps * found.event_macs)

    def _of(self, row: SpikingRow) -> SpikingCost:
        return self.cost(row.build, row.image_size)


def consistency(cost: Cost) -> Check:
    """The energies of one network at several sizes and steps, against each other."""
    rows = {row.name: row for row in SPIKING_ROWS}
    base = rows["HST-10-768"]
    pairs = [
        _Pair(base, rows["HST-10-768 at 288"], cost), _Pair(base, rows["HST-10-768 at 384"], cost),
        _Pair(rows["HST-10-768, T=1"], base, cost),
    ]  # fmt: skip
    fields: tuple[Field[_Pair], ...] = (
        Field("from", "from", lambda p: p.small.name, left=True),
        Field("to", "to", lambda p: p.large.name, left=True),
        Field("energy_ratio", "printed energies", _Pair.energy_ratio, decimals(4)),
        Field("work_ratio", "dense operations", _Pair.work_ratio, decimals(4)),
        Field("mean_from", "mean value, first", lambda p: p.mean(p.small), decimals(4)),
        Field("mean_to", "mean value, second", lambda p: p.mean(p.large), decimals(4)),
    )
    remarks = (
        "Energies grow as the dense operations do with K^T V first (linear in tokens); scores first would not. Mean "
        "values implied with the first layer at every step.",
        "From T = 1 to 4 the implied mean rises: neurons that start at zero fire less in the first step.",
    )
    return Check(tabulate("Do the printed energies fit together?", fields, pairs), (), remarks)


#: Layers that a printed rate enters: value of Table 4 -> end of the layer's name.
_READS = {"X'": "tssa.proj_conv", "MLP layer 1": "mlp.fc2_conv"}


@dataclass(frozen=True)
class _Priced:
    """One layer that Table 4 determines."""

    layer: LayerShape
    value: str
    rate: Decimal

    def operations(self, steps: int) -> Fraction:
        return Fraction(self.rate) * steps * self.layer.dense_macs


def table_4_pricing(network: NetworkShape, printed: SpikingRow, cost: Cost) -> Check:
    """The part of a QKFormer row that the firing rates of Table 4 determine.

    Args:
        network: the shape of the row's network.
        printed: the row.
        cost: its parameters and MACs.
    """
    rows = [
        _Priced(layer, value, Decimal(TABLE_4[value][int(layer.name[len("stage")]) - 1]))
        for layer in network
        for value, end in _READS.items()
        if layer.name.endswith(end) and layer.name.startswith(("stage1", "stage2"))
    ]
    steps, found = printed.time_steps, cost(printed.build, printed.image_size)
    priced = sum((row.operations(steps) for row in rows), start=Fraction(0))
    share = Fraction(sum(row.layer.dense_macs for row in rows), found.event_macs)
    total = Fraction(Decimal(printed.power_mj or 0) * 10**9 - E_MAC * steps * found.first_macs) / Fraction(E_AC)
    fields: tuple[Field[_Priced], ...] = (
        Field("layer", "layer", lambda r: r.layer.name, left=True),
        Field("reads", "reads", lambda r: r.value, left=True),
        Field("rate", "printed rate", lambda r: r.rate, decimals(4)),
        summed("dense_macs", "dense MACs / step", lambda r: r.layer.dense_macs),
        summed("operations", "operations", lambda r: r.operations(steps), si),
        summed("energy_pj", "energy (mJ)", lambda r: r.operations(steps) * Fraction(E_AC), _millijoule),
    )
    remark = (
        f"Table 4 determines {float(share):.2%} of the operations that read spikes: {float(priced) / 1e9:.3f} G of the "
        f"{float(total) / 1e9:.1f} G that {printed.power_mj} mJ implies; the other layers average "
        f"{ratio((total - priced) / (steps * found.event_macs * (1 - share)))}."
    )
    title = f"What Table 4 prices of {printed.name} ({printed.power_mj} mJ)"
    return Check(tabulate(title, fields, rows), (), (remark,))


def _millijoule(picojoule: Fraction) -> str:
    return f"{float(picojoule) * 1e-9:.4f}"
