"""A network on a chip: measured activity, dataflows, energy and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ir.needs import need_integers
from qkf_deploy.keywords import checked, part, takes
from qkf_deploy.passes.carry import chained
from qkf_deploy.pipeline.costs import load_chip
from qkf_deploy.pipeline.hardware_options import ActivityOptions, Goal, InputOptions
from qkf_deploy.pipeline.inputs import Inputs, load_inputs
from qkf_deploy.pipeline.networks import load
from qkf_deploy.pipeline.running import as_batch, event_values, simulate
from qkf_deploy.simulators import engines
from qkf_deploy.simulators.inputs import encode

if TYPE_CHECKING:
    from qkf_deploy.hw_models.activity import Activity
    from qkf_deploy.hw_models.architecture.chip import Chip
    from qkf_deploy.hw_models.exploring import Variant
    from qkf_deploy.hw_models.hardware import Hardware, Verdict
    from qkf_deploy.hw_models.timing.latency import Latency
    from qkf_deploy.hw_models.timing.use import NetworkUse

Found = TypeVar("Found")


@takes(ActivityOptions)
def measure_activity(
    network: Graph | str | Path, images: str | Path | np.ndarray | Inputs, options: ActivityOptions
) -> Activity:
    """What a network does on images at every step and in every tile of its layers.

    Args:
        network: an integer graph, or a ``.qkf`` file of one.
        images: as :func:`load_inputs` or :func:`simulate` takes them; a run file of this network stands for the images
            that it is of.

    Raises:
        UsageError: a float graph, or a run that does not say where its images are.
        InputError: a run of another network or of other images.
        InputError, MissingComponent, ProofError: as of :func:`load`, :func:`load_images` and :func:`simulate`.
    """
    from qkf_deploy.hw_models import activity

    graph = _integer(network)
    found = None
    for values in _recorded(graph, images, "all", options):
        new = activity.measure_activity(graph, values)
        found = new if found is None else found + new
    return _measured(found)


@takes(ActivityOptions)
def measure_network_use(
    network: Graph | str | Path,
    images: str | Path | np.ndarray | Inputs,
    chip: Chip | str | Path,
    options: ActivityOptions,
) -> NetworkUse:
    """Messages between the cores of a chip whose layers have cores of their own, and the time of every image.

    Args:
        network: an integer graph, or a ``.qkf`` file of one.
        images: as of :func:`measure_activity`.
        chip: a name, the path of a TOML file, or a loaded chip.

    Raises:
        UsageError: a float graph, a layer without a place, or a chip of whose network nothing is known.
        InputError, MissingComponent, ProofError: as of :func:`load`, :func:`load_images` and :func:`simulate`.
        UsageError, ProfileError: an unknown chip, a file that breaks the schema.
    """
    from qkf_deploy.hw_models.mapping import map_network
    from qkf_deploy.hw_models.timing.use import network_use

    graph = _integer(network)
    mapping = map_network(graph, load_chip(chip) if isinstance(chip, str | Path) else chip)
    found = None
    for values in _recorded(graph, images, "events", options):
        for image in range(values[graph.input.name].shape[1]):
            new = network_use(graph, mapping, values, image)
            found = new if found is None else found + new
    return _measured(found)


def _integer(network: Graph | str | Path) -> Graph:
    graph = network if isinstance(network, Graph) else load(network)
    need_integers(graph, "only integer networks are put on a chip")
    return graph


def _recorded(
    graph: Graph, images: str | Path | np.ndarray | Inputs, what: str, options: ActivityOptions
) -> Iterator[Mapping[str, np.ndarray]]:
    """Values of one image after another (of all at once where membranes go from image to image)."""
    if isinstance(images, np.ndarray):
        images = Inputs(as_batch(graph, images)[: options.limit])
    elif not isinstance(images, Inputs):
        images = load_inputs(images, graph, **part(options, InputOptions))
    pixels = images.array
    chosen: dict[str, Any] = {"engine": options.engine, **engines.given(options)}
    size = images.together or len(pixels) if chained(graph) else 1
    for start in range(0, len(pixels), size):
        batch = pixels[start : start + size]
        run = simulate(graph, batch, record=what, **chosen)
        images.check(start, run.ledger)
        yield {**run.values, graph.input.name: encode(graph, batch)[0]}
        if options.progress is not None:
            options.progress(min(start + size, len(pixels)), len(pixels))


def _measured(found: Found | None) -> Found:
    if found is None:
        raise UsageError("no images to count on", hint="at least one")
    return found


@checked
def hardware(
    graph: Graph, activity: Activity, chip: Chip | str | Path, goal: Goal = "energy", use: NetworkUse | None = None
) -> Hardware:
    """A network on a chip, every layer executed the best way: energy by component and time.

    Args:
        graph: integer graph.
        activity: of :func:`measure_activity`, of this graph.
        chip: a name, the path of a TOML file, or a loaded chip.
        goal: what is smallest: ``energy``, ``delay`` or ``product``.
        use: of :func:`measure_network_use`, of the same images, for the time and the messages of a chip whose layers
            have cores of their own; without it layers work one after another there.

    Raises:
        UsageError, ProfileError: a layer that fits no core, an unknown chip, a file that breaks the schema.
    """
    from qkf_deploy.hw_models import hardware as model

    return model.hardware(
        graph, activity, load_chip(chip) if isinstance(chip, str | Path) else chip, goal=goal, use=use
    )


@checked
def mapped_time(graph: Graph, images: np.ndarray, chip: Chip | str | Path, pipelined: bool = True) -> Latency:
    """Time of one image on the mesh of a chip whose layers have cores of their own: queues, links and barriers.

    Args:
        graph: integer graph.
        images: as :func:`simulate` takes them; the first is followed event by event.
        chip: a name, the path of a TOML file, or a loaded chip.
        pipelined: units work at successive steps at once; else each does all steps before the next begins.

    Raises:
        UsageError, ProfileError: a unit without a place, a chip without a network, an unknown chip or a broken file.
        UnsupportedError: attention over several time steps.
        InputError: images that do not fit.
    """
    from qkf_deploy.hw_models.mapping import map_network
    from qkf_deploy.hw_models.timing.network import network_latency

    where = load_chip(chip) if isinstance(chip, str | Path) else chip
    return network_latency(graph, map_network(graph, where), event_values(graph, images), pipelined=pipelined)


@checked
def dense_twin(graph: Graph, activity: Activity, found: Hardware) -> Verdict:
    """The dense quantized twin of a network on the same chip, and the firing at which both need the same.

    Args:
        graph: integer graph.
        activity: of it.
        found: of :func:`hardware`.

    Raises:
        UsageError: a layer of the twin that fits no core.
    """
    from qkf_deploy.hw_models import hardware as model

    return model.compared(graph, activity, found)


@checked
def explore_hardware(
    graph: Graph,
    activity: Activity,
    chip: Chip | str | Path,
    axes: Sequence[str],
    goal: Goal = "energy",
    follow: Callable[[Chip], NetworkUse | None] | None = None,
) -> tuple[Variant, ...]:
    """A network on variants of a chip: every combination of what is varied.

    Args:
        graph: integer graph.
        activity: of it.
        chip: a name, the path of a TOML file, or a loaded chip.
        axes: of ``dataflow`` (each alone), ``cores`` and ``buffers`` (a quarter to four times; prices stay).
        goal: as of :func:`hardware`.
        follow: gives what :func:`measure_network_use` finds on a variant of a chip whose layers have cores of their
            own; without it their messages are in no row.

    Raises:
        UsageError, ProfileError: an unknown axis or chip, a file that breaks the schema.
    """
    from qkf_deploy.hw_models import exploring

    where = load_chip(chip) if isinstance(chip, str | Path) else chip
    return exploring.explore(graph, activity, where, axes, goal=goal, follow=follow)
