"""Integers for one synapse, chosen by what its neuron does with them: scales, biases, and which way weights round.

The error of a channel is counted on spikes (:class:`.local.Judge`), not on weights: a drive far from its threshold may
be wrong. What the synapse reads are the spikes of the integer network so far, so that later layers make up for earlier
ones (as AdaRound and AdaQuant do with activations, arXiv 2004.10568 and 2006.10518).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.calibration.local import Judge, product
from qkf_deploy.ops import Conv
from qkf_deploy.ops.synapse import input_channels
from qkf_deploy.passes.learned import Learned
from qkf_deploy.simulators.torch.synapses import laid_out

#: Parts of the largest weight that are tried as the end of the range.
_SHARES = np.linspace(1.0, 0.25, 16)
#: Weights of a channel that are tried rounded the other way, those nearest to the middle first.
_MOST_FLIPS = 64
#: The search ends after so many in a row that helped no channel in a hundred.
_IDLE = 4


@dataclass(frozen=True, eq=False)
class Local:
    """A synapse that is to be made of integers.

    Attributes:
        judge: of what its neuron does.
        x: what it reads in the integer network, ``(T or 1, B, *shape)``.
        weight: real, in units of what it reads, ``(O, ...)``.
        bias: real, ``(O,)``.
        limit: largest integer.
        offset: of a byte, per channel that is read; ``None`` for anything but pixels.
    """

    judge: Judge
    x: Tensor
    weight: np.ndarray
    bias: np.ndarray
    limit: int
    offset: np.ndarray | None

    @property
    def wide(self) -> tuple[int, ...]:
        """Shape of one number per channel beside the weights."""
        return (-1, *[1] * (self.weight.ndim - 1))

    def nearest(self, scale: np.ndarray) -> Learned:
        """Every weight to the nearest integer."""
        integers = np.clip(np.rint(self.weight / scale.reshape(self.wide)), -self.limit, self.limit)
        return Learned(integers, self.bias / scale, scale)

    def drive(self, found: Learned) -> Tensor:
        """Whole numbers."""
        return product(self.judge.place.op, self.x, found.weight) + self.constant(found)

    def constant(self, found: Learned) -> Tensor:
        """What is added to the weighted sums."""
        op = self.judge.place.op
        rank = len(op.stride) if isinstance(op, Conv) else 0
        bias = torch.from_numpy(found.bias).reshape(-1, *[1] * rank)
        if self.offset is not None:
            axis = 2 if rank else self.x.ndim - 1
            image = torch.from_numpy(self.offset).reshape([-1 if i == axis else 1 for i in range(self.x.ndim)])
            bias = bias + product(op, image.expand(1, 1, *self.x.shape[2:]), found.weight)
        return bias.round().to(self.x.dtype)


@dataclass(frozen=True, eq=False)
class State:
    """Where the search of a synapse stands: integers, their drive, and the error of each channel."""

    found: Learned
    drive: Tensor
    error: np.ndarray


def start(local: Local) -> State:
    """The largest weight of every channel is the end of the range."""
    largest = np.abs(local.weight).reshape(len(local.weight), -1).max(axis=1)
    return _state(local, local.nearest(np.where(largest > 0, largest, local.limit) / local.limit))


def _state(local: Local, found: Learned) -> State:
    drive = local.drive(found)
    return State(found, drive, local.judge.errors(drive, found.scale))


def search_scales(local: Local, state: State) -> State:
    """Of each channel the scale with which its neuron does least wrong."""
    largest = state.found.scale.copy()
    scale, least = largest, state.error
    for share in _SHARES:
        tried = local.nearest(largest * share)
        error = local.judge.errors(local.drive(tried), tried.scale)
        scale, least = np.where(error < least, tried.scale, scale), np.minimum(error, least)
    return _state(local, local.nearest(scale))


def correct_biases(local: Local, state: State) -> State:
    """Whole units added to the bias of each channel, as long as its neuron does less wrong."""
    made = local.judge.place.neuron_of(state.found.scale)
    most = max(1, int(made.params["theta"].max()) >> (made.op.fraction_bits + 3))
    bias, drive, error = state.found.bias.copy(), state.drive, state.error
    step = 1 << (most.bit_length() - 1)
    while step:
        for sign in (1, -1, 1):
            moved = _per_channel(np.full(len(bias), float(sign * step)), local, drive)
            found = local.judge.errors(drive + moved, state.found.scale)
            better = found < error
            bias, error = np.where(better, bias + sign * step, bias), np.where(better, found, error)
            drive = drive + moved * _per_channel(better.astype(float), local, drive)
        step //= 2
    return State(replace(state.found, bias=bias), drive, error)


def round_greedily(local: Local, state: State) -> State:
    """One weight of every channel after the other rounded the other way, kept where its neuron does less wrong."""
    if local.offset is not None:  # every weight moves the bias of the borders too; the first synapse has bits enough
        return state
    scale = state.found.scale
    rest = (local.weight / scale.reshape(local.wide) - state.found.weight).reshape(len(scale), -1)
    integers = state.found.weight.reshape(len(scale), -1).copy()
    order = np.argsort(-np.abs(rest), axis=1, kind="stable")
    rows = np.arange(len(scale))
    drive, error, idle = state.drive, state.error, 0
    for taken in order.T[: min(order.shape[1], _MOST_FLIPS)]:
        way = np.sign(rest[rows, taken])
        way = np.where(np.abs(integers[rows, taken] + way) <= local.limit, way, 0.0)
        moved = _taps(local, taken) * _per_channel(way, local, drive)
        found = local.judge.errors(drive + moved, scale)
        better = (found < error) & (way != 0)
        idle = idle + 1 if better.mean() < 0.01 else 0
        if idle == _IDLE:
            break
        if better.any():
            integers[rows, taken] += way * better
            error = np.where(better, found, error)
            drive = drive + moved * _per_channel(better.astype(float), local, drive)
    return State(replace(state.found, weight=integers.reshape(local.weight.shape)), drive, error)


METHODS = {"scale": search_scales, "rounding": round_greedily, "bias": correct_biases}


def fit(local: Local, methods: Collection[str]) -> tuple[State, dict[str, float]]:
    """The integers of a synapse, and what its neuron does wrong after each method.

    Args:
        local: the synapse.
        methods: of :data:`METHODS`.
    """
    state = start(local)
    errors = {"max": float(state.error.sum())}
    for name, method in METHODS.items():
        if name in methods:
            state = method(local, state)
            errors[name] = float(state.error.sum())
    return state, errors


def _per_channel(values: np.ndarray, local: Local, like: Tensor) -> Tensor:
    rank = like.ndim - 3 if isinstance(local.judge.place.op, Conv) else 0
    return torch.from_numpy(values).to(like.dtype).reshape(-1, *[1] * rank)


def _taps(local: Local, taken: np.ndarray) -> Tensor:
    """What the chosen weight of every channel reads, in the shape of the drive.

    Args:
        local: the synapse.
        taken: index into the weights of each channel, ``(O,)``.
    """
    op, x = local.judge.place.op, local.x
    if not isinstance(op, Conv):
        return x[..., torch.from_numpy(taken)]
    inner, *kernel = local.weight.shape[1:]
    own, *at = np.unravel_index(taken, (inner, *kernel))
    channel = input_channels(local.weight.shape, op.groups)[np.arange(len(taken)), own]
    padding = [p for n in reversed(op.padding) for p in (n, n)]
    padded = torch.nn.functional.pad(laid_out(op, x), padding)
    windows = padded
    for axis, (size, stride, dilation) in enumerate(zip(kernel, op.stride, op.dilation, strict=True), start=3):
        windows = windows.unfold(axis, (size - 1) * dilation + 1, stride)
    places = tuple(torch.from_numpy(np.asarray(a) * d) for a, d in zip(at, op.dilation, strict=True))
    outer = (slice(None), slice(None), torch.from_numpy(channel), *(slice(None) for _ in kernel), *places)
    return windows[outer].movedim(0, 2)
