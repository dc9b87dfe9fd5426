"""What a page says first: one sentence and the numbers that are quoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from qkf_deploy.display.numbers import joules, percent, quantity, si
from qkf_deploy.hw_models.pricing import EnergyReport
from qkf_deploy.hw_models.quantity import MEMORY_WORK
from qkf_deploy.hw_models.twins import Twin
from qkf_deploy.report.hardware_view import HardwareView
from qkf_deploy.runs.content import RunFile
from qkf_deploy.statistics.comparison import RunComparison, Side
from qkf_deploy.statistics.measures import Share
from qkf_deploy.statistics.summary import Evaluation

Card = Mapping[str, str]


def conclusion(
    run: RunFile, evaluation: Evaluation, reports: Sequence[EnergyReport], beside: RunComparison | None
) -> str:
    """Accuracy, operations and energy in one sentence."""
    network = network_name(run)
    if evaluation.accuracy is None:
        answers = f"The {network} ran on {quantity(run.ledger.images, 'image')} without labels"
    else:
        answers = f"The {network} answers {_answers(evaluation.accuracy.top1)}{_against_float(beside)}"
    energy = f"{joules(evaluation.energy_pj[reports[0].profile.id].mean)} per image under {reports[0].profile.id}"
    stored = with_memory(reports)
    memory = f", {joules(stored.mean_energy_pj)} with memory under {stored.profile.id}" if stored else ""
    return f"{answers}, with {si(evaluation.sops.mean)} synaptic operations and {energy}{memory}."


def network_name(run: RunFile) -> str:
    """What kind of network it is: ``8-bit integer network with T = 4``."""
    bits = sorted({layer.weight_bits for layer in run.ledger if layer.weight_bits})
    kind = "float" if run.ledger.arithmetic == "float" else f"{'/'.join(map(str, bits))}-bit integer"
    return f"{kind} network with T = {run.ledger.time_steps}"


def with_memory(reports: Sequence[EnergyReport]) -> EnergyReport | None:
    """The first report whose prices include memory."""
    return next((r for r in reports if not MEMORY_WORK.isdisjoint(r.profile.accounted)), None)


def cards(
    evaluation: Evaluation, reports: Sequence[EnergyReport], beside: RunComparison | None, spikes: Fraction, twin: Twin
) -> list[Card]:
    """The numbers that are quoted, each with what it is."""
    found: list[Card] = []
    if evaluation.accuracy is not None:
        found.append(_accuracy("top-1", evaluation.accuracy.top1))
        if evaluation.accuracy.top5 is not None:
            found.append(_accuracy("top-5", evaluation.accuracy.top5))
    other = _float_side(beside)
    if other is not None and other.accuracy is not None:
        found.append(_accuracy("top-1 of the float network", other.accuracy))
    stored = with_memory(reports)
    for report in [*reports[:2], *([stored] if stored and stored not in reports[:2] else [])]:
        what = ", with memory" if report is stored else ", arithmetic"
        spread = evaluation.energy_pj[report.profile.id]
        between = f", 95 %: {joules(spread.interval.low)} to {joules(spread.interval.high)}" if spread.interval else ""
        found.append(_card(joules(spread.mean), f"per image, {report.profile.id}{what}{between}"))
    found += _conventions(reports)
    found.append(_card(f"{float(spikes):.3f}", "spikes per synapse per inference"))
    for ratio, what in ((twin.ratio, "arithmetic"), (twin.ratio_with_memory, "with memory")):
        if ratio:
            word = f"{float(ratio):.3g} x less" if ratio > 1 else f"{float(1 / ratio):.3g} x more"
            found.append(_card(word, f"than its dense int8 twin ({what})"))
    return found


def chip_cards(views: Sequence[HardwareView]) -> list[Card]:
    """Latency and energy on the chip that was chosen; of several, on the first."""
    if not views:
        return []
    view = views[0]
    if view.latency_ns is None or view.energy_pj is None:
        return []
    low, nominal, high = map(joules, view.energy_pj)
    cores = quantity(view.cores, "core")
    without = f"; without {'; '.join(view.left_out)}" if view.left_out else ""
    label = f"latency of one image on {view.chip}, {cores}, {nominal} ({low} to {high}){without}"
    return [_card(si(view.latency_ns / 1e9, "s"), label)]


def _conventions(reports: Sequence[EnergyReport]) -> list[Card]:
    regime = reports[0].profile.regime
    same = [r.mean_energy_pj for r in reports if r.profile.regime == regime]
    if len(same) < 2 or not min(same):
        return []
    label = f"between {len(same)} counting conventions at the same {regime} prices"
    return [_card(f"{float(max(same) / min(same)):.3g} x", label)]


def _card(value: str, label: str) -> Card:
    return {"value": value, "label": label}


def _accuracy(what: str, share: Share) -> Card:
    between = share.interval
    range_ = f", 95 %: {percent(between.low)} to {percent(between.high)}" if between else ""
    return _card(_percent(share), f"{what}, {share.hits:,} of {share.n:,}{range_}")


def _answers(share: Share) -> str:
    return f"{share.hits:,} of {quantity(share.n, 'image')} rightly ({_percent(share)})"


def _percent(share: Share) -> str:
    return percent(share.value) if share.value is not None else "unknown"


def _float_side(beside: RunComparison | None) -> Side | None:
    return next((s for s in beside.sides if s.arithmetic == "float"), None) if beside else None


def _against_float(beside: RunComparison | None) -> str:
    other = _float_side(beside)
    return f", the float network {_answers(other.accuracy)}" if other and other.accuracy else ""
