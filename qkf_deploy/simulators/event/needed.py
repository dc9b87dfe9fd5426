"""Which kernels a plan is sure to need, and with arguments of which types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import typeof

from qkf_deploy.ir import Graph
from qkf_deploy.ir.values import ValueType
from qkf_deploy.simulators.event.attention_steps import AttentionStep, ChannelGateStep, TokenGateStep
from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.kernels.arguments import Events, Neurons, Outputs, Shape
from qkf_deploy.simulators.event.kernels.attention import channel_gate, self_attention, token_gate
from qkf_deploy.simulators.event.kernels.dense_synapse import dense_synapse
from qkf_deploy.simulators.event.kernels.disk import CheckedFiles
from qkf_deploy.simulators.event.kernels.event_synapse import event_synapse, width_tag
from qkf_deploy.simulators.event.kernels.gather import tile_units
from qkf_deploy.simulators.event.kernels.lists import list_rows
from qkf_deploy.simulators.event.kernels.streams import add_streams, class_counts, column_sums, pool_fire
from qkf_deploy.simulators.event.plan import Plan
from qkf_deploy.simulators.event.steps import AddStep, NeuronStep, Step, SynapseStep, TokenSumStep


class Job(NamedTuple):
    """A kernel and the types of its arguments; ``cost``: how long it takes to compile, roughly in seconds."""

    kernel: Any
    types: tuple[Any, ...]
    cost: float

    @property
    def can_be_stored(self) -> bool:
        """Whether there is a folder for it."""
        return isinstance(getattr(self.kernel._cache, "_cache_file", None), CheckedFiles)

    @property
    def is_stored(self) -> bool:
        """Whether it is in the cache, or in this process already."""
        if self.types in self.kernel.overloads:
            return True
        cache = self.kernel._cache
        return cache._index_key(self.types, self.kernel.targetctx.codegen()) in cache._cache_file._load_index()

    def compile(self) -> None:
        """Compile it in this process and store it."""
        self.kernel.compile(self.types)


def needed(graph: Graph, plan: Plan, isa: Isa) -> list[Job]:
    """The jobs of all steps, each once. What depends on the images (dense kernels for streams) is not among them."""
    jobs = {(job.kernel, job.types): job for step in plan.steps for job in _of_step(graph, step, isa)}
    return list(jobs.values())


def _empty(dtype: type, dimensions: int = 1) -> np.ndarray:
    return np.zeros((0,) * dimensions, dtype)


_LONG, _LONGS, _INT, _SHORT = _empty(np.int64), _empty(np.int64, 2), _empty(np.int32), _empty(np.int16)
_BITS, _COUNTS = _empty(np.uint32, 2), _empty(np.uint8, 2)
_DRIVES, _DRIVES16 = _empty(np.int32, 2), _empty(np.int16, 2)
_EVENTS = Events(_INT, _INT, _empty(np.uint16), _empty(np.uint8), 0, False, 0, 0, 0, 0, False)
_SHAPE = Shape(0, 0, 0, 0, 0, 0, 0, False)
_NEURONS = Neurons(_DRIVES, _LONG, _INT, _LONG, _DRIVES16, _SHORT)
_OUTPUTS = Outputs(0, _BITS, _DRIVES16, _DRIVES, _LONG)


def _job(cost: float, kernel: Any, *arguments: Any) -> Job:
    return Job(kernel, tuple(typeof(argument) for argument in arguments), cost)


def _stream(type_: ValueType) -> np.ndarray:
    return _BITS if type_.high == 1 else _COUNTS


def _of_step(graph: Graph, step: Step, isa: Isa) -> Iterator[Job]:
    tag = isa.tag
    match step:
        case SynapseStep():
            yield from _of_synapse(step, isa)
        case NeuronStep():
            yield _pool(isa, _DRIVES)
        case AddStep():
            a, b = (_stream(t) for t in graph.input_types(step.node))
            yield _job(0.3, add_streams, tag, a, b, 0, _COUNTS)
        case TokenSumStep():
            stream = _stream(graph.input_types(step.node)[0])
            yield _job(0.4, column_sums, tag, stream, 0, 0, 0, _LONGS)
        case TokenGateStep():
            heads = _empty(np.uint64, 2), _BITS
            yield _job(0.7, token_gate, _BITS, _BITS, *heads, 0, _LONG, _LONG, _BITS, _BITS, _LONG, _LONG)
        case ChannelGateStep():
            yield _job(0.4, column_sums, tag, _BITS, 0, 0, 0, _LONGS)
            yield _job(0.7, channel_gate, _LONGS, _BITS, _LONG, _LONG, _BITS, _BITS, _LONG, _LONG)
        case AttentionStep():
            sums = _DRIVES16, _SHORT
            yield _job(
                1.8, self_attention, tag, _BITS, _BITS, _BITS, 0, 0, _INT, _SHORT, _LONG, *sums, _BITS, _LONG, _LONGS
            )
        case _:
            pass


def _of_synapse(step: SynapseStep, isa: Isa) -> Iterator[Job]:
    layer, tag = step.layer, isa.tag
    if layer.constant:
        pixels, weights = _DRIVES16, _empty(np.int16, 5)
        yield _job(1.2, dense_synapse, tag, pixels, _LONG, _LONG, 0, 0, weights, _NEURONS, _OUTPUTS, 0, 0)
    else:
        stream, units = _stream(layer.type), tile_units(layer.channels_out)
        weights, width = _empty(np.int8, 2), width_tag(isa, units)
        yield _job(
            2.0 + 0.3 * units, event_synapse, tag, width, _EVENTS, _SHAPE, _NEURONS, _LONGS, _LONG, weights, _OUTPUTS,
            0, 0,
        )  # fmt: skip
        yield _job(0.6, list_rows, tag, _empty(np.uint8, 2), stream, 0, 0, 0, 0, _INT, _INT, *_EVENTS[2:4])
        yield _job(0.6, class_counts, tag, stream, 0, 0, _LONG, 0, _LONGS, _LONGS)
    if layer.pooled is not None:
        yield _pool(isa, _DRIVES if layer.constant or not isa.vector_bytes else _DRIVES16)


def _pool(isa: Isa, drives: np.ndarray) -> Job:
    return _job(
        1.2, pool_fire, isa.tag, drives, 0, _LONGS, _LONGS, 0, 0, 0, 0, _INT, _SHORT, _LONG, _BITS, _LONG, _DRIVES, 0, 0
    )
