"""Quantities as published hardware models count them: Lemaire et al. 2022, SpikeSim, NeuroMC, SpikingResformer.

Each follows the counting of the tool (SpikingJelly 2.0's for the first three), for one call of the network on one image
and all T steps: a static image is convolved at every step. "Binary" input is 0 or 1 throughout the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from qkf_deploy.hw_models.quantity import (
    PerImage,
    Quantity,
    class_counts,
    input_factor,
    none,
    reads_binary,
    reads_events,
    rounded,
    same,
    times,
)
from qkf_deploy.ledger import LayerRecord, Ledger

#: Bytes of a word, and messages of an event queue, in the model of Lemaire et al.
_WORD, _QUEUE = 4, 1000
#: Rows and columns of a crossbar of SpikeSim, and of the array of NeuroMC.
_CROSSBAR, _LANES = 64, 16

_EVENTS = frozenset({"synapse.binary", "synapse.integer"})
_DENSE = frozenset({"synapse.integer", "synapse.real", "head.macs"})
_BINARY = frozenset({"synapse.binary"})
_NONE: frozenset[str] = frozenset()
Count = Callable[[LayerRecord, Ledger], PerImage]


def _binary(layer: LayerRecord) -> bool:
    return reads_events(layer) and reads_binary(layer)


def _dense(layer: LayerRecord) -> bool:
    """True for a synapse that is computed densely: its input is not 0 and 1."""
    return layer.connections is not None and not _binary(layer)


def _calls(layer: LayerRecord, ledger: Ledger) -> int:
    """How often a layer is computed per image; a first layer again at every step, as frameworks execute it."""
    return 1 if layer.timing == "image" else ledger.time_steps


def _if(wanted: Callable[[LayerRecord], bool], count: Callable[[LayerRecord, int], int]) -> Count:
    """A number that shapes alone give, in some layers; ``count`` gets the layer and how often it is computed."""

    def counted(layer: LayerRecord, ledger: Ledger) -> PerImage:
        return same(ledger, count(layer, _calls(layer, ledger))) if wanted(layer) else none(ledger)

    return counted


def _per_event(factor: Callable[[LayerRecord], int], wanted: Callable[[LayerRecord], bool] = _binary) -> Count:
    """Something that every event which enters a layer does ``factor`` times."""

    def counted(layer: LayerRecord, ledger: Ledger) -> PerImage:
        if not wanted(layer):
            return none(ledger)
        return times(class_counts(layer, ledger, "events_in_graded"), factor(layer))

    return counted


def _outputs_per_event(layer: LayerRecord) -> int:
    """Outputs of a group: channels, or features."""
    return layer.connections.outputs // layer.connections.groups if layer.connections else 0


def _taps(layer: LayerRecord) -> int:
    return math.prod(layer.connections.kernel) if layer.connections else 0


def _fan_out(layer: LayerRecord) -> int:
    """Taps that an event addresses, stride and borders left out."""
    return _outputs_per_event(layer) * _taps(layer)


def _strided_fan_out(layer: LayerRecord) -> int:
    """Outputs that an event reaches: each axis the kernel over the stride, rounded up."""
    axes = zip(layer.connections.kernel, layer.connections.stride, strict=True) if layer.connections else ()
    return _outputs_per_event(layer) * math.prod(-(-kernel // stride) for kernel, stride in axes)


def _is_conv(layer: LayerRecord) -> bool:
    return layer.connections is not None and bool(layer.connections.kernel)


def _dense_addresses(layer: LayerRecord, calls: int) -> int:
    once = layer.connections.outputs * _taps(layer) if layer.connections and _is_conv(layer) else 0
    return (layer.input_sizes[0] + layer.output_size) * calls + once


def _dense_reads(layer: LayerRecord, calls: int) -> int:
    """Inputs read: a convolution reads one per multiplication, a linear layer each once."""
    return (layer.dense_macs if _is_conv(layer) else layer.input_sizes[0]) * calls


def _has_bias(layer: LayerRecord) -> bool:
    return layer.connections is not None and "bias_adds" in layer.counts


def _bias(layer: LayerRecord, calls: int) -> int:
    return layer.output_size * calls


def _parameter_bytes(layer: LayerRecord, ledger: Ledger) -> int:
    return _WORD * layer.parameters


def _potential_bytes(layer: LayerRecord, ledger: Ledger) -> int:
    return _WORD * layer.output_size


def _input_bytes(layer: LayerRecord, ledger: Ledger) -> int:
    return _WORD * layer.input_sizes[0] * _calls(layer, ledger)


def _queue_bytes(layer: LayerRecord, ledger: Ledger) -> int:
    return _WORD * _QUEUE


def _is_neuron(layer: LayerRecord) -> bool:
    return "neuron_updates_driven" in layer.counts


def _updates(layer: LayerRecord, calls: int) -> int:
    return layer.output_size * calls


def _spikes(layer: LayerRecord, ledger: Ledger) -> PerImage:
    return class_counts(layer, ledger, "events_out_graded") if _is_neuron(layer) else none(ledger)


_LEMAIRE = (
    Quantity(
        "lemaire_synops", _BINARY, "binary input: events x outputs x prod ceil(kernel / stride)",
        _per_event(_strided_fan_out),
    ),
    Quantity("lemaire_macs", _DENSE, "other input: dense MACs x T", _if(_dense, lambda n, calls: n.dense_macs * calls)),
    Quantity(
        "lemaire_bias_adds", frozenset({"bias"}), "outputs x T of layers with bias", _if(_has_bias, _bias),
    ),
    Quantity(
        "lemaire_event_addresses", _NONE, "additions that address what an event reaches: events x outputs x kernel",
        _per_event(_fan_out),
    ),
    Quantity(
        "lemaire_event_multiplies", _NONE, "multiplications that locate the first output of an event: two each",
        _per_event(lambda n: 2, lambda n: _binary(n) and _is_conv(n)),
    ),
    Quantity(
        "lemaire_dense_addresses", _NONE, "addresses of dense layers: inputs + outputs, x T, + outputs x kernel",
        _if(_dense, _dense_addresses),
    ),
    Quantity(
        "lemaire_input_events", frozenset({"routing"}), "events read from the input queue", _per_event(lambda n: 1),
        _queue_bytes,
    ),
    Quantity(
        "lemaire_input_reads", _NONE, "dense input read: one per MAC, in linear layers once", _if(_dense, _dense_reads),
        _input_bytes,
    ),
    Quantity(
        "lemaire_weight_reads_events", _NONE, "weights read by events: events x outputs x kernel", _per_event(_fan_out),
        _parameter_bytes,
    ),
    Quantity(
        "lemaire_weight_reads", frozenset({"memory.weights"}), "weights read by dense layers, one per MAC",
        _if(_dense, lambda n, calls: n.dense_macs * calls), _parameter_bytes,
    ),
    Quantity("lemaire_bias_reads", _NONE, "bias read: outputs x T", _if(_has_bias, _bias), _parameter_bytes),
    Quantity(
        "lemaire_potential_accesses", _NONE, "potentials read and written by events: two per address",
        _per_event(lambda n: 2 * _fan_out(n)), _potential_bytes,
    ),
    Quantity(
        "lemaire_neuron_accesses", frozenset({"memory.state"}), "potentials read and written by neurons: 2 x T",
        _if(_is_neuron, lambda n, calls: 2 * _updates(n, calls)), _potential_bytes,
    ),
    Quantity("lemaire_resets", frozenset({"neuron.reset"}), "additions of neurons: one per spike", _spikes),
    Quantity(
        "lemaire_leaks", frozenset({"neuron.driven", "neuron.idle"}), "multiplications: one per leaky update",
        _if(lambda n: _is_neuron(n) and n.leaky, _updates),
    ),
    Quantity("lemaire_output_events", _NONE, "events written to the output queue", _spikes, _queue_bytes),
)  # fmt: skip


def _cycles(layer: LayerRecord, calls: int) -> int:
    """Crossbar tiles x output positions; what has no positions is a 1 x 1 convolution."""
    if layer.connections is None:
        return 0
    inputs, outputs, groups = layer.connections.inputs, layer.connections.outputs, layer.connections.groups
    tiles = math.ceil(inputs // groups / _CROSSBAR) * math.ceil(outputs // groups / _CROSSBAR) * groups
    return tiles * (layer.output_size // outputs) * calls


def _is_synapse(layer: LayerRecord) -> bool:
    return layer.connections is not None


_SPIKESIM = (
    Quantity(
        "crossbar_cycles", _EVENTS | _DENSE, "tiles of 64 x 64 channels x output positions x T, whatever the activity",
        _if(_is_synapse, _cycles),
    ),
    Quantity(
        "crossbar_tap_cycles", _NONE, "the same x taps of the kernel",
        _if(_is_synapse, lambda n, calls: _cycles(n, calls) * _taps(n)),
    ),
)  # fmt: skip


def _array_macs(layer: LayerRecord, calls: int) -> int:
    """Positions x inputs x outputs x taps; a grouped convolution is computed as a full one."""
    return layer.dense_macs * calls * (layer.connections.groups if layer.connections else 0)


def _chunks(layer: LayerRecord) -> int:
    """Passes over one output: inputs in 16 lanes, and taps."""
    return math.ceil(layer.connections.inputs / _LANES) * _taps(layer) if layer.connections else 0


def _streamed(layer: LayerRecord, calls: int) -> int:
    return layer.output_size * calls * _chunks(layer)


def _partial(layer: LayerRecord, calls: int) -> int:
    return layer.output_size * calls * (_chunks(layer) - 1)


def _returned(layer: LayerRecord, calls: int) -> int:
    return _array_macs(layer, calls) - layer.output_size * calls


def _weights(layer: LayerRecord, calls: int) -> int:
    """Weights without the bias, which may have a value per border case."""
    return layer.connections.inputs * _fan_out(layer) if layer.connections else 0


def _array(kind: str, work: frozenset[str], wanted: Callable[[LayerRecord], bool]) -> tuple[Quantity, ...]:
    return (
        Quantity(f"array_macs_{kind}", work, f"{kind} input: MACs of a full array x T", _if(wanted, _array_macs)),
        Quantity(
            f"array_returns_{kind}", _NONE, f"{kind} input: partial sums read again, MACs less outputs",
            _if(wanted, _returned),
        ),
        Quantity(
            f"array_streams_{kind}", _NONE, f"{kind} input: outputs x passes of 16 input channels and one tap",
            _if(wanted, _streamed),
        ),
        Quantity(f"array_partials_{kind}", _NONE, f"{kind} input: the same less one pass", _if(wanted, _partial)),
    )  # fmt: skip


_NEUROMC = (
    *_array("binary", _BINARY, _binary),
    *_array("dense", _DENSE, _dense),
    Quantity(
        "weights_loaded", frozenset({"memory.weights"}), "stored weights, each read once per image",
        _if(_is_synapse, _weights),
    ),
)  # fmt: skip


def _by_spike_side(layer: LayerRecord, ledger: Ledger) -> PerImage:
    """Products of activations: spikes of the side that is spikes x width of the other; both: their exact sum."""
    if "coincidences" not in layer.counts:
        return none(ledger)
    spikes = tuple(kind == "spike" for kind in layer.input_kinds)
    if all(spikes):
        return class_counts(layer, ledger, "coincidences_unary")
    side = 0 if spikes[0] or not any(spikes) else 1
    name = ("fanout_left", "fanout_right")[side]
    return rounded(class_counts(layer, ledger, name), input_factor(layer, side))


_PER_STEP = (
    Quantity(
        "state_accesses_per_step", frozenset({"memory.state"}), "membranes read and written each step: 2 x neurons x T",
        _if(_is_neuron, lambda n, calls: 2 * _updates(n, calls)),
    ),
)  # fmt: skip

_SOP_MONITOR = (
    Quantity(
        "product_by_spike_side", frozenset({"products"}),
        "products of activations: spikes x width of the other operand; of two spike operands the sum of the product",
        _by_spike_side,
    ),
)  # fmt: skip

TOOL_QUANTITIES = (*_LEMAIRE, *_SPIKESIM, *_NEUROMC, *_PER_STEP, *_SOP_MONITOR)
