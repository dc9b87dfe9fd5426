"""A network as a table of its layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.tables import Field, Sheet, tabulate

if TYPE_CHECKING:
    from qkf_deploy.ir import Graph
    from qkf_deploy.passes.layers import Layer


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _counted(key: str, title: str, value: Callable[[Layer], int]) -> Field[Layer]:
    """A sum of numbers, with nothing where there are none."""
    return Field(key, title, lambda layer: value(layer) or None, total=lambda layers: sum(map(value, layers)))


_FIELDS: tuple[Field[Layer], ...] = (
    Field("layer", "layer", lambda layer: layer.name, left=True),
    Field("type", "type", lambda layer: layer.kind, left=True),
    Field("input", "input", lambda layer: ", ".join(layer.inputs), left=True),
    Field("shape_in", "shape in", lambda layer: ", ".join(map(_shape, layer.input_shapes)), left=True),
    Field("shape_out", "shape out", lambda layer: _shape(layer.output_shape), left=True),
    _counted("parameters", "parameters", lambda layer: layer.parameters),
    _counted("dense_macs_per_step", "dense MACs / step", lambda layer: layer.dense_macs),
    _counted("border_exact_macs_per_step", "existing taps only", lambda layer: layer.border_exact_macs),
    Field("accumulator_bits", "acc bits", lambda layer: layer.accumulator_bits),
    Field("membrane_bits", "U bits", lambda layer: layer.membrane_bits),
    Field("audit", "audit", lambda layer: layer.audit, left=True),
)


def layer_sheet(graph: Graph, layers: Sequence[Layer]) -> Sheet:
    """One row per node."""
    return tabulate(f"{graph.arithmetic} graph, T={graph.time_steps}", _FIELDS, layers)


def carried(graph: Graph) -> list[str]:
    """Where the model merged time with the batch, layers of one name together, and what this network does there."""
    places: dict[tuple[str, str], int] = {}
    for node in graph:
        if getattr(node.op, "time_merged_with_batch", False):
            place = re.sub(r"\.\d+\.", ".*.", node.name), getattr(node.op, "carry", "own")
            places[place] = places.get(place, 0) + 1
    return [
        f"{place}: time axis merged with batch ({quantity(count, 'neuron')}); released accuracy assumes batches; "
        f"carry {mode} here"
        for (place, mode), count in places.items()
    ]


def facts(graph: Graph, gates: Sequence[str]) -> str:
    """What a network says of itself, and its memoryless neurons: the lines under the table."""
    lines = [f"{key}: {value}" for key, value in graph.provenance.items()]
    if graph.preprocessing and graph.preprocessing.resize:
        resize, (_, height, width) = graph.preprocessing.resize, graph.input.type.shape
        size = f"shorter side to {resize.shorter} pixels ({resize.interpolation}), centre {width} x {height}"
        lines.append(f"image files: {size}")
    if graph.preprocessing:
        lines.append(f"pixels: (byte / 255 - {graph.preprocessing.mean}) / {graph.preprocessing.std}")
    lines += carried(graph)
    if gates:
        lines.append(f"memoryless (OR) neurons: {', '.join(gates)}")
    lines += graph.assumed
    lines += [f"note: {text}" for text in graph.notices]
    return "\n".join(lines)
