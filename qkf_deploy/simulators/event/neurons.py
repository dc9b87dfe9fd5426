"""Neurons that run after their drives are made: behind max pooling, on a constant drive, or on their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qkf_deploy.ir import Node
from qkf_deploy.ops import IntegerNeuron
from qkf_deploy.simulators.event import proofs
from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.kernels.arguments import Outputs
from qkf_deploy.simulators.event.kernels.fire import SPOILT
from qkf_deploy.simulators.event.kernels.streams import pool_fire
from qkf_deploy.simulators.event.packing import pack_theta
from qkf_deploy.simulators.event.values import Drive, Stream, words_of
from qkf_deploy.simulators.event.windows import Window, bands, pointwise
from qkf_deploy.simulators.event.work import Produced, Ranges, Work

_NOT_TRIED = np.zeros(0, np.int16)
_NOT_KEPT = np.zeros((0, 0), np.int32)
#: Lines that pooling and neuron take at once: with fewer, calls cost more; with more, drives leave the caches and one
#: image divides into too few tasks.
_BAND_LINES = 8
_NO_LINES = (0, 0)


@dataclass(frozen=True)
class NeuronForm:
    """A canonical neuron as kernels take it.

    Attributes:
        form: int64 ``(4,)``: multiplier, shift, fraction bits, soft reset.
        theta: int64 ``(channels,)``.
        fits16: it may be tried in 16 bits.
    """

    form: np.ndarray
    theta: np.ndarray
    fits16: bool

    @staticmethod
    def of(node: Node, channels: int) -> NeuronForm | None:
        """The form of a node, or ``None`` if it needs the general path (all but one spike per step, from 0 on, one
        decay for all and thresholds per channel)."""
        op = node.op
        if not isinstance(op, IntegerNeuron) or not op.plain(node.params):
            return None
        theta = _per_channel(node.params["theta"], node.type.shape, channels)
        if theta is None:
            return None
        form = np.array([op.decay_multiplier, op.decay_shift, op.fraction_bits, op.soft_reset], np.int64)
        return NeuronForm(form, theta, proofs.neuron_fits16(op, theta))


def _per_channel(theta: np.ndarray, shape: tuple[int, ...], channels: int) -> np.ndarray | None:
    """Thresholds ``(channels,)`` if they do not depend on the position, else ``None``."""
    if theta.size == 1:
        return np.full(channels, int(theta.reshape(-1)[0]), np.int64)
    grid = np.broadcast_to(theta, shape).reshape(channels, -1)
    return grid[:, 0].astype(np.int64) if (grid == grid[:, :1]).all() else None


@dataclass(frozen=True)
class PooledNeuron:
    """Max pooling and neuron behind a synapse, some lines at a time; what lies between is never stored as a whole.

    Attributes:
        isa: instruction set.
        window: of the pooling, on the synapse's output; of one pixel where there is none.
        channels: channels.
        steps: of the drive, 1 if it is constant.
        time_steps: T.
    """

    isa: Isa
    window: Window
    channels: int
    steps: int
    time_steps: int

    def run(self, work: Work, ranges: Ranges) -> tuple[Stream, Produced]:
        """The spikes of one image, and what was counted."""
        lines = bands(self.window, _BAND_LINES)
        spikes = np.empty((self.window.pixels_out * self.time_steps, words_of(self.channels)), np.uint32)
        most = max(end - first for first, end in lines) * self._line_rows

        def task(band0: int, band1: int) -> Produced:
            out, done, ready = work.outputs(most, fires=False), [], _NO_LINES
            for band in range(band0, band1):
                done.append(self._band(work, out, spikes, band, ready))
                ready = lines[band] if done[-1].driven < SPOILT else _NO_LINES
            spoilt = [i for i, band in enumerate(done) if band.driven >= SPOILT]
            if spoilt and work.wide is not None:
                wide = work.wide()
                out = wide.outputs(most, fires=False)
                for i in spoilt:
                    done[i] = self._band(wide, out, spikes, band0 + i, _NO_LINES)
            return Produced.together(done)

        done = Produced.together(ranges(len(lines), task, least=1))
        return Stream.of_spikes(spikes, self.channels, done.fired), done

    @property
    def _line_rows(self) -> int:
        """Rows of drives per line."""
        return self.window.x.size * self.steps

    def _band(self, work: Work, out: Outputs, spikes: np.ndarray, band: int, ready: tuple[int, int]) -> Produced:
        """One band; the lines ``ready`` lie in ``out`` already."""
        window = self.window
        first, end = bands(window, _BAND_LINES)[band]
        begin, origin = first, first * window.x.size
        if ready[0] <= first < ready[1]:
            begin = min(ready[1], end)
            _to_front(out, *((line - ready[0]) * self._line_rows for line in (first, begin)))
        spoilt, gathered = work.produce(out._replace(origin=origin), begin * window.x.size, end * window.x.size)
        fired = np.zeros(self.time_steps, np.int64)
        p0 = band * _BAND_LINES * window.x.out
        p1 = min(p0 + _BAND_LINES * window.x.out, window.pixels_out)
        driven = pool_fire(
            self.isa.tag, out.drive16 if work.drive16 else out.drive, origin, window.ypos, window.xpos,
            window.y.size, window.x.size, self.steps, self.time_steps, work.neurons.theta,
            work.neurons.theta16 if work.neuron16 else _NOT_TRIED, work.neurons.form, spikes, fired, _NOT_KEPT, p0, p1,
        )  # fmt: skip
        return Produced(max(spoilt, driven), gathered, fired)


def _to_front(out: Outputs, start: int, end: int) -> None:
    """Move rows of drives to the front."""
    for drives in (out.drive16, out.drive):
        drives[: end - start] = drives[start:end]


def fire_drive(
    isa: Isa, drive: Drive, form: NeuronForm, time_steps: int, ranges: Ranges, keep: bool = False
) -> tuple[Stream, int, Drive | None]:
    """A neuron on a drive.

    Returns:
        ``(spikes, non-zero drives over all steps, charged membranes if kept)``.
    """
    columns, window = drive.data.shape[1], pointwise(1, drive.tokens)
    theta = pack_theta(form.theta, columns)
    rows = drive.tokens * time_steps
    spikes = np.empty((rows, columns // 32), np.uint32)
    membranes = np.empty((rows if keep else 0, columns), np.int32)

    def task(p0: int, p1: int) -> Produced:
        fired = np.zeros(time_steps, np.int64)
        driven = pool_fire(
            isa.tag, drive.data, 0, window.ypos, window.xpos, 1, drive.tokens, drive.steps, time_steps, theta,
            _NOT_TRIED, form.form, spikes, fired, membranes, p0, p1,
        )  # fmt: skip
        return Produced(driven, 0, fired)

    done = Produced.together(ranges(drive.tokens, task))
    kept = Drive(membranes, drive.channels, drive.tokens, time_steps) if keep else None
    return Stream.of_spikes(spikes, drive.channels, done.fired), done.driven, kept
