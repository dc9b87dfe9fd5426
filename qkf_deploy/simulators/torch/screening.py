"""Float neurons in float32: a spike is taken from there where its membrane is provably clear of the threshold.

The weights of a synapse that reads events are rounded to a grid on which float32 adds them exactly, in any order: what
its drive differs by from the reference's is known from the weights alone, and the neuron adds a few roundings. The few
places whose membrane lies closer to the threshold than that (or whose drive lies as close to zero: updates without
drive are counted) are computed in float64; what is still open there, the reference's own arithmetic decides
(:mod:`.doubts`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops import Conv, MaxPool, Neuron
from qkf_deploy.ops.neuron import PER_POSITION
from qkf_deploy.simulators.torch.carriers import FLOAT32
from qkf_deploy.simulators.torch.layout import parameter, per_channel
from qkf_deploy.simulators.torch.neurons import Drive, Fired, FloatNeuron
from qkf_deploy.simulators.torch.places import Places
from qkf_deploy.simulators.torch.setting import Setting
from qkf_deploy.simulators.torch.synapses import Rounding, convolution
from qkf_deploy.simulators.torch.values import Value

#: Unit roundoff of float32, and the roundings of one step of a neuron (difference, product and its factor, sum, reset,
#: threshold), each at most that of its largest number.
_SINGLE, _PER_STEP = 2.0**-24, 6
#: Of a value, at most one in so many is computed again place by place; beyond, float64 is faster for all of it.
_FEW = 64
_AT_LEAST = 256


@dataclass(frozen=True)
class Chain:
    """A neuron whose drive is the sum of a convolution over events, perhaps pooled, and nobody else reads it."""

    synapse: Node
    pool: Node | None
    neuron: Node

    @property
    def names(self) -> frozenset[str]:
        """Its nodes."""
        return frozenset(n.name for n in (self.synapse, self.pool, self.neuron) if n is not None)


def chains(graph: Graph) -> Mapping[str, Chain]:
    """The chains of a float graph by the name of their neuron."""
    readers = {name: 0 for name in graph.nodes}
    for operand in itertools.chain.from_iterable(node.inputs for node in graph):
        readers[operand.node] += 1
    found: dict[str, Chain] = {}
    for node in graph:
        if not _simple(node) or not (node.inputs[0].view is None or node.inputs[0].view.is_reshape):
            continue
        source, pool = graph[node.inputs[0].node], None
        if isinstance(source.op, MaxPool) and source.inputs[0].view is None and readers[source.name] == 1:
            source, pool = graph[source.inputs[0].node], source
        if (
            isinstance(source.op, Conv)
            and graph.input_types(source)[0].is_events
            and readers[source.name] == 1
            and source.params.get("bias", np.zeros(1)).ndim == 1
            and source.op.groups == 1
            and not source.op.spread
            and node.type.shape[0] == source.type.shape[0]
        ):
            found[node.name] = Chain(source, pool, node)
    return found


def _simple(node: Node) -> bool:
    """One spike per step at most, the membrane an image's own, from 0 and reset to 0 or by the threshold."""
    op = node.op
    if not isinstance(op, Neuron) or op.graded or op.strict or op.reset_delay or op.carry != "own":
        return False
    levels = op.levels(node.params)
    return levels.decay is None and levels.v_min is None and not levels.base.any() and "initial" not in node.params


class _Synapse:
    """A convolution whose float32 sums are exact for operands up to a magnitude.

    Args:
        s: the graph's.
        node: the convolution.
        largest: bound of the magnitude of its operand, whole numbers.

    Attributes:
        error: bound of the difference of its drive from the reference's, per channel.
        reach: bound of its drive's magnitude, per channel.
    """

    def __init__(self, s: Setting, node: Node, largest: float) -> None:
        weight = node.params["weight"].astype(np.float64)
        w = weight.reshape(len(weight), -1)
        bias = node.params.get("bias", np.zeros(len(w))).astype(np.float64)
        low = 0 if s.graph.input_types(node)[0].low == 0 else largest
        self.reach = _most(w, bias, largest, low)
        bits = 24 - np.frexp(self.reach)[1]
        while True:
            bits = np.minimum(bits, 100)  # above float32's smallest numbers
            whole, offset = np.rint(np.ldexp(w, bits[:, None])), np.rint(np.ldexp(bias, bits))
            over = _most(whole, offset, largest, low) >= 2.0**FLOAT32.sum_bits
            if not over.any():
                break
            bits = bits - over
        self.bits = bits
        rounded, shift = np.ldexp(whole, -bits[:, None]) - w, np.abs(np.ldexp(offset, -bits) - bias)
        by_order = Rounding(weight, bias).of_reals(float(2 * self.reach.max()))  # of the reference's own sum
        self.error = 1.001 * _most(rounded, shift, largest, low) + by_order
        self._exact = {"weight": np.ldexp(whole, -bits[:, None]).reshape(weight.shape), "bias": np.ldexp(offset, -bits)}
        self._sum = convolution(s, replace(node, params=self._exact), FLOAT32)

    def run(self, x: Value) -> Value:
        """The drive."""
        return Value(self._sum(x.tensor), float(self.reach.max()), integral=False, error=float(self.error.max()))

    def closeness(self, steps: int, threshold: float, decays_input: bool) -> np.ndarray:
        """Bound of the difference of a membrane from the reference's in any step, per channel.

        Where the drive is divided by τ, the membrane is a mean of drives: neither it nor its error grows.
        """
        times = 1 if decays_input else steps
        rounding = steps * times * _PER_STEP * _SINGLE * (self.reach + threshold)
        return 1.001 * (times * self.error + rounding)


def _most(w: np.ndarray, bias: np.ndarray, largest: float, low: float) -> np.ndarray:
    """Largest magnitude of every partial sum of ``w · x + bias``, x from ``-low`` to ``largest``, per row of ``w``."""
    up, down = np.maximum(w, 0).sum(axis=1), np.maximum(-w, 0).sum(axis=1)
    return np.maximum(largest * up + low * down, largest * down + low * up) + np.abs(bias)


@dataclass(frozen=True)
class _Levels:
    """Threshold, and the part of the membrane that stays (of the drive that comes in), numbers or ``(C, *spatial)``."""

    threshold: Tensor
    keep: Tensor | None

    def of(self, channels: Tensor) -> _Levels:
        """Those of some channels, one after the other."""
        threshold, keep = (v if v is None or v.numel() == 1 else v[channels] for v in (self.threshold, self.keep))
        return _Levels(self.threshold if threshold is None else threshold, keep)


class Screen:
    """One chain on a device.

    Args:
        s: the graph's.
        chain: what runs.
    """

    def __init__(self, s: Setting, chain: Chain) -> None:
        if not isinstance(chain.neuron.op, Neuron):
            raise AssertionError(chain.neuron)
        self.chain, self._s, self._op = chain, s, chain.neuron.op
        self._synapses: dict[float, _Synapse] = {}
        self._shape = chain.neuron.type.shape
        levels = self._op.levels(chain.neuron.params)
        self._largest_threshold = float(levels.v_threshold.max())
        # X + (1 - 1/τ) M, or M + (X - M) / τ
        keep = None if levels.tau is None else 1 / levels.tau if self._op.decay_input else 1 - 1 / levels.tau
        self._levels = _Levels(self._put(levels.v_threshold), None if keep is None else self._put(keep))
        self._number = None if keep is None or keep.size > 1 else float(keep)

    def _put(self, x: np.ndarray) -> Tensor:
        return parameter(x, self._shape, self._s.device.torch, torch.float32)

    def drive(self, x: Value) -> Value | None:
        """The drive in float32; ``None`` where the operand is not exactly known, or unbounded."""
        if x.error or not x.integral or not 0 < x.largest < 2**FLOAT32.operand_bits:
            return None
        return self._synapse(x).run(x)

    def _synapse(self, x: Value) -> _Synapse:
        if x.largest not in self._synapses:
            self._synapses[x.largest] = _Synapse(self._s, self.chain.synapse, x.largest)
        return self._synapses[x.largest]

    def fire(self, x: Value, events: Value, steps: int) -> tuple[Value, Fired] | None:
        """Drive and spikes; ``None`` if float64 is the faster way to them.

        Args:
            x: the neuron's drive; its elements are right only in whether they are zero.
            events: what the convolution reads, its view applied.
            steps: T.
        """
        synapse = self._synapse(events)
        near = synapse.closeness(steps, self._largest_threshold, self._op.decay_input and self._levels.keep is not None)
        limits = torch.from_numpy(near).to(x.tensor), torch.from_numpy(synapse.error).to(x.tensor)
        spikes, nearest, smallest = self._run(x, steps)
        places = self._places(x, steps, (nearest <= limits[0]) | (smallest <= limits[1]), limits)
        if len(places.images) > max(_AT_LEAST, x.tensor[0].numel() // _FEW):
            return None
        doubtful = torch.zeros(x.shape[1], dtype=torch.bool, device=x.tensor.device)
        if len(places.images):
            doubtful[places.images[self._settle(x, spikes, places, events, steps)]] = True
        drive = Value(x.tensor, x.largest, integral=False, error=x.error)
        drive.know_nonzero(places.zeros_left_out(x.tensor))
        return drive, Fired(Value(spikes, 1.0, binary=True), None, doubtful)

    def _run(self, x: Value, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes, and the smallest distance of a membrane from the threshold and of a drive from zero, per image and
        channel."""
        drive = Drive(x.tensor, steps)
        spikes = drive.outputs(torch.float32)
        nearest, smallest = (x.tensor.new_full(x.shape[1:3], torch.inf) for _ in range(2))
        for part, some in drive.parts():
            scratch = torch.empty_like(some.tensor[0])
            for charged in self._membranes(some, spikes[:, part], self._levels):
                torch.sub(charged, self._levels.threshold, out=scratch)
                torch.minimum(nearest[part], per_channel(scratch.abs_()), out=nearest[part])
            for each in some.tensor:
                torch.abs(each, out=scratch)
                torch.minimum(smallest[part], per_channel(scratch), out=smallest[part])
        return spikes, nearest, smallest

    def _membranes(self, drive: Drive, spikes: Tensor, levels: _Levels) -> Iterator[Tensor]:
        """The charged membrane of every step; what fires goes into ``spikes``."""
        state: Tensor | None = None
        for t, x in drive:
            charged = self._charged(state, x, levels)
            torch.ge(charged, levels.threshold, out=spikes[t])
            yield charged
            if self._op.v_reset is None:
                state = charged.addcmul_(spikes[t], levels.threshold, value=-1)
            else:
                state = charged.addcmul_(charged, spikes[t], value=-1)

    def _charged(self, state: Tensor | None, x: Tensor, levels: _Levels) -> Tensor:
        keep, number = levels.keep, self._number
        if self._op.decay_input and keep is not None:
            if state is None:
                return x * keep
            return torch.lerp(state, x, keep if number is None else number)
        if state is None:
            return x.clone()
        if keep is None:
            return state + x
        return torch.addcmul(x, state, keep) if number is None else torch.add(x, state, alpha=number)

    def _places(self, x: Value, steps: int, close: Tensor, limits: tuple[Tensor, Tensor]) -> Places:
        """Elements that are too close to the threshold or to zero, among images and channels that have such."""
        images, channels = close.nonzero(as_tuple=True)
        chosen = x.tensor[:, images, channels]
        near, low = (limit[channels].reshape(-1, *[1] * (chosen.ndim - 2)) for limit in limits)
        found = (chosen.abs() <= low).any(0)
        drive = Drive(chosen, steps)
        levels = self._levels.of(channels)
        for charged in self._membranes(drive, torch.empty_like(chosen.expand(steps, *chosen.shape[1:])), levels):
            found |= (charged - levels.threshold).abs() <= near
        row, *index = found.nonzero(as_tuple=True)
        return Places(images[row], (channels[row], *index))

    def _settle(self, x: Value, spikes: Tensor, places: Places, events: Value, steps: int) -> Tensor:
        """Put right what float64 decides; which places it does not."""
        sums = places.sums(self.chain.synapse, self.chain.pool, events.tensor, self._shape)
        params = {
            name: np.broadcast_to(v, self._shape)[tuple(i.cpu().numpy() for i in places.index)][:, None]
            for name, v in self.chain.neuron.params.items()
            if name in PER_POSITION
        }
        neuron = FloatNeuron(self._op, params, (len(places.images), 1), self._s.device.torch, torch.float64)
        fired = neuron.run(Value(sums.drive[..., None], sums.largest, integral=False, error=sums.error), steps, False)
        where = (slice(None), places.images, *places.index)
        spikes[where] = fired.spikes.tensor[..., 0].to(spikes.dtype)
        x.tensor[where] = sums.drive.sign().to(x.tensor.dtype)
        doubtful = sums.open_zero
        return doubtful if fired.doubtful is None else doubtful | fired.doubtful
