"""A network on a chip from images to a verdict: what the command, and a whole run, put together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qkf_deploy.ir import Graph
from qkf_deploy.pipeline.costs import load_chip, map_network
from qkf_deploy.pipeline.hardware import dense_twin, hardware, mapped_time, measure_activity, measure_network_use
from qkf_deploy.pipeline.hardware_options import Goal
from qkf_deploy.pipeline.inputs import Inputs, load_inputs
from qkf_deploy.pipeline.networks import load
from qkf_deploy.report.hardware_table import render_hardware

if TYPE_CHECKING:
    from qkf_deploy.hw_models.activity import Activity
    from qkf_deploy.hw_models.architecture.chip import Chip
    from qkf_deploy.hw_models.hardware import Hardware, Verdict
    from qkf_deploy.hw_models.timing.latency import Latency
    from qkf_deploy.hw_models.timing.use import NetworkUse


@dataclass(frozen=True)
class OnChip:
    """What is known of a network on a chip.

    Attributes:
        found: energy by component and time.
        twin: its dense twin there; ``None`` where it was left out.
        time: of one image on the mesh; ``None`` where layers have no cores of their own.
    """

    found: Hardware
    twin: Verdict | None
    time: Latency | None

    def text(self, fmt: str) -> str:
        """In a format of :data:`qkf_deploy.report.formats.FORMATS`."""
        return render_hardware(self.found, self.twin, fmt, self.time)


def followed(graph: Graph, images: Inputs, chip: Chip, **options: Any) -> NetworkUse | None:
    """Messages between cores; ``None`` where layers have none of their own, or not all of them find a place."""
    meshed = chip.execution == "resident" and chip.network is not None and not graph.not_causal
    if not meshed or map_network(graph, chip).infeasible:
        return None
    return measure_network_use(graph, images, chip, **options)


def put_together(
    graph: Graph, images: Inputs, activity: Activity, chip: Chip, use: NetworkUse | None, goal: Goal, twin: bool = True
) -> OnChip:
    """Everything about a network on a chip, from what it did there."""
    found = hardware(graph, activity, chip, goal, use)
    time = None if use is None else mapped_time(graph, images.array, chip)
    return OnChip(found, dense_twin(graph, activity, found) if twin else None, time)


def on_chip(network: str | Path, images: str | Path, chip: str | Path, limit: int, **options: Any) -> OnChip:
    """What `qkf-deploy hardware NETWORK IMAGES --chip CHIP --limit N` finds.

    Args:
        network: a ``.qkf`` file.
        images: as :func:`load_inputs` takes them.
        chip: a name, or the path of a TOML file.
        limit: images at most.
        options: of the engine.

    Raises:
        UsageError, InputError, ProfileError: as of the single steps.
    """
    where, graph = load_chip(chip), load(network)
    given = load_inputs(images, graph, limit=limit)
    activity = measure_activity(graph, given, **options)
    return put_together(graph, given, activity, where, followed(graph, given, where, **options), "energy")
