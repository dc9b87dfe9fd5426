"""Parameters of NIR nodes, checked as they are read."""

from __future__ import annotations

import numpy as np

from qkf_deploy.converters.nir.safety import RawNode
from qkf_deploy.errors import InputError


def array(node: RawNode, name: str, where: str) -> np.ndarray:
    """A parameter as stored. Raises InputError if it is missing or not a finite number."""
    value = node.params.get(name)
    if not isinstance(value, np.ndarray) or value.size == 0:
        raise InputError(f"the parameter {name!r} is missing or not a number", where=where)
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise InputError(f"the parameter {name!r} is not finite", where=where)
    return value


def ints(node: RawNode, name: str, rank: int, where: str) -> tuple[int, ...]:
    """One whole number per axis; a single one counts for all. Raises InputError for anything else."""
    values = array(node, name, where).reshape(-1)
    whole = np.rint(values)
    if values.size not in (1, rank) or (whole != values).any() or (np.abs(whole) > 2**20).any():
        raise InputError(f"{name} is {values[:4].tolist()}, not {rank} whole numbers", where=where)
    return tuple(int(v) for v in np.broadcast_to(whole, (rank,)))


def spread(value: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """One value per element of a NIR value, float64. Axes of size 1 in front (a batch of one) do not count.

    Raises:
        InputError: the parameter fits neither the shape nor a part of it.
    """
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = value[0]
    try:
        return np.broadcast_to(value.astype(np.float64), shape)
    except ValueError:
        raise InputError(f"parameters of shape {value.shape} for values of shape {shape}", where=where) from None


def per_channel(full: np.ndarray, axis: int = 0) -> np.ndarray | None:
    """Values along one axis, ``None`` where they differ within it."""
    rows = np.moveaxis(full, axis, 0).reshape(full.shape[axis], -1)
    return rows[:, 0] if (rows == rows[:, :1]).all() else None


def reduced(full: np.ndarray) -> np.ndarray | float:
    """One number where all are equal, one per channel where they agree within channels, else all."""
    if (full == full.flat[0]).all():
        return float(full.flat[0])
    channels = per_channel(full)
    return np.array(full) if channels is None else channels.reshape(-1, *[1] * (full.ndim - 1))
