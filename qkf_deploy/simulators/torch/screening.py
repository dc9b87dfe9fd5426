"""Float neurons in float32: a spike is taken from there where its membrane is provably clear of the threshold.

The weights of a synapse that reads events are rounded to a grid on which float32 adds them exactly, in any order: what
its drive differs by from the reference's is known from the weights alone, and the neuron adds a few roundings. The few
places whose membrane lies closer to the threshold than that (or whose drive lies as close to zero: updates without
drive are counted) are computed in float64; what is still open there, the reference's own arithmetic decides
(:mod:`.doubts`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
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
from qkf_deploy.simulators.torch.places import Places, Sums, Terms
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
        self._synapses: dict[float, tuple[_Synapse, tuple[Tensor, Tensor]]] = {}
        self._shape = chain.neuron.type.shape
        levels = self._op.levels(chain.neuron.params)
        self._largest_threshold = float(levels.v_threshold.max())
        # X + (1 - 1/τ) M, or M + (X - M) / τ
        keep = None if levels.tau is None else 1 / levels.tau if self._op.decay_input else 1 - 1 / levels.tau
        self._threshold, self._keep = self._put(levels.v_threshold), None if keep is None else self._put(keep)
        self._terms = Terms(chain.synapse, chain.pool, s.operand_shape(chain.synapse), s.device.torch)
        self._varying = {name: v for name, v in chain.neuron.params.items() if name in PER_POSITION}
        self._uniform = FloatNeuron(self._op, {}, (1,), s.device.torch, torch.float64)
        self._number = None if keep is None or keep.size > 1 else float(keep)

    def _put(self, x: np.ndarray) -> Tensor:
        return parameter(x, self._shape, self._s.device.torch, torch.float32)

    def drive(self, x: Value) -> Value | None:
        """The drive in float32; ``None`` where the operand is not exactly known, or unbounded."""
        if x.error or not x.integral or not 0 < x.largest < 2**FLOAT32.operand_bits:
            return None
        return self._synapse(x)[0].run(x)

    def _synapse(self, x: Value) -> tuple[_Synapse, tuple[Tensor, Tensor]]:
        """The convolution, and how close to the threshold and to zero is too close, float32 ``(C,)``."""
        if x.largest not in self._synapses:
            synapse = _Synapse(self._s, self.chain.synapse, x.largest)
            decays_input = self._op.decay_input and self._keep is not None
            near = synapse.closeness(self._s.graph.time_steps, self._largest_threshold, decays_input)
            limits = self._s.put(near, torch.float32), self._s.put(synapse.error, torch.float32)
            self._synapses[x.largest] = synapse, limits
        return self._synapses[x.largest]

    def fire(self, x: Value, events: Value, steps: int) -> tuple[Value, Fired] | None:
        """Drive and spikes; ``None`` if float64 is the faster way to them.

        Args:
            x: the neuron's drive, whose memory the spikes take; what is known of it then is how many elements are zero.
            events: what the convolution reads, its view applied.
            steps: T.
        """
        drive, limits = Drive(x.tensor, steps), self._synapse(events)[1]
        spikes = x.tensor if len(x.tensor) == steps else drive.outputs(torch.float32)
        places = Places.of(
            [self._close(some, spikes[:, part], limits).behind(part.start) for part, some in drive.parts()]
        )
        if len(places.images) > max(_AT_LEAST, x.tensor[0].numel() // _FEW):
            return None
        doubtful = torch.zeros(x.shape[1], dtype=torch.bool, device=x.tensor.device)
        nonzero = doubtful.new_full(doubtful.shape, x.tensor[:, 0].numel(), dtype=torch.int64)
        if len(places.images):
            sums = self._terms.at(places, events)
            doubtful[places.images[self._settle(spikes, sums, places, steps)]] = True
            nonzero.index_add_(0, places.images, (sums.drive == 0).sum(0), alpha=-1)
        settled = Value(x.tensor, x.largest, integral=False)
        settled.know_nonzero(nonzero)
        return settled, Fired(Value(spikes, 1.0, binary=True), None, doubtful)

    def _close(self, drive: Drive, spikes: Tensor, limits: tuple[Tensor, Tensor]) -> Places:
        """Fire; the elements whose membrane comes too close to the threshold, or their drive to zero."""
        size = drive.tensor.abs()
        distance = self._membranes(drive, spikes).sub_(self._threshold).abs_()
        near, low = limits
        images, channels = ((per_channel(distance) <= near) | (per_channel(size) <= low)).nonzero(as_tuple=True)
        near, low = near[channels, None], low[channels, None]
        distance, size = (v.flatten(3)[:, images, channels] for v in (distance, size))
        row, positions = ((distance <= near) | (size <= low)).any(0).nonzero(as_tuple=True)
        return Places(images[row], channels[row], positions)

    def _membranes(self, drive: Drive, spikes: Tensor) -> Tensor:
        """The charged membranes of all steps; what fires goes into ``spikes``."""
        charged = drive.outputs(torch.float32)
        state: Tensor | None = None
        for t, x in drive:
            self._charge(state, x, charged[t])
            torch.ge(charged[t], self._threshold, out=spikes[t])
            if t + 1 < drive.steps:
                reset = self._threshold if self._op.v_reset is None else charged[t]
                state = torch.addcmul(charged[t], reset, spikes[t], value=-1, out=state)
        return charged

    def _charge(self, state: Tensor | None, x: Tensor, out: Tensor) -> None:
        keep, number = self._keep, self._number
        if state is None:
            torch.mul(x, 1 if keep is None or not self._op.decay_input else keep, out=out)
        elif keep is None:
            torch.add(x, state, out=out)
        elif self._op.decay_input:
            torch.lerp(state, x, keep if number is None else number, out=out)
        elif number is None:
            torch.addcmul(x, state, keep, out=out)
        else:
            torch.add(x, state, alpha=number, out=out)

    def _settle(self, spikes: Tensor, sums: Sums, places: Places, steps: int) -> Tensor:
        """Put right what float64 decides; which places it does not."""
        drive = Value(sums.drive[..., None], sums.largest, integral=False, error=sums.error)
        fired = self._neuron(places).run(drive, steps, False)
        places.put(spikes, fired.spikes.tensor[..., 0])
        doubtful = sums.open_zero
        return doubtful if fired.doubtful is None else doubtful | fired.doubtful

    def _neuron(self, places: Places) -> FloatNeuron:
        """The neurons at these places, ``(places, 1)``."""
        if not self._varying:
            return self._uniform
        at = places.channels.cpu().numpy(), places.positions.cpu().numpy()
        full = {name: np.broadcast_to(v, self._shape).reshape(self._shape[0], -1) for name, v in self._varying.items()}
        params = {name: v[at][:, None] for name, v in full.items()}
        return FloatNeuron(self._op, params, (len(places.images), 1), self._s.device.torch, torch.float64)
