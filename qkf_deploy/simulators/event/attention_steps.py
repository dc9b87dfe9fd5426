"""The steps of attention: Q-K gates and spiking self-attention."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qkf_deploy.ir import Node, Operand
from qkf_deploy.simulators.event import proofs
from qkf_deploy.simulators.event.context import Image
from qkf_deploy.simulators.event.kernels.alignment import aligned_empty
from qkf_deploy.simulators.event.kernels.attention import (
    CONTEXT_SUM,
    MIXED_SUM,
    channel_gate,
    self_attention,
    token_gate,
)
from qkf_deploy.simulators.event.kernels.fire import SOFT
from qkf_deploy.simulators.event.neurons import NeuronForm
from qkf_deploy.simulators.event.steps import Step, store_neuron
from qkf_deploy.simulators.event.values import Stream, words_of


@dataclass(frozen=True, eq=False)
class GateStep(Step):
    """Q-K attention: a sum, the neuron it drives, and the mask that this neuron opens."""

    sum: Node
    neuron: Node
    mask: Node
    form: NeuronForm

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.sum, self.neuron, self.mask

    def _tally(self, image: Image, q: Stream, k: Stream, gate: Stream, out: Stream, driven: int) -> None:
        """Counts of sum, neuron and mask; the sums themselves are never stored: their total is that of q."""
        entering, (leaving, per_step) = image.entering(q), image.leaving(q)
        sums = {"events_out_unary": leaving["events_out_unary"], "events_out_graded": driven}
        adds = {
            "attention_sum_adds_unary": entering["events_in_unary"],
            "attention_sum_adds_graded": entering["events_in_graded"],
        }
        image.tally(self.sum, {**adds, **entering, **sums}, per_step)
        into_neuron = {"events_in_unary": sums["events_out_unary"], "events_in_graded": driven}
        store_neuron(image, self.neuron, gate, driven, into_neuron)
        image.store(self.mask, out)
        met, passed = image.entering(k), image.leaving(out)[0]
        stopped = met["events_in_graded"] - passed["events_out_graded"]
        counts = {"gate_ands": met["events_in_graded"], "events_stopped": stopped, **image.entering(gate, k), **passed}
        image.tally(self.mask, counts, image.leaving(out)[1])


@dataclass(frozen=True, eq=False)
class TokenGateStep(GateStep):
    """Q-K token attention: sum over a head's channels, neuron, mask."""

    heads: int
    dim: int

    @cached_property
    def _head_words(self) -> tuple[np.ndarray, np.ndarray]:
        """(words that hold each head's channels, u64; which of their bits, u32), ``(heads, most words per head)``."""
        member = np.zeros((self.heads, 32 * words_of(self.heads * self.dim)), np.uint8)
        for head in range(self.heads):
            member[head, head * self.dim : (head + 1) * self.dim] = 1
        bits = np.packbits(member, axis=1, bitorder="little").view(np.uint32)
        most = np.count_nonzero(bits, axis=1).max()
        words = np.argsort(bits == 0, axis=1, kind="stable")[:, :most].astype(np.uint64)
        return words, np.take_along_axis(bits, words, axis=1)

    def run(self, image: Image) -> None:
        channels = self.heads * self.dim
        q = image.stream(self.sum.inputs[0], channels)
        k = image.stream(self.mask.inputs[1], channels)
        gate = np.zeros((q.data.shape[0], words_of(self.heads)), np.uint32)
        out = np.zeros_like(k.data)
        theta, form = self.form.theta, self.form.form
        opened, passed = np.zeros((2, q.steps), np.int64)
        driven = token_gate(q.data, k.data, *self._head_words, q.steps, theta, form, gate, out, opened, passed)
        gates, masked = Stream.of_spikes(gate, self.heads, opened), Stream.of_spikes(out, channels, passed)
        self._tally(image, q, k, gates, masked, driven)


@dataclass(frozen=True, eq=False)
class ChannelGateStep(GateStep):
    """Q-K channel attention: sum over tokens, neuron, mask."""

    channels: int

    def run(self, image: Image) -> None:
        q = image.stream(self.sum.inputs[0], self.channels)
        k = image.stream(self.mask.inputs[1], self.channels)
        sums = np.ascontiguousarray(q.column_sums(image.isa.tag))
        gate, out = np.zeros((q.steps, q.words), np.uint32), np.empty_like(k.data)
        opened, passed = np.zeros((2, q.steps), np.int64)
        driven = channel_gate(sums, k.data, self.form.theta, self.form.form, gate, out, opened, passed)
        gates, masked = Stream.of_spikes(gate, self.channels, opened), Stream.of_spikes(out, self.channels, passed)
        self._tally(image, q, k, gates, masked, driven)


@dataclass(frozen=True, eq=False)
class AttentionStep(Step):
    """Spiking self-attention: ``k^T v``, ``q (k^T v)``, neuron."""

    context: Node
    mixed: Node
    neuron: Node
    form: NeuronForm
    heads: int
    dim: int

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.context, self.mixed, self.neuron

    def run(self, image: Image) -> None:
        channels = self.heads * self.dim
        # The views (head split, transpose) are what the kernel does; it reads the streams as they are stored.
        q, k, v = (image.stream(Operand(o.node), channels) for o in (self.mixed.inputs[0], *self.context.inputs))
        out, fired, stats = np.zeros_like(q.data), np.zeros(q.steps, np.int64), np.zeros((q.steps, 5), np.int64)
        # A channel of k and one of v coincide at most once per token, so 16 bits nearly always hold the sums.
        dtype = np.int16 if proofs.fits((0, self.dim * q.tokens), proofs.INT16) else np.int32
        columns = 32 * words_of(self.dim)
        context, mixed = aligned_empty((self.dim, columns), dtype), aligned_empty((columns,), dtype)
        # Sums of spikes are not negative: in 16 bits, what saturates reaches the threshold, and is reset.
        narrow = dtype is np.int16 and image.isa.vector_bytes > 0 and self.form.fits16 and not self.form.form[SOFT]
        theta = self.form.theta.astype(np.int32)
        theta16 = theta[: channels if narrow else 0].astype(np.int16)
        self_attention(
            image.isa.tag, q.data, k.data, v.data, self.dim, q.steps, theta, theta16, self.form.form, context, mixed,
            out, fired, stats,
        )  # fmt: skip
        self._tally(image, q, k, v, Stream.of_spikes(out, channels, fired), stats)

    def _tally(self, image: Image, q: Stream, k: Stream, v: Stream, out: Stream, stats: np.ndarray) -> None:
        context_sum, context_nonzero, mixed_sum, pairs, mixed_nonzero = stats.sum(axis=0).tolist()
        from_q, from_k, from_v = (image.entering(s) for s in (q, k, v))
        image.tally(
            self.context,
            {
                "coincidences": context_sum,
                "coincidences_unary": context_sum,
                "fanout_left": from_k["events_in_graded"] * self.dim,
                "fanout_right": from_v["events_in_graded"] * self.dim,
                **image.entering(k, v),
                "events_out_unary": context_sum,
                "events_out_graded": context_nonzero,
            },
            stats[:, CONTEXT_SUM],
        )
        image.tally(
            self.mixed,
            {
                "coincidences": pairs,
                "coincidences_unary": mixed_sum,
                "fanout_left": from_q["events_in_graded"] * self.dim,
                "fanout_right": context_nonzero * q.tokens,
                "events_in_unary": from_q["events_in_unary"] + context_sum,
                "events_in_graded": from_q["events_in_graded"] + context_nonzero,
                "events_out_unary": mixed_sum,
                "events_out_graded": mixed_nonzero,
            },
            stats[:, MIXED_SUM],
        )
        entering = {"events_in_unary": mixed_sum, "events_in_graded": mixed_nonzero}
        store_neuron(image, self.neuron, out, mixed_nonzero, entering)
