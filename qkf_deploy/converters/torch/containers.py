"""Where in a checkpoint file the weights lie, under which names, and which of several sets is taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qkf_deploy.errors import CheckpointError

if TYPE_CHECKING:
    import torch

RESAVE = "in the project that made it, save the weights alone: torch.save(model.state_dict(), ...)"

#: Keys under which training scripts store the weights as trained, and their running average.
_RAW_KEYS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "module")
_EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
#: What wrappers put in front of every name: DataParallel, torch.compile, Lightning, averaging.
_EMA_PREFIXES = ("ema.", "ema_model.", "model_ema.")
_PREFIXES = ("module.", "model.", "net.", *_EMA_PREFIXES)
_COMPILED = "_orig_mod."  # torch.compile puts it in front of what it compiled, a model or a part of it
_AVERAGED = "n_averaged"  # torch.optim.swa_utils.AveragedModel counts in it
_COUNTERS = ("total_ops", "total_params")  # thop leaves them in every module
_DEEPEST = 3


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of a file.

    Attributes:
        tensors: by name, without what wrappers put in front and beside them.
        container: how they were stored, for people.
        notices: sentences the user should read.
    """

    tensors: dict[str, torch.Tensor]
    container: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Set:
    """A mapping that should be a state dict: where it lies and whether it is a running average."""

    place: str
    averaged: bool
    content: Mapping[Any, Any]


def find_weights(
    content: object, kind: str, where: str, choice: str | None = None, wanted: Collection[str] | None = None
) -> Weights:
    """The weights in what a file holds.

    Args:
        content: what was read.
        kind: of the file, for people.
        where: its path, for errors.
        choice: ``raw`` or ``ema``; ``None`` takes the weights as trained where there are any.
        wanted: names the model has, where it is known: prefixes go only as far as names do not fit.

    Raises:
        CheckpointError: no state dict in it, or none of the chosen kind.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"holds a {type(content).__name__}, not a state dict", where=where, hint=RESAVE)
    sets = [part for found in _sets(content) for part in _parted(found, wanted)]
    taken = _chosen(sets, choice, where)
    tensors, removed = without_prefixes(_as_state_dict(taken.content, where), wanted)
    tensors, dropped = _without_counters(tensors, wanted)
    others = {s.averaged for s in sets} - {taken.averaged}
    notices = (_both(taken, sets),) if others and choice is None else ()
    said = [kind, *([f"under {taken.place!r}"] if taken.place else [])]
    said += [f"{' and '.join(removed)} removed"] if removed else []
    said += [f"{' and '.join(dropped)} left out"] if dropped else []
    return Weights(tensors, ", ".join(said), notices)


def without_prefixes(
    tensors: Mapping[str, torch.Tensor], wanted: Collection[str] | None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Tensors under the names they had before wrappers put something in front of all of them, and what that was."""
    removed: list[str] = []
    names = {name: name for name in tensors}
    if any(_COMPILED in name for name in names) and not any(_COMPILED in name for name in wanted or ()):
        names = {name: name.replace(_COMPILED, "") for name in names}
        removed.append(_COMPILED)
    while not any(name in (wanted or ()) for name in names.values()):
        prefix = next((p for p in _PREFIXES if all(n.startswith(p) or n == _AVERAGED for n in names.values())), None)
        if prefix is None:
            break
        names = {name: now.removeprefix(prefix) for name, now in names.items()}
        removed.append(prefix)
    if len(set(names.values())) < len(names):  # two tensors would get one name
        return dict(tensors), []
    return {now: tensors[name] for name, now in names.items()}, removed


def _sets(content: Mapping[Any, Any], place: str = "", averaged: bool = False, depth: int = 0) -> list[_Set]:
    """What may be state dicts, weights as trained first: under the usual keys, else the mapping itself."""
    found: list[_Set] = []
    for keys, ema in ((_RAW_KEYS, averaged), (_EMA_KEYS, True)):
        for key in keys if depth < _DEEPEST else ():
            inner = content.get(key)
            if isinstance(inner, Mapping):
                found += _sets(inner, f"{place}.{key}" if place else key, ema, depth + 1)
    return found or [_Set(place, averaged or _AVERAGED in content, content)]


def _parted(found: _Set, wanted: Collection[str] | None) -> list[_Set]:
    """A state dict that holds a running average beside the weights, under names of its own, as two."""
    average = {k: v for k, v in found.content.items() if str(k).startswith(_EMA_PREFIXES) and k not in (wanted or ())}
    if not average:
        return [found]
    raw = {k: v for k, v in found.content.items() if k not in average}
    parts = [_Set(found.place, found.averaged, raw)] if raw else []
    return [*parts, _Set(found.place, True, average)]


def _chosen(sets: list[_Set], choice: str | None, where: str) -> _Set:
    for averaged in (False, True) if choice is None else (choice == "ema",):
        for found in sets:
            if found.averaged == averaged:
                return found
    kind = "running average of weights" if choice == "ema" else "weights but a running average"
    raise CheckpointError(
        f"holds no {kind}", where=where, hint=f"leave out --weights {choice}, or name another checkpoint"
    )


def _both(taken: _Set, sets: list[_Set]) -> str:
    other = next(s for s in sets if s.averaged != taken.averaged)
    average = f" (under {other.place!r})" if other.place else ""
    return f"the checkpoint also holds a running average of its weights{average}; --weights ema takes that"


def _as_state_dict(content: Mapping[Any, Any], where: str) -> dict[str, torch.Tensor]:
    import torch

    if not content:
        raise CheckpointError("holds an empty state dict", where=where, hint=RESAVE)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"is not a state dict: {str(name)[:60]!r} is a {type(value).__name__}; looked for tensors at the top "
                f"level and under {', '.join(map(repr, (*_RAW_KEYS, *_EMA_KEYS)))}",
                where=where,
                hint=RESAVE,
            )
    return dict(content)


def _without_counters(
    tensors: Mapping[str, torch.Tensor], wanted: Collection[str] | None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Without numbers that profilers and averaging keep beside the weights, and their names."""

    def is_counter(name: str) -> bool:
        last = name.rpartition(".")[2]
        return name not in (wanted or ()) and (last in _COUNTERS or name == _AVERAGED)

    dropped = {name.rpartition(".")[2] for name in tensors if is_counter(name)}
    return {name: tensor for name, tensor in tensors.items() if not is_counter(name)}, sorted(dropped)
