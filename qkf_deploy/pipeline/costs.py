"""What counts mean: energy, memory, cores, and one page about all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.keywords import checked
from qkf_deploy.ledger import Ledger
from qkf_deploy.options import FirstLayer
from qkf_deploy.pipeline.networks import load
from qkf_deploy.runs.content import RunFile

if TYPE_CHECKING:
    from qkf_deploy.hw_models.architecture.chip import Chip
    from qkf_deploy.hw_models.mapping import CoreMapping
    from qkf_deploy.hw_models.movement import LayerMovement
    from qkf_deploy.hw_models.pricing import EnergyReport
    from qkf_deploy.hw_models.profiles import Profile
    from qkf_deploy.hw_models.rate_pricing import RateReport


@checked
def load_profile(name_or_path: str | Path, first_layer: FirstLayer | None = None) -> Profile:
    """A price profile: one of ours by name, or a TOML file.

    Args:
        name_or_path: ``qkf-deploy profiles`` lists the names.
        first_layer: a first layer that reads a static image is counted ``once`` or at ``every-step``; ``None``: as the
            profile has it.

    Raises:
        UsageError, ProfileError: an unknown profile, one without a price for real input, or a file that breaks the
            schema.
    """
    from qkf_deploy.hw_models.profiles import load_profile as _load

    if first_layer not in (None, *get_args(FirstLayer)):
        raise UsageError(f"first_layer: {first_layer!r}", hint=f"one of: {', '.join(get_args(FirstLayer))}")
    profile = _load(name_or_path)
    return profile if first_layer is None else profile.with_first_layer(first_layer == "every-step")


@checked
def load_chip(name_or_path: str | Path) -> Chip:
    """The limits of a chip: one of ours by name, or a TOML file.

    Args:
        name_or_path: ``loihi2``, ``generic-digital``, or a path.

    Raises:
        UsageError, ProfileError: an unknown chip, or a file that breaks the schema.
    """
    from qkf_deploy.hw_models.architecture.reading import load_chip as _load

    return _load(name_or_path)


@checked
def price(ledger: Ledger, profile: Profile | str | Path = "paper-eq23") -> EnergyReport:
    """Energy of a run under a price profile.

    Args:
        ledger: counts.
        profile: a name, the path of a TOML file, or a loaded profile.

    Raises:
        UsageError, ProfileError: an unknown profile, or a file that breaks the schema.
    """
    from qkf_deploy.hw_models.pricing import price as _price

    return _price(ledger, profile)


@checked
def price_rates(
    network: Graph | str | Path,
    rates: str | Path,
    profile: Profile | str | Path = "spikformer-hand",
    time_steps: int | None = None,
) -> RateReport:
    """Energy of one image from firing rates alone: no weights, no images.

    Args:
        network: a model by name (`qkf-deploy models`), the path of a ``.qkf`` file, or a graph.
        rates: CSV of layers and mean values, or the name of a model whose published rates come with the package; see
            :func:`qkf_deploy.hw_models.rate_table.load_rates`.
        profile: a name, the path of a TOML file, or a loaded profile.
        time_steps: T, if it is not the network's.

    Raises:
        UsageError: an unknown model or profile, or a profile that prices what mean values do not determine.
        InputError: rates of layers that do not exist, that are missing, or that no spikes can have.
        ProfileError: a profile that breaks the schema.
    """
    from qkf_deploy.hw_models import network_shape, rate_pricing
    from qkf_deploy.hw_models.profiles import Profile
    from qkf_deploy.hw_models.rate_table import load_rates

    if isinstance(network, Graph):
        shape = network_shape.network_shape(network)
    elif str(network).endswith(".qkf") or Path(network).is_file():
        shape = network_shape.network_shape(load(network), str(network))
    else:
        shape = network_shape.load_shape(str(network))
    if time_steps is not None:
        shape = shape.with_time_steps(time_steps)
    prices = profile if isinstance(profile, Profile) else load_profile(profile)
    return rate_pricing.price_rates(shape, load_rates(rates), prices)


@checked
def movement(ledger: Ledger) -> tuple[LayerMovement, ...]:
    """Bytes held and moved per layer, mean per image; see :func:`qkf_deploy.hw_models.movement.movement`.

    Args:
        ledger: counts.
    """
    from qkf_deploy.hw_models.movement import movement as _movement

    return _movement(ledger)


@checked
def map_network(graph: Graph, chip: Chip | str | Path = "loihi2", ledger: Ledger | None = None) -> CoreMapping:
    """Partition an integer network onto the cores of a chip.

    Args:
        graph: integer graph.
        chip: a name, the path of a TOML file, or a loaded chip.
        ledger: counts of this network, for the traffic between cores.

    Raises:
        UsageError, ProfileError: a float graph, an unknown chip, a file that breaks the schema, foreign counts.
    """
    from qkf_deploy.hw_models.mapping import map_network as _map

    return _map(graph, load_chip(chip) if isinstance(chip, str | Path) else chip, ledger)


@checked
def write_report(
    run: RunFile,
    path: str | Path,
    profiles: Sequence[Profile | str | Path] = (),
    beside: Mapping[str, RunFile] | None = None,
    hardware: Sequence[str | Path] = (),
) -> None:
    """Write one self-contained HTML page about a run, atomically.

    Args:
        run: of :func:`measure` or :func:`load_run`.
        path: of the page.
        profiles: price profiles, the first one is the layer table's; by default
            :data:`qkf_deploy.report.page.DEFAULT_PROFILES`.
        beside: other runs by name, compared with this one.
        hardware: files that `qkf-deploy hardware --format json` wrote, one row each.

    Raises:
        UsageError, ProfileError: an unknown profile, or a file that breaks the schema.
        InputError: the place cannot be written.
        MissingComponent: jinja2 is not installed.
    """
    from qkf_deploy.report import page
    from qkf_deploy.report.hardware_view import read_view

    page.write_page(path, run, profiles or page.DEFAULT_PROFILES, beside or {}, [read_view(p) for p in hardware])
