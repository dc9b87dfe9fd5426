"""A synapse with what follows it (max pooling, neuron), ready to run on one image."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from qkf_deploy.ir import Graph, Node, Widths
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import Conv, IntegerNeuron, MaxPool
from qkf_deploy.ops.geometry import Axis
from qkf_deploy.ops.synapse import input_channels
from qkf_deploy.simulators.event import proofs
from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.kernels.alignment import aligned, aligned_empty
from qkf_deploy.simulators.event.kernels.arguments import Events, Neurons, Outputs, Shape
from qkf_deploy.simulators.event.kernels.dense_synapse import dense_synapse
from qkf_deploy.simulators.event.kernels.event_synapse import event_synapse
from qkf_deploy.simulators.event.kernels.fire import SOFT, SPOILT
from qkf_deploy.simulators.event.kernels.gather import UNIT
from qkf_deploy.simulators.event.kernels.streams import expand, pool_fire
from qkf_deploy.simulators.event.packing import (
    EventWeights,
    pack_dense,
    pack_events,
    pack_theta,
    padded_columns,
)  # fmt: skip
from qkf_deploy.simulators.event.values import Drive, Stream, words_of
from qkf_deploy.simulators.event.windows import Window, bands

_NO_FORM = np.zeros(4, np.int64)
_ONE_CASE = np.zeros(1, np.int64)
_NOTHING = np.zeros((0, 0), np.int32)
_NOTHING_NARROW = np.zeros(0, np.int16)
_NO_OUTPUTS = Outputs(
    0, np.zeros((0, 0), np.uint32), np.zeros((0, 0), np.int16), _NOTHING, np.zeros(0, np.int64)
)  # fmt: skip

#: Events of a row in a part of a line that make its own pass worth while: of a window of one line, of several. Those
#: are more rows for fewer tiles, so that the passes cost more.
_STRIP_EVENTS = 28, 48
#: Weights of all inputs of a tile, and events of a row and line, from which lines are better taken one after another.
_ROW_BYTES, _LINE_EVENTS = 40 * 1024, 32
#: Lines that pooling and neuron take at once: with fewer, calls cost more; with more, drives leave the caches and one
#: image divides into too few tasks.
_BAND_LINES = 8
#: Weights, with the zeros between groups, up to which a grouped convolution is worth kernels.
_MOST_WEIGHTS = 2**26
_NO_LINES = (0, 0)


class Ranges(Protocol):
    """Runs ``task(p0, p1)`` over ranges of ``0 .. n`` of at least ``least``, possibly on several threads."""

    def __call__(self, n: int, task: Callable[[int, int], Any], least: int = 16) -> Sequence[Any]:
        """Results of the task, in any order."""
        ...


#: Computes output pixels ``p0 .. p1`` into ``out``: (non-zero drives at the neurons, events gathered).
Producer = Callable[[Outputs, int, int], tuple[int, int]]


class Produced(NamedTuple):
    """Non-zero drives at the neurons, events gathered, spikes at each step as int64 ``(T,)``."""

    driven: int
    gathered: int
    fired: np.ndarray

    @staticmethod
    def together(parts: Sequence[Produced]) -> Produced:
        """The sums over several parts of a layer."""
        if len(parts) == 1:
            return parts[0]
        driven, gathered, fired = zip(*parts, strict=True)
        return Produced(sum(driven), sum(gathered), np.sum(fired, axis=0))


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
        """The form of a node, or ``None`` if it needs the general path (carry-over, thresholds per position)."""
        op = node.op
        if not isinstance(op, IntegerNeuron) or op.carry != "own":
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


class SynapseLayer:
    """A convolution on a stream or on constant pixels, optionally with pooling and neuron.

    Args:
        graph: integer graph.
        conv: the convolution; weights of at most 16 bits, sums proven to fit 32 bits. Groups are filled up with zeros.
        pool: max pooling that follows, if any; only together with ``neuron``.
        neuron: the neuron that follows, if any, and its form.
        isa: instruction set.
    """

    def __init__(
        self, graph: Graph, conv: Node, pool: Node | None, neuron: tuple[Node, NeuronForm] | None, isa: Isa
    ) -> None:
        if not isinstance(conv.op, Conv):
            raise TypeError(f"{conv.name} is no convolution")
        self.isa, self.conv, self.pool = isa, conv, pool
        self.neuron = neuron[0] if neuron else None
        self.form = neuron[1] if neuron else None
        self.type = graph.input_types(conv)[0]
        self.constant = self.type.timing is Timing.CONSTANT
        self.time_steps = graph.time_steps
        self.steps = 1 if self.constant else graph.time_steps
        weight = full_weight(conv.params["weight"], conv.op.groups)
        self.window = Window.of(conv.op.axes(self.type.shape, conv.params["weight"]))
        self.weight = weight.reshape(*weight.shape[:2], -1)
        self.channels_out, self.channels_in = weight.shape[:2]
        self.connected_outputs = self.channels_out // conv.op.groups  # of each input channel
        self.pool_window = Window.of(pool.op.axes(conv.type.shape)) if pool and isinstance(pool.op, MaxPool) else None
        self.fused = neuron is not None and pool is None and not self.constant
        self._packs: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.magnitude = proofs.magnitude(self.weight)
        bias = conv.params.get("bias", np.zeros(1, np.int64))
        self.bias_magnitude = proofs.magnitude(bias)
        self._limit = proofs.largest_sum(self.magnitude)
        self._limit_with_bias = proofs.largest_sum(self.magnitude, self.bias_magnitude)

    # -- choice of kernel -------------------------------------------------------------------------------------------

    @staticmethod
    def supports(node: Node, type_: Any, widths: Widths) -> bool:
        """True if the kernels compute this convolution exactly."""
        if not isinstance(node.op, Conv) or not proofs.fits(widths.partial, proofs.INT32):
            return False
        weight = node.params["weight"]
        if node.op.groups > 1 and weight.size * node.op.groups > _MOST_WEIGHTS:
            return False
        if weight.dtype.kind != "i" or proofs.magnitude(weight) > proofs.INT16:
            return False
        if type_.is_events:
            return type_.high is not None and type_.high <= proofs.LARGEST_COUNT and type_.timing is Timing.STEP
        if type_.low is None or type_.high is None or type_.timing is not Timing.CONSTANT:
            return False
        return proofs.fits((type_.low, type_.high), proofs.INT16)

    @cached_property
    def _addressable(self) -> bool:
        """Whether event lists can number this layer's inputs; by line, they are numbered along a whole line."""
        x = self.window.x
        reach = self.channels_in * (x.size if x.kernel > 1 else 1)
        return reach < 2**16 and (x.dilation == 1 or x.kernel == 1)

    def kernel_for(self, stream: Stream) -> str:
        """``event``, ``bytes`` or ``words``: the fastest exact kernel for this image's activity."""
        largest, narrow = stream.largest(), self.magnitude <= 127
        if narrow and self._addressable and self._limit >= 2 * largest:
            density = stream.totals(self.isa.tag).graded / max(stream.tokens * stream.steps * stream.channels, 1)
            if density < self.isa.dense_crossover:
                return "event"
        if narrow and (not self.isa.saturating_pairs or proofs.dense_flush(self.magnitude, largest) > 0):
            return "bytes"
        return "words"

    def _pack(self, key: str, make: Callable[[], Any]) -> Any:
        if key in self._packs:
            return self._packs[key]
        with self._lock:
            if key not in self._packs:
                self._packs[key] = make()
            return self._packs[key]

    def _neurons(self, columns: int) -> Neurons:
        """Bias and neuron, padded to so many channels, in both widths."""

        def make() -> Neurons:
            bias = self.conv.params.get("bias", np.zeros(self.channels_out, np.int64))
            by_case = padded_columns(bias.reshape(self.channels_out, -1).T, columns)
            case = self.window.bias_case if by_case.shape[0] > 1 else _ONE_CASE
            theta = pack_theta(self.form.theta, columns) if self.form else np.zeros(0, np.int32)
            form = self.form.form if self.form else _NO_FORM
            narrow = (np.clip(x, -proofs.INT16 - 1, proofs.INT16).astype(np.int16) for x in (by_case, theta))
            return Neurons(by_case, case, theta, form, *map(aligned, narrow))

        return self._pack(f"neurons{columns}", make)

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self, x: Stream | np.ndarray, ranges: Ranges, kernel: str | None = None) -> tuple[Stream | Drive, Produced]:
        """One image.

        Args:
            x: stream, or for constant input int64 ``(C, H, W)``.
            ranges: how work is divided.
            kernel: forces one of the kernels that are exact here.

        Returns:
            The output and what was counted on the way.
        """
        if isinstance(x, np.ndarray):
            work = self._dense(self._pixel_rows(x), "words", 1)
        else:
            chosen = kernel or self.kernel_for(x)
            if chosen == "event":
                work = self._events(x)
            else:
                work = self._dense(self._padded_rows(x, chosen), chosen, max(x.largest(), 1))
        if self.form is not None and not self.fused:
            return self._fire(work, ranges)
        pixels, words = self.window.pixels_out, words_of(self.channels_out)
        out = work.outputs(pixels * self.steps, fires=self.fused)

        def task(p0: int, p1: int) -> Produced:
            fired = np.zeros(self.steps, np.int64)
            driven, gathered = work.produce(out._replace(fired=fired), p0, p1)
            return Produced(driven, gathered, fired)

        done = Produced.together(ranges(pixels, task))
        if self.fused:
            return Stream.of_spikes(_columns(out.spikes, words), self.channels_out, done.fired), done
        return Drive(_columns(out.drive, 32 * words), self.channels_out, pixels, self.steps), done

    def _events(self, x: Stream, *, narrow: bool = True) -> _Work:
        """Gather events; ``narrow``: try 16 bits where possible."""
        tag, w = self.isa.tag, self.window
        pack: EventWeights = self._pack("event", lambda: pack_events(tag, self.weight))
        neurons = self._neurons(pack.columns)
        pooled = self.form is not None and not self.fused
        by_line = w.x.kernel > 1 or x.is_listed(w.x.size)
        listed = x.events(tag, w.x.size if by_line else 1)
        least = 2 * max(listed.largest, 1)
        drive16 = narrow and (self.fused or pooled) and self.isa.vector_bytes > 0 and self._limit_with_bias >= least
        neuron16 = drive16 and self.form is not None and self.form.fits16
        tried16 = neuron16 if self.fused else drive16
        limit = self._limit_with_bias if tried16 else self._limit
        # Half of the room is kept free: few sums ever come so far that they must move.
        stride = limit // 2 if tried16 and limit // 2 >= least else limit
        events = Events(
            listed.ptr, listed.sums, listed.idx, listed.val, listed.largest, by_line, self.magnitude,
            self.bias_magnitude, limit, stride, tried16,
        )  # fmt: skip
        shape = self._shape(x, pack.units)

        def produce(out: Outputs, p0: int, p1: int) -> tuple[int, int]:
            return event_synapse(tag, events, shape, neurons, w.ypos, w.first_columns, pack.data, out, p0, p1)

        wide = (lambda: self._events(x, narrow=False)) if drive16 else None
        hard = self.form is not None and not self.form.form[SOFT]
        return _Work(produce, neurons, drive16 and pooled, neuron16 and pooled and hard, wide)

    def _shape(self, x: Stream, units: int) -> Shape:
        """Sizes, and how rows are parted: strips pay if their weights stay cached and they have events enough."""
        w, width = self.window, self.window.x.kernel
        per_line = x.totals(self.isa.tag).graded * width / max(x.tokens * x.steps, 1)
        weights = width * self.channels_in * UNIT * units
        several = w.y.kernel > 1
        parts = max(1, min(round(weights / self.isa.strip_bytes), int(per_line // _STRIP_EVENTS[several])))
        many_lines = several and w.y.kernel * weights > _ROW_BYTES and per_line >= _LINE_EVENTS
        return Shape(w.y.size, w.x.size, self.channels_in, width, self.steps, units, parts, many_lines or parts > 1)

    def _dense(self, rows: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], kernel: str, largest: int) -> _Work:
        a, row_of, taps, weights = rows
        neurons = self._neurons(weights.shape[0] * 32)
        flush = max(proofs.dense_flush(self.magnitude, largest) if kernel == "bytes" else 1, 1)

        def produce(out: Outputs, p0: int, p1: int) -> tuple[int, int]:
            return dense_synapse(self.isa.tag, a, row_of, taps, self.steps, flush, weights, neurons, out, p0, p1), 0

        return _Work(produce, neurons, False, False, None)

    def _padded_rows(self, x: Stream, kernel: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(u8 or s16 rows of the padded grid, first row of each output pixel, element offset of each tap, weights)."""
        w, columns = self.window, 32 * x.words
        height, width = w.padded
        if w.is_pointwise and not x.is_bits:
            a = x.data
        else:
            a = np.zeros((height * width * self.steps, columns), np.uint8)
            expand(self.isa.tag, x.data, x.words, self.steps, w.x.size, w.y.padding, w.x.padding, width, a)
        dtype = np.int8 if kernel == "bytes" else np.int16
        a = a if kernel == "bytes" else a.astype(np.int16)
        weights = self._pack(kernel, lambda: pack_dense(self.weight, columns, dtype))
        return a, w.first_pixels * self.steps, w.tap_pixels * self.steps * columns, weights

    def _pixel_rows(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As :meth:`_padded_rows` for constant pixels ``(C, H, W)``; the taps of a line, neighbours, become one."""
        w = self.window
        height, width = w.padded
        channels, line = self.channels_in, w.x.kernel * self.channels_in
        if w.x.dilation != 1:
            return self._pixel_rows_by_tap(x)
        stored = line + line % 2
        grid = np.zeros((height, width, channels), np.int16)
        inner = grid[w.y.padding : w.y.padding + w.y.size, w.x.padding : w.x.padding + w.x.size]
        for c, plane in enumerate(x.reshape(channels, w.y.size, w.x.size)):
            inner[:, :, c] = plane
        slack = np.zeros(-(-stored // channels) * channels, np.int16)  # the last window reads one element too many
        a = np.concatenate([grid.reshape(-1), slack]).reshape(-1, channels)
        by_line = self.weight.reshape(self.channels_out, channels, w.y.kernel, w.x.kernel).transpose(0, 3, 1, 2)
        lines = by_line.reshape(self.channels_out, line, w.y.kernel)
        weights = self._pack("pixels", lambda: pack_dense(lines, stored, np.int16))
        taps = np.arange(w.y.kernel) * w.y.dilation * width * channels
        return a, w.first_pixels, taps, weights

    def _pixel_rows_by_tap(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        w = self.window
        height, width = w.padded
        stored = self.channels_in + self.channels_in % 2
        grid = np.zeros((height, width, stored), np.int16)
        inner = x.reshape(self.channels_in, w.y.size, w.x.size).transpose(1, 2, 0)
        grid[w.y.padding : w.y.padding + w.y.size, w.x.padding : w.x.padding + w.x.size, : self.channels_in] = inner
        weights = self._pack("pixels", lambda: pack_dense(self.weight, stored, np.int16))
        return grid.reshape(-1, stored), w.first_pixels, w.tap_pixels * stored, weights

    @cached_property
    def _pooling(self) -> tuple[Window, tuple[tuple[int, int], ...]]:
        """The window of the pooling, of one pixel where there is none, and the lines that its bands read."""
        window = self.pool_window or pointwise(self.window.y.out, self.window.x.out)
        return window, bands(window, _BAND_LINES)

    def _fire(self, work: _Work, ranges: Ranges) -> tuple[Stream, Produced]:
        """Pooling and neuron behind the synapse, some lines at a time; what lies between is never stored as a whole."""
        if self.form is None:
            raise TypeError("no neuron follows")
        w, (window, lines) = self.window, self._pooling
        spikes = np.empty((window.pixels_out * self.time_steps, words_of(self.channels_out)), np.uint32)
        most = max(end - first for first, end in lines) * w.x.out * self.steps

        def one(work: _Work, out: Outputs, band: int, ready: tuple[int, int]) -> Produced:
            """One band; the lines ``ready`` lie in ``out`` already."""
            first, end = lines[band]
            begin, origin = first, first * w.x.out
            if ready[0] <= first < ready[1]:
                begin = min(ready[1], end)
                _to_front(out, *((line - ready[0]) * w.x.out * self.steps for line in (first, begin)))
            spoilt, gathered = work.produce(out._replace(origin=origin), begin * w.x.out, end * w.x.out)
            fired = np.zeros(self.time_steps, np.int64)
            p0 = band * _BAND_LINES * window.x.out
            p1 = min(p0 + _BAND_LINES * window.x.out, window.pixels_out)
            driven = pool_fire(
                self.isa.tag, out.drive16 if work.drive16 else out.drive, origin, window.ypos, window.xpos,
                window.y.size, window.x.size, self.steps, self.time_steps, work.neurons.theta,
                work.neurons.theta16 if work.neuron16 else _NOTHING_NARROW, work.neurons.form, spikes, fired, _NOTHING,
                p0, p1,
            )  # fmt: skip
            return Produced(max(spoilt, driven), gathered, fired)

        def task(band0: int, band1: int) -> Produced:
            out, done, ready = work.outputs(most, fires=False), [], _NO_LINES
            for band in range(band0, band1):
                done.append(one(work, out, band, ready))
                ready = lines[band] if done[-1].driven < SPOILT else _NO_LINES
            spoilt = [i for i, band in enumerate(done) if band.driven >= SPOILT]
            if spoilt and work.wide is not None:
                wide = work.wide()
                out = wide.outputs(most, fires=False)
                for i in spoilt:
                    done[i] = one(wide, out, band0 + i, _NO_LINES)
            return Produced.together(done)

        done = Produced.together(ranges(len(lines), task, least=1))
        return Stream.of_spikes(spikes, self.channels_out, done.fired), done


def full_weight(weight: np.ndarray, groups: int) -> np.ndarray:
    """``(C_out, C_in, *kernel)`` of the weights of a grouped convolution, zeros between the groups.

    Args:
        weight: ``(C_out, C_in / groups, *kernel)``.
        groups: their number.
    """
    if groups == 1:
        return weight
    out, inputs = weight.shape[:2]
    full = np.zeros((out, inputs * groups, *weight.shape[2:]), weight.dtype)
    full[np.arange(out)[:, None], input_channels(weight.shape, groups)] = weight
    return full


class _Work(NamedTuple):
    """A synapse about to run.

    Attributes:
        produce: see :data:`Producer`.
        neurons: bias and neuron, padded to the kernel's channels.
        drive16, neuron16: drives are handed to pooling in 16 bits; the neuron behind it is tried in 16 bits too.
        wide: the same in 32 bits, for where 16 were not enough.
    """

    produce: Producer
    neurons: Neurons
    drive16: bool
    neuron16: bool
    wide: Callable[[], _Work] | None

    def outputs(self, rows: int, *, fires: bool) -> Outputs:
        """Arrays for so many rows of spikes or drives."""
        columns = self.neurons.bias.shape[1]
        none = _NO_OUTPUTS
        if fires:
            return none._replace(spikes=np.empty((rows, columns // 32), np.uint32))
        if self.drive16:
            return none._replace(drive16=aligned_empty((rows, columns), np.int16))
        return none._replace(drive=aligned_empty((rows, columns), np.int32))


@cache
def pointwise(height: int, width: int) -> Window:
    """The window that reads one pixel."""
    return Window(Axis(height, 1), Axis(width, 1))


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
            _NOTHING_NARROW, form.form, spikes, fired, membranes, p0, p1,
        )  # fmt: skip
        return Produced(driven, 0, fired)

    done = Produced.together(ranges(drive.tokens, task))
    kept = Drive(membranes, drive.channels, drive.tokens, time_steps) if keep else None
    return Stream.of_spikes(spikes, drive.channels, done.fired), done.driven, kept


def _to_front(out: Outputs, start: int, end: int) -> None:
    """Move rows of drives to the front."""
    for drives in (out.drive16, out.drive):
        drives[: end - start] = drives[start:end]


def _columns(rows: np.ndarray, count: int) -> np.ndarray:
    """The first columns; tiles may have padded more than the stream's own padding."""
    return rows if rows.shape[1] == count else np.ascontiguousarray(rows[:, :count])
