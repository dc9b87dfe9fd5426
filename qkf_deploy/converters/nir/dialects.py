"""How the tool that wrote a NIR file runs its neurons, and what can be told from the file itself.

NIR describes neurons by differential equations. It has no time step and no word for reset by subtraction, for several
spikes per step, or for what happens at the threshold itself; every tool fills that in its own way
(``docs/interchange.md`` has the table, with versions).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from qkf_deploy.converters.nir.flat import FlatGraph
from qkf_deploy.converters.nir.safety import RawNode
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.options import Fires, Gain, ImportOptions, NirTool, Reset

CLOSE = 1e-6
#: Time steps that tools write for, in seconds, in the order in which they are tried: the one that snnTorch has fixed
#: and SpikingJelly defaults to; time constants counted in steps (sinabs, Spyx); a millisecond.
_STEPS = (1e-4, 1.0, 1e-3)
_MOST_STEPS = 1e4  # a time constant of more steps than this is no sign of the step being right
_NEURONS = ("IF", "LIF", "CubaLIF")


@dataclass(frozen=True)
class Dialect:
    """What a neuron of a NIR file does beyond what the file says. The defaults are NIR's own definition.

    Attributes:
        tool: who writes such files.
        dt: time step in seconds that the file's time constants were written for; ``None``: decided from the file.
        fires: ``above`` the threshold or ``at`` it.
        reset: ``hard`` to v_reset; ``subtract`` the threshold at once; ``subtract-next``: in the next step, after the
            decay, so that threshold / decay is what the membrane loses.
        several: more than one spike per step, as many as the threshold fits into the membrane.
        gain: what the input is multiplied by: ``file`` r dt / tau (r dt for IF), ``one``, or ``leak`` 1 - decay (one
            for IF, which does not decay).
        exponential: the membrane decays by exp(-dt / tau) per step, not by an Euler step 1 - dt / tau.
        floor: an IF membrane does not go below minus its threshold.
        late: spikes leave a layer one step after the membrane passed the threshold.
        from_leak: a LIF membrane starts at v_leak, not at v_reset.
        channels_last: images are flattened row by row, all channels of a pixel together, not channel by channel.
        pads_in_all: a pool's padding is that of both sides together.
        notes: what else the tool may have done and the file does not say.
    """

    tool: str = "NIR"
    dt: float | None = None
    fires: Fires = "above"
    reset: Reset = "hard"
    several: bool = False
    gain: Gain = "file"
    exponential: bool = False
    floor: bool = False
    late: bool = False
    from_leak: bool = False
    channels_last: bool = False
    pads_in_all: bool = False
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for people."""
        fires = "at" if self.fires == "at" else "above"
        resets = {
            "hard": "reset to v_reset",
            "subtract": "reset by subtracting the threshold",
            "subtract-next": "the threshold subtracted in the next step",
        }
        spikes = "several spikes" if self.several else "one spike"
        text = f"{resets[self.reset]}, {spikes} per step, firing {fires} the threshold"
        return f"{text}, membranes not below minus the threshold" if self.floor else text


#: What the writing tools do with their defaults.
PRESETS: Mapping[NirTool, Dialect] = {
    "nir": Dialect(),
    "norse": Dialect("norse", 1e-6, gain="leak", from_leak=True, notes=(
        "dt = 1e-06 s is norse's default dt of 1e-3, which norse multiplies in twice when it writes",
        "norse writes neither v_reset nor the reset method; its defaults are assumed (to 0); --reset subtract for "
        "reset_subtract",
    )),
    "sinabs": Dialect("sinabs", 1.0, "at", "subtract", True, "leak", exponential=True, floor=True, notes=(
        "sinabs bounds IF membranes (min_v_mem) at minus the threshold when it reads a file, and not at all when a "
        "layer is made with its defaults; --no-floor reads without the bound",
        "LIF layers with norm_input (sinabs' default) are assumed; --gain one reads without",
        "sinabs writes neither reset nor spike function; its defaults are assumed (MembraneSubtract, MultiSpike); "
        "--reset hard for MembraneReset, --spikes one for SingleSpike",
    )),
    "snntorch": Dialect("snnTorch", 1e-4, reset="subtract-next", notes=(
        "snnTorch's defaults are assumed (reset_mechanism 'subtract', reset_delay True); --reset hard for 'zero', "
        "--reset subtract for reset_delay False (where a membrane stays above the threshold after a reset, snnTorch "
        "then fires later than a plain subtraction)",
    )),
    "spikingjelly": Dialect("SpikingJelly", 1e-4, "at"),
    "spyx": Dialect("Spyx", 1.0, reset="subtract-next", gain="one", late=True, channels_last=True, pads_in_all=True),
}  # fmt: skip


def dialect_of(source: FlatGraph, options: ImportOptions) -> tuple[Dialect, tuple[str, ...]]:
    """How the neurons of a file are read, and notices about what was decided.

    Raises:
        UsageError: options that contradict each other, a time step that is not positive.
        InputError: the time step is open and cannot be told from the file.
    """
    base = PRESETS[options.preset or "nir"]
    given = {name: getattr(options, name) for name in ("fires", "reset", "gain", "floor")}
    given["dt"] = None if options.dt == "auto" else options.dt
    given["several"] = None if options.spikes is None else options.spikes == "several"
    dialect = replace(base, **{name: value for name, value in given.items() if value is not None})
    _check(dialect)
    neurons = {name: node for name, node in source.nodes.items() if node.type in _NEURONS}
    if not neurons:
        return replace(dialect, dt=dialect.dt or _STEPS[0]), ()
    how = "given" if options.dt != "auto" else f"as {base.tool} writes"
    if dialect.dt is None:
        dt, how = _decided(source, neurons)
        dialect = replace(dialect, dt=dt)
    return dialect, tuple(_notices(source, neurons, dialect, options, how))


def _check(dialect: Dialect) -> None:
    if dialect.dt is not None and not (math.isfinite(dialect.dt) and dialect.dt > 0):
        raise UsageError(f"dt is {dialect.dt}, must be a positive number of seconds")
    if dialect.reset == "subtract-next" and (dialect.several or dialect.floor):
        raise UsageError(
            "no tool subtracts in the next step and fires several times or has a lower bound",
            hint="--reset subtract, or --spikes one --no-floor",
        )


def _notices(
    source: FlatGraph, neurons: Mapping[str, RawNode], dialect: Dialect, options: ImportOptions, how: str
) -> Iterator[str]:
    named = f"as {dialect.tool} runs them" if options.preset else "as NIR defines them"
    asked = "" if options.preset else (
        f"; the file does not say whether the tool that wrote it does otherwise{_resembles(neurons)}: --preset, "
        "--reset, --spikes, --fires"
    )  # fmt: skip
    yield f"neurons are read {named}: {dialect.summary()}, dt = {dialect.dt:.6g} s ({how}){asked}"
    yield from dialect.notes
    if dialect.reset == "hard" and any("v_reset" not in node.params for node in neurons.values()):
        yield f"v_reset is not in the file (nir {source.version or 'of unknown version'}); the reset is to 0"


def _resembles(neurons: Mapping[str, RawNode]) -> str:
    """Which tools write such parameters, where they are telling."""
    first = next(iter(neurons.values()))
    r = _numbers(first, "r")
    if first.type == "IF":
        return " (r = 1 is what sinabs, norse and Spyx write)" if _near(r, 1.0) else ""
    tau = _numbers(first, "tau" if first.type == "LIF" else "tau_mem")
    if not (tau.size and r.size and _broadcast(r, tau)):
        return ""
    if _near(r * _STEPS[0], tau):
        return " (r = tau / dt is what snnTorch writes, whose default is to subtract)"
    return " (r = 1 - 1 / tau is what Spyx writes)" if _near(r, 1.0 - 1.0 / tau) else ""


def _decided(source: FlatGraph, neurons: Mapping[str, RawNode]) -> tuple[float, str]:
    """The time step, from what the file says about it or else from its neurons' parameters, and why."""
    said = {float(m["dt"]) for m in (source.metadata, *(n.metadata for n in neurons.values())) if _is_step(m.get("dt"))}
    if len(said) == 1:
        return said.pop(), "from the file's metadata"
    for dt in _STEPS:
        if all(_fits(node, dt) for node in neurons.values()):
            return dt, "the first of 1e-4, 1 and 1e-3 s that fits every neuron"
    odd = {dt: next(n for n, node in neurons.items() if not _fits(node, dt)) for dt in _STEPS}
    raise InputError(
        "the file's time step is open: "
        + "; ".join(f"{dt:g} s does not fit {name!r} ({_said(neurons[name])})" for dt, name in odd.items()),
        hint="say --dt, in seconds, or --preset for the tool that wrote the file",
    )


def _fits(node: RawNode, dt: float) -> bool:
    """IF: r dt is 1. Leaky: from 1 to 10,000 steps per time constant, or r = tau / dt."""
    r = _numbers(node, "r")
    if node.type == "IF":
        return _near(r * dt, 1.0)
    tau = _numbers(node, "tau" if node.type == "LIF" else "tau_mem")
    if not tau.size or not (tau > dt).all():
        return False
    return bool(tau.min() <= _MOST_STEPS * dt) or (_broadcast(r, tau) and _near(r * dt, tau))


def _said(node: RawNode) -> str:
    names = ("r",) if node.type == "IF" else ("tau", "tau_mem", "r")
    said = {name: _numbers(node, name) for name in names if name in node.params}
    return ", ".join(f"{name} {v.min():.4g}" for name, v in said.items() if v.size) or "no parameters"


def _numbers(node: RawNode, name: str) -> np.ndarray:
    value = node.params.get(name)
    return np.asarray(value, np.float64) if isinstance(value, np.ndarray) else np.empty(0)


def _broadcast(a: np.ndarray, b: np.ndarray) -> bool:
    return a.size == 1 or b.size == 1 or a.shape == b.shape


def _near(a: np.ndarray, b: np.ndarray | float) -> bool:
    return a.size > 0 and bool(np.all(np.abs(a - b) <= CLOSE * np.abs(b)))


def _is_step(text: str | None) -> bool:
    try:
        return text is not None and 0 < float(text) < math.inf
    except ValueError:
        return False
