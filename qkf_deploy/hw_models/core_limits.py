"""What fits one core: the published limits of neurons, weights, memory and biases."""

from __future__ import annotations

from qkf_deploy.hw_models.architecture.chip import Core
from qkf_deploy.hw_models.lowering import AND_BITS
from qkf_deploy.hw_models.units import Unit


def synapses(unit: Unit, core: Core, channels: int, positions: int) -> int:
    """Stored weights of a piece; every connection where kernels are not shared."""
    if core.share_convolution_weights:
        return channels * unit.weights_per_channel
    return channels * positions * unit.connections_per_neuron


def memory_bits(unit: Unit, core: Core, channels: int, positions: int) -> tuple[int, int]:
    """Bits of weights (with biases and thresholds) and of state."""
    weights = synapses(unit, core, channels, positions) * unit.weight_bits + channels * unit.channel_bits
    ands = AND_BITS * (unit.neurons_per_output - 1)
    state = channels * positions * (unit.state_bits + unit.leftover_bits + ands)
    held = -(-unit.held_bits * channels * positions // (unit.channels * unit.positions))  # spread evenly
    return weights, state + held


def fits(unit: Unit, core: Core, channels: int, positions: int) -> bool:
    """Whether a core holds ``channels`` of ``positions``; inputs and outputs of the core aside."""
    stored = synapses(unit, core, channels, positions)
    return (
        channels * positions * unit.neurons_per_output <= core.neurons_max
        and (core.synapses_max is None or stored <= core.synapses_max)
        and (core.synapse_bits_max is None or stored * unit.weight_bits <= core.synapse_bits_max)
        and (core.biases_max is None or channels * unit.biases_per_channel <= core.biases_max)
        and not core.memory_problem(*memory_bits(unit, core, channels, positions))
    )


def broken_rules(unit: Unit, core: Core, targets: int) -> tuple[str, ...]:
    """Rules that a unit breaks however it is cut; ``targets``: layers that read it."""
    problems = []
    if unit.weight_bits > core.weight_bits_max:
        problems.append(f"{unit.weight_bits}-bit weights, at most {core.weight_bits_max}")
    if unit.state_bits > core.state_bits_max:
        problems.append(f"{unit.state_bits}-bit state, at most {core.state_bits_max}")
    if core.fan_in_max is not None and unit.connections_per_neuron > core.fan_in_max:
        problems.append(f"fan-in {unit.connections_per_neuron}, at most {core.fan_in_max}")
    if core.destinations_max is not None and targets > core.destinations_max:
        problems.append(f"sends to {targets} layers, at most {core.destinations_max}")
    return tuple(problems)
