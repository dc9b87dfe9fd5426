"""A synapse with what follows it (max pooling, neuron), ready to run on one image."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from qkf_deploy.ir import Graph, Node, Widths
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import Conv, MaxPool
from qkf_deploy.ops.synapse import input_channels
from qkf_deploy.simulators.event import proofs
from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.dense_rows import DenseRows, pack_for_pixels, pixel_rows, stream_rows
from qkf_deploy.simulators.event.kernels.alignment import aligned
from qkf_deploy.simulators.event.kernels.arguments import Events, Neurons, Outputs, Shape
from qkf_deploy.simulators.event.kernels.dense import TILE
from qkf_deploy.simulators.event.kernels.dense_synapse import dense_synapse
from qkf_deploy.simulators.event.kernels.event_synapse import event_synapse, width_tag
from qkf_deploy.simulators.event.kernels.fire import SOFT
from qkf_deploy.simulators.event.kernels.gather import UNIT
from qkf_deploy.simulators.event.neurons import NeuronForm, PooledNeuron
from qkf_deploy.simulators.event.packing import (
    EventWeights,
    pack_dense,
    pack_events,
    pack_theta,
    padded_columns,
)  # fmt: skip
from qkf_deploy.simulators.event.values import Drive, Stream, words_of
from qkf_deploy.simulators.event.windows import Window, pointwise
from qkf_deploy.simulators.event.work import Produced, Ranges, Work

_NO_FORM = np.zeros(4, np.int64)
_ONE_CASE = np.zeros(1, np.int64)

#: Events of a row in a part of a line that make its own pass worth while: of a window of one line, of several. Those
#: are more rows for fewer tiles, so that the passes cost more.
_STRIP_EVENTS = 28, 48
#: Weights of all inputs of a tile, and events of a row and line, from which lines are better taken one after another.
_ROW_BYTES, _LINE_EVENTS = 40 * 1024, 32
#: Weights, with the zeros between groups, up to which a grouped convolution is worth kernels.
_MOST_WEIGHTS = 2**26


class SynapseLayer:
    """A convolution on a stream or on constant pixels, optionally with pooling and neuron.

    Args:
        graph: integer graph.
        conv: the convolution; weights of at most 16 bits, sums proven to fit 32 bits. Groups are filled up with zeros.
        pool: max pooling that follows, if any; only together with ``form``.
        form: the neuron that follows, if any.
        isa: instruction set.
    """

    def __init__(self, graph: Graph, conv: Node, pool: Node | None, form: NeuronForm | None, isa: Isa) -> None:
        if not isinstance(conv.op, Conv):
            raise TypeError(f"{conv.name} is no convolution")
        self.isa, self.conv, self.form = isa, conv, form
        self.type = graph.input_types(conv)[0]
        self.constant = self.type.timing is Timing.CONSTANT
        self.time_steps = graph.time_steps
        self.steps = 1 if self.constant else graph.time_steps
        weight = full_weight(conv.params["weight"], conv.op.groups)
        self.window = Window.of(conv.op.axes(self.type.shape, conv.params["weight"]))
        self.weight = weight.reshape(*weight.shape[:2], -1)
        self.channels_out, self.channels_in = weight.shape[:2]
        self.connected_outputs = self.channels_out // conv.op.groups  # of each input channel
        self.fused = form is not None and pool is None and not self.constant
        self.pooled = self._pooled_neuron(pool) if form is not None and not self.fused else None
        self._packs: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.magnitude = proofs.magnitude(self.weight)
        bias = conv.params.get("bias", np.zeros(1, np.int64))
        self.bias_magnitude = proofs.magnitude(bias)
        self._limit = proofs.largest_sum(self.magnitude)
        self._limit_with_bias = proofs.largest_sum(self.magnitude, self.bias_magnitude)

    def _pooled_neuron(self, pool: Node | None) -> PooledNeuron:
        window = pointwise(self.window.y.out, self.window.x.out)
        if pool is not None and isinstance(pool.op, MaxPool):
            window = Window.of(pool.op.axes(self.conv.type.shape))
        return PooledNeuron(self.isa, window, self.channels_out, self.steps, self.time_steps)

    # -- choice of kernel -------------------------------------------------------------------------------------------

    @staticmethod
    def supports(node: Node, type_: Any, widths: Widths) -> bool:
        """True if the kernels compute this convolution exactly."""
        if not isinstance(node.op, Conv) or node.op.spread or not proofs.fits(widths.partial, proofs.INT32):
            return False
        weight = node.params["weight"]
        if node.op.groups > 1 and weight.size * node.op.groups > _MOST_WEIGHTS:
            return False
        if weight.dtype.kind != "i" or proofs.magnitude(weight) > proofs.INT16:
            return False
        if type_.is_counts:
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
            weights = self._pack("pixels", lambda: pack_for_pixels(self.weight, self.window))
            work = self._dense(pixel_rows(x, self.window), weights, flush=1)
        else:
            chosen = kernel or self.kernel_for(x)
            work = self._events(x) if chosen == "event" else self._dense_stream(x, chosen)
        if self.pooled is not None:
            return self.pooled.run(work, ranges)
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

    def _events(self, x: Stream, *, narrow: bool = True) -> Work:
        """Gather events; ``narrow``: try 16 bits where possible."""
        tag, w = self.isa.tag, self.window
        pack: EventWeights = self._pack("event", lambda: pack_events(tag, self.weight))
        neurons = self._neurons(pack.columns)
        pooled = self.pooled is not None
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
        shape, width = self._shape(x, pack.units), width_tag(self.isa, pack.units)

        def produce(out: Outputs, p0: int, p1: int) -> tuple[int, int]:
            return event_synapse(tag, width, events, shape, neurons, w.ypos, w.first_columns, pack.data, out, p0, p1)

        wide = (lambda: self._events(x, narrow=False)) if drive16 else None
        hard = self.form is not None and not self.form.form[SOFT]
        return Work(produce, neurons, drive16 and pooled, neuron16 and pooled and hard, wide)

    def _shape(self, x: Stream, units: int) -> Shape:
        """Sizes, and how rows are parted: strips pay if their weights stay cached and they have events enough."""
        w, width = self.window, self.window.x.kernel
        per_line = x.totals(self.isa.tag).graded * width / max(x.tokens * x.steps, 1)
        weights = width * self.channels_in * UNIT * units
        several = w.y.kernel > 1
        parts = max(1, min(round(weights / self.isa.strip_bytes), int(per_line // _STRIP_EVENTS[several])))
        many_lines = several and w.y.kernel * weights > _ROW_BYTES and per_line >= _LINE_EVENTS
        return Shape(w.y.size, w.x.size, self.channels_in, width, self.steps, units, parts, many_lines or parts > 1)

    def _dense_stream(self, x: Stream, kernel: str) -> Work:
        dtype = np.int8 if kernel == "bytes" else np.int16
        rows = stream_rows(self.isa, x, self.window, dtype)
        weights = self._pack(kernel, lambda: pack_dense(self.weight, rows.data.shape[1], dtype))
        flush = proofs.dense_flush(self.magnitude, max(x.largest(), 1)) if kernel == "bytes" else 1
        return self._dense(rows, weights, max(flush, 1))

    def _dense(self, rows: DenseRows, weights: np.ndarray, flush: int) -> Work:
        neurons = self._neurons(weights.shape[0] * TILE)

        def produce(out: Outputs, p0: int, p1: int) -> tuple[int, int]:
            driven = dense_synapse(self.isa.tag, *rows, self.steps, flush, weights, neurons, out, p0, p1)
            return driven, 0

        return Work(produce, neurons)


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


def _columns(rows: np.ndarray, count: int) -> np.ndarray:
    """The first columns; tiles may have padded more than the stream's own padding."""
    return rows if rows.shape[1] == count else np.ascontiguousarray(rows[:, :count])
