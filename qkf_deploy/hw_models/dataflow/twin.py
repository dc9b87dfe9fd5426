"""The dense quantized twin of a network on the same chip, and the network without a single spike.

The twin has the same layers and reads every input once, with activations of ceil(log2(T + 1)) bits (Yan et al., arXiv
2409.08290): what T binary steps can say. Weights, buffers, tiles and DRAM are the same; it keeps no membranes.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from qkf_deploy.hw_models.activity import ABOVE_ONE, Activity, Bands, NodeActivity
from qkf_deploy.hw_models.architecture.chip import Chip, Core, Operation
from qkf_deploy.hw_models.architecture.ranges import Range
from qkf_deploy.hw_models.dataflow.layer import Layer
from qkf_deploy.hw_models.twins import activation_bits
from qkf_deploy.ir import Graph
from qkf_deploy.ops import MatMul

#: Classes that do not depend on spikes: they happen in silence as well.
_ALWAYS = frozenset({"mac", "bias_adds", "pool_comparisons", "head_macs", "scale_multiplies"})


def twin_layer(graph: Graph, layer: Layer, time_steps: int) -> Layer:
    """The unit with wider values and without membranes."""
    more = activation_bits(time_steps) - 1

    def wider(name: str, bits: int) -> int:
        """A sum of k values is as much wider than one of them as before; pixels are what they are."""
        return bits if name == graph.input.name else bits + graph[name].type.size * more

    synapses = tuple(replace(s, input_bits=wider(graph[s.node].inputs[0].node, s.input_bits)) for s in layer.synapses)
    sources = {name: wider(name, bits) for name, bits in layer.sources.items()}
    return replace(
        layer, synapses=synapses, sources=sources, output_bits=wider(layer.unit.name, layer.output_bits), state_bits=0
    )


def twin_activity(graph: Graph, activity: Activity) -> Activity:
    """One dense step: every multiplication happens, and everything that an image needs once."""
    nodes = {}
    for name, node in activity.nodes.items():
        counts = {c: (sum(row),) for c, row in node.counts.items() if c in _ALWAYS - {"bias_adds", "pool_comparisons"}}
        counts |= {
            c: (max(row),) for c, row in node.counts.items() if c in ("bias_adds", "pool_comparisons", "residual_adds")
        }
        op, updates = graph[name].op, "neuron_updates_driven"
        if isinstance(op, MatMul):
            dense = op.static_cost(graph.input_types(graph[name]), {}).dense_macs
            counts["coincidences"] = (dense * activity.images,)
        if op.kind == "integer_neuron":
            counts[updates] = (graph[name].type.size * activity.images,)  # the activation of every output
        bands = {n: Bands((b.elements * activity.images,), (0,), 0, (0,), b.elements) for n, b in node.bands.items()}
        if bands:
            counts[ABOVE_ONE] = (1,)  # an activation is a number
        nodes[name] = NodeActivity(counts, bands)
    return Activity(1, activity.images, nodes)


def twin_chip(chip: Chip, time_steps: int) -> Chip:
    """Products of weights with few bits: the multiplication grows with the width, its addition does not."""
    return replace(chip, cores=tuple(_twin_core(core, activation_bits(time_steps)) for core in chip.cores))


def _twin_core(core: Core, bits: int) -> Core:
    add, multiply = core.operations.get("accumulate"), core.operations.get("multiply")
    operations = dict(core.operations)
    operations.pop("and", None)  # values of several bits have no population count
    if add is not None and multiply is not None and add.pj is not None and multiply.pj is not None:
        narrow = Range(*(a + max(m - a, Decimal(0)) * bits / 8 for a, m in zip(add.pj, multiply.pj, strict=True)))
        # pixels and the sums of the head keep their width on both sides
        operations |= {"multiply_conv": multiply, "multiply_linear": multiply}
        operations["multiply"] = Operation(narrow, multiply.lanes, multiply.ns, multiply.source)
    return replace(core, operations=operations, dataflows=("dense",))


def silent(activity: Activity) -> Activity:
    """The same network if no neuron ever fired: what is left is what firing cannot save."""
    nodes = {}
    for name, node in activity.nodes.items():
        counts = {c: row if c in _ALWAYS else (0,) * len(row) for c, row in node.counts.items()}
        updates = [node.counts.get(f"neuron_updates_{c}", (0,) * activity.time_steps) for c in ("driven", "idle")]
        if "neuron_updates_idle" in node.counts:
            counts["neuron_updates_idle"] = tuple(a + b for a, b in zip(*updates, strict=True))
        none = (0,) * activity.time_steps
        nodes[name] = NodeActivity(counts, {n: Bands(none, none, 0, none, b.elements) for n, b in node.bands.items()})
    return Activity(activity.time_steps, activity.images, nodes)
