"""SpikingJelly's neurons: which class a module really is, and with which values it computes.

A class that inherits every method of a known one computes what that one computes, whatever it is called; any override,
of a method or by a hook or an attribute of the instance, may compute something else and is refused by name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch

from qkf_deploy.converters.torch.trace.places import raised
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Neuron

_PACKAGE = "spikingjelly"
_Charge = Literal["if", "lif", "plif"]
#: How each class charges: activation_based of SpikingJelly 0.0.0.0.14 to 2.0, and the names clock_driven had before.
_KNOWN: Mapping[str, _Charge] = {
    "IFNode": "if",
    "HalfThresholdIFNode": "if",
    "SimpleIFNode": "if",
    "MultiStepIFNode": "if",
    "LIFNode": "lif",
    "SimpleLIFNode": "lif",
    "ILIFNode": "lif",
    "MultiStepLIFNode": "lif",
    "ParametricLIFNode": "plif",
    "MultiStepParametricLIFNode": "plif",
}
#: The one that counts its spikes, round(H / V_th).
_COUNTING = "ILIFNode"
#: Those that have a matrix over time in place of a membrane.
_PARALLEL = frozenset({"PSN", "MaskedPSN", "SlidingPSN"})
#: Names a subclass may define: they say how an object is made, shown and stored, not what it computes. What
#: ``__init__`` set is read from the object.
_HARMLESS = frozenset({
    "__init__", "__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__",
    "__annotate_func__", "__annotations_cache__", "__firstlineno__", "__static_attributes__", "__parameters__",
    "__orig_bases__", "__abstractmethods__", "_abc_impl", "__slots__", "__repr__", "__str__", "__hash__", "extra_repr",
    "_get_name", "_version", "supported_backends", "supported_step_mode", "_save_to_state_dict",
    "_load_from_state_dict",
})  # fmt: skip
#: What the dynamics read from the object; a class attribute of such a name could change it from step to step.
_READ = ("v", "v_threshold", "v_reset", "tau", "w", "decay_input", "surrogate_function", "detach_reset")
#: Where a spike function is tried; SpikingJelly's are a step at 0: ``(x >= 0)``.
_PROBES = (-1e30, -2.0, -1.0, -0.5, -1e-12, -5e-324, -0.0, 0.0, 5e-324, 1e-12, 0.5, 1.0, 1.5, 2.0, 7.0, 1e30)


@dataclass(frozen=True)
class Found:
    """A neuron as :class:`qkf_deploy.converters.torch.trace.neurons.NeuronModule` takes it."""

    op: Neuron
    multi_step: bool
    params: Mapping[str, np.ndarray]
    notices: tuple[str, ...]


def spikingjelly_neuron(module: Any) -> Found | None:
    """The neuron a module is, ``None`` if it is none of SpikingJelly's.

    Raises:
        UnsupportedError: dynamics without an exact form here: another class, an override, a hook, a value that is no
            number.
    """
    base = next((c for c in type(module).__mro__ if c.__name__ in _KNOWN and _is_theirs(c)), None)
    if base is None:
        _refuse_parallel(type(module))
        if any(_is_theirs(c) and not _keeps(c) for c in type(module).__mro__) and "v_threshold" in dir(module):
            _refuse_other(type(module))
        return None
    for what in (*_overrides(type(module), base), *_patches(module)):
        raise UnsupportedError(f"{_named(type(module), base)} {what}, so it may compute something else")
    most = _most_spikes(module) if base.__name__ == _COUNTING else None
    notices = _check_spike_function(module, most)
    if getattr(module, "_neuron_precision", None) is not None:
        raise UnsupportedError(f"{_named(type(module), base)} computes with the precision {module._neuron_precision}")
    return _read(module, base, most, notices)


def _is_theirs(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == _PACKAGE


def _keeps(cls: type) -> bool:
    """True for the classes that only keep a state: what is computed with it is the code of those derived from them."""
    return cls.__module__.endswith(".base")


def _named(cls: type, base: type) -> str:
    return cls.__name__ if cls is base else f"{cls.__name__}, derived from {base.__name__},"


def _refuse_parallel(cls: type) -> None:
    """Raises UnsupportedError for a neuron that is a layer over time (arXiv 2304.12760)."""
    name = next((c.__name__ for c in cls.__mro__ if c.__name__ in _PARALLEL and _is_theirs(c)), None)
    if name is not None:
        raise UnsupportedError(
            f"neuron {name} multiplies the drives of all time steps by a learned matrix and resets nothing: it has no "
            "membrane, and no layer of the graph has weights from step to step"
        )


def _refuse_other(cls: type) -> None:
    own = [c for c in cls.__mro__ if not _is_theirs(c) and not c.__module__.startswith(("torch", "builtins"))]
    defined = [f"{name}{_place(value)}" for c in own for name, value in vars(c).items() if name not in _HARMLESS]
    if not defined:
        raise UnsupportedError(f"neuron {cls.__name__} has dynamics without an exact form here")
    raise UnsupportedError(f"neuron {cls.__name__} has dynamics of its own: {', '.join(defined)}")


# -- overrides -----------------------------------------------------------------------------------------------------


def _overrides(cls: type, base: type) -> Iterator[str]:
    """What a class has that its base has otherwise."""
    names = {name for c in base.__mro__[:-1] for name in vars(c)} - _HARMLESS
    for name in sorted(names):
        defining = next(c for c in cls.__mro__ if name in vars(c))
        if vars(defining)[name] is not inspect.getattr_static(base, name):
            yield f"overrides {name}{_place(vars(defining)[name])}"
    for name in _READ:
        for c in cls.__mro__[: cls.__mro__.index(base)]:
            if name in vars(c):
                yield f"defines {name} in its class{_place(vars(c)[name])}"


def _place(value: Any) -> str:
    """`` (file:line)`` of a method or property, empty where it is not known."""
    function = inspect.unwrap(getattr(value, "fget", None) or getattr(value, "__func__", None) or value)
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    file = re.split(r"[/\\]", code.co_filename)[-1]
    return f" ({file}:{code.co_firstlineno})"


def _patches(module: Any) -> Iterator[str]:
    """Methods replaced on the object, and hooks."""
    for name, value in vars(module).items():
        known = inspect.getattr_static(type(module), name, None)
        if callable(known) or isinstance(known, staticmethod | classmethod):
            yield f"has its {name} replaced on the object{_place(value)}"
    for kind, hooks in (("pre-hook", module._forward_pre_hooks), ("hook", module._forward_hooks)):
        for hook in hooks.values():
            yield f"has a forward {kind}{_place(hook)} (remove it while tracing, if it only watches)"


def _most_spikes(module: Any) -> int:
    """Spikes per step of a neuron that rounds (arXiv 2407.20708, D)."""
    most = getattr(module.surrogate_function, "max_spike_count", None)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise UnsupportedError(f"its surrogate function allows {most!r} spikes per step, not a whole number")
    return most


def _check_spike_function(module: Any, most: int | None) -> tuple[str, ...]:
    """Notices on the function that makes spikes of ``v - v_threshold``, or up to ``most`` of v / v_threshold.

    Raises:
        UnsupportedError: it is no step at 0; for counts, it does not round within 0 and ``most``.
    """
    function = module.surrogate_function
    name = getattr(type(function), "__name__", "surrogate function")
    if getattr(function, "spiking", True) is False:
        raise UnsupportedError(f"surrogate_function.spiking is False: {name} gives real numbers, not spikes")
    x = torch.tensor(_PROBES, dtype=torch.float64)
    try:
        with torch.no_grad():
            wanted = x >= 0 if most is None else x.clamp(0, most).round()
            steps = bool((function(x.clone()) == wanted).all())
    except (Exception, SystemExit) as error:
        raise UnsupportedError(f"surrogate function {name} cannot be tried: {raised(error)}") from error
    if not steps:
        what = "is not 1 from 0 on and 0 below" if most is None else f"does not round within 0 and {most}"
        raise UnsupportedError(f"surrogate function {name} {what}")
    if _is_theirs(type(function)):
        return ()
    meaning = "a step at 0" if most is None else f"rounding within 0 and {most}"
    return (f"its surrogate function {name} is taken for {meaning}, as it is at {len(_PROBES)} points tried",)


# -- values --------------------------------------------------------------------------------------------------------


def _read(module: Any, base: type, most: int | None, notices: tuple[str, ...]) -> Found:
    charge = _KNOWN[base.__name__]
    hard = module.v_reset is not None and base.__name__ != "HalfThresholdIFNode"
    values = {"v_threshold": _value(module, "v_threshold")}
    values |= {"v_reset": _value(module, "v_reset")} if hard else {}
    if charge == "lif":
        values["tau"] = _value(module, "tau")
    elif charge == "plif":  # Fang et al. 2021: 1/τ = sigmoid(w)
        values["tau"] = 1.0 + np.exp(-_value(module, "w"))
    if base.__name__ == "SimpleLIFNode" and not hard:
        raise UnsupportedError("SimpleLIFNode decays towards its reset voltage and has none")
    largest = {name: float(value.max()) for name, value in values.items()}
    decays = charge != "if" and bool(module.decay_input)
    op = Neuron(
        largest.get("tau"), largest["v_threshold"], largest.get("v_reset"), decays, max_spikes=most or 1,
        rounding="half_even" if most else "floor",
    )  # fmt: skip
    params = {name: value for name, value in values.items() if value.size > 1}
    initial = _initial(module)
    if initial.ndim or (initial - values.get("v_reset", np.zeros(()))).any():
        params["initial"] = initial
    # Of old code only the MultiStep classes are multi-step; neither they nor the others say so.
    multi_step = getattr(module, "step_mode", "m" if base.__name__.startswith("MultiStep") else "s") == "m"
    return Found(op, multi_step, MappingProxyType(params), (*notices, *_left(module, initial)))


def _value(module: Any, name: str) -> np.ndarray:
    """An attribute as float64, without axes if it is one number."""
    value = _numbers(getattr(module, name, None), name)
    return value.reshape(()) if value.size == 1 else value


def _numbers(value: Any, name: str) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        array = np.asarray(np.nan)
    if not array.size or not np.isfinite(array).all():
        raise UnsupportedError(f"{name} is {type(value).__name__} {str(value)[:40]}, not finite numbers")
    return array


def _initial(module: Any) -> np.ndarray:
    """V before the first step of an image: what ``functional.reset_net`` sets."""
    reset_values = getattr(module, "_memories_rv", {"v": 0.0})
    if "v" not in reset_values:
        raise UnsupportedError("its membrane v is not a memory with a reset value")
    value = reset_values["v"]
    if isinstance(value, torch.Tensor) and not value.ndim:
        raise UnsupportedError(
            "its v is reset to a tensor without axes, which SpikingJelly replaces by the reset voltage"
        )
    return _numbers(value, "the reset value of v")


def _left(module: Any, initial: np.ndarray) -> tuple[str, ...]:
    """A notice where the membrane was set and not its reset value."""
    now = module.v
    if isinstance(now, torch.Tensor) or initial.ndim or float(now) == float(initial):
        return ()
    return (f"its membrane is {now} now; every image starts from its reset value {float(initial):g} instead",)
