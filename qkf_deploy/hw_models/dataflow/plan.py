"""How one unit is executed: the order of its loops and its tiles, and whether these fit the buffers of a core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qkf_deploy.hw_models.architecture.chip import Core
from qkf_deploy.hw_models.dataflow.layer import Layer, Synapse

#: Dataflows whose sums stay over all steps: they need every step of their input before they begin.
OVER_TIME = ("output-stationary-t", "weight-stationary", "dense")


@dataclass(frozen=True)
class Plan:
    """Loops of one unit.

    Attributes:
        dataflow: of :data:`~qkf_deploy.hw_models.architecture.chip.DATAFLOWS`; empty where no synapse reads events.
        bands: tiles of output rows.
        groups: of output channels.
        repeated: counts are repeated events.
    """

    dataflow: str = ""
    bands: int = 1
    groups: int = 1
    repeated: bool = False


def plans(layer: Layer, core: Core, cores: int, steps: int) -> Iterator[Plan]:
    """Every way to execute a unit on a core, tiles as large as its buffers allow and small enough for all cores."""
    if not layer.synapses:
        yield Plan()
        return
    ways = (True, False) if any(s.has_counts for s in layer.synapses) else (False,)
    for dataflow in core.dataflows:
        for bands in _bands(layer, dataflow):
            for groups in _groups(layer, core, cores, Plan(dataflow, bands), steps):
                # a bitmap holds a count as it is
                yield from (Plan(dataflow, bands, groups, r) for r in ways if dataflow == "event-scatter" or not r)


def _bands(layer: Layer, dataflow: str) -> list[int]:
    common = set.intersection(*(set(s.activity.bands) for s in layer.synapses))
    return [1] if dataflow == "weight-stationary" else sorted(common)


def _groups(layer: Layer, core: Core, cores: int, plan: Plan, steps: int) -> list[int]:
    """Fewest groups that fit, and as many as give every core a tile."""
    most = min(s.outputs for s in layer.synapses)
    low, high = 0, most  # channels of a group
    while low < high:
        middle = (low + high + 1) // 2
        fits = fits_core(layer, core, Plan(plan.dataflow, plan.bands, -(-most // middle)), steps)
        low, high = (middle, high) if fits else (low, middle - 1)
    if not low:
        return []
    fewest = -(-most // low)
    return sorted({fewest, max(fewest, min(-(-cores // plan.bands), most))})


def fits_core(layer: Layer, core: Core, plan: Plan, steps: int) -> bool:
    """True if one tile finds room in the buffers of a core."""
    need = {"weights": 0, "state": 0, "partial-sums": 0}
    for synapse in layer.synapses:
        need["weights"] += -(-synapse.weights // plan.groups) * synapse.weight_bits
        sums = _tile_sums(synapse, plan)
        if plan.dataflow == "output-stationary":
            need["partial-sums"] += sums
        elif plan.dataflow in ("output-stationary-t", "dense"):
            need["partial-sums"] += sums * steps
        elif plan.dataflow == "weight-stationary":
            need["state"] += sums * steps
        else:  # membranes take the sums; drives that are pooled first need room of their own
            need["state"] += sums if synapse.positions * synapse.channels != _size(layer) else 0
    state = -(-layer.state_bits // (plan.bands * plan.groups))
    need["partial-sums" if plan.dataflow in OVER_TIME else "state"] += state
    for buffer in core.buffers:
        held = sum(bits for operand, bits in need.items() if core.buffer(operand) is buffer)
        if buffer.bytes is not None and held > 8 * buffer.bytes:
            return False
    return True


def _tile_sums(synapse: Synapse, plan: Plan) -> int:
    channels = -(-synapse.channels // plan.groups)
    return channels * synapse.band_positions(plan.bands) * synapse.sum_bits


def _size(layer: Layer) -> int:
    return layer.unit.channels * layer.unit.positions
