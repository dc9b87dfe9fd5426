"""The network as the page's script draws it: nodes with shape, energy and rate, grouped into blocks."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from qkf_deploy.display.numbers import joules, quantity, rate
from qkf_deploy.hw_models.pricing import EnergyReport
from qkf_deploy.ledger import LayerRecord, Ledger
from qkf_deploy.runs.content import RunFile

_STYLES = {
    "conv": "synapse",
    "linear": "synapse",
    "matmul": "gate",
    "mask": "gate",
    "sum": "gate",
    "neuron": "neuron",
    "integer_neuron": "neuron",
    "add": "add",
    "concat": "add",
}
#: Styles of nodes, and what a legend calls them.
LEGEND = {"synapse": "synapses", "neuron": "neurons", "gate": "attention", "add": "additions", "other": "others"}


def block_of(node: str) -> str:
    """The block that a node belongs to: its first name, and its number in it; empty for a node outside of blocks.

    ``stage1.0.tssa.q_conv`` belongs to ``stage1.0``, ``patch_embed1.proj_conv`` to ``patch_embed1``.
    """
    first, _, rest = node.partition(".")
    number, _, inner = rest.partition(".")
    return "" if not rest else f"{first}.{number}" if inner and number.isdecimal() else first


def network(run: RunFile, report: EnergyReport) -> dict[str, Any]:
    """Nodes and edges as plain data.

    Returns:
        ``nodes``: per node in order of computation ``name``, ``block``, ``style`` and ``lines`` (what stands on it);
        ``edges``: pairs of places among the nodes; ``blocks``: name -> what stands on a closed one.
    """
    energies = {layer.layer: Fraction(layer.energy_pj) / report.images for layer in report.layers}
    records = {layer.name: layer for layer in run.ledger}
    nodes = run.graph["nodes"]
    places = {node["name"]: place for place, node in enumerate(nodes)}
    blocks: dict[str, list[str]] = {}
    for node in nodes:
        blocks.setdefault(block_of(node["name"]), []).append(node["name"])
    blocks = {block: members for block, members in blocks.items() if block and len(members) > 1}
    return {
        "nodes": [
            {
                "name": node["name"],
                "block": block if (block := block_of(node["name"])) in blocks else "",
                "style": _STYLES.get(node["op"], "other"),
                "lines": _lines(node, energies.get(node["name"]), records.get(node["name"]), run.ledger),
            }
            for node in nodes
        ],
        "edges": sorted({(places[source], places[node["name"]]) for node in nodes for source in node["inputs"]}),
        "blocks": {
            block: [
                quantity(len(members), "node"),
                joules(sum((energies.get(m, Fraction(0)) for m in members), Fraction(0))),
            ]
            for block, members in blocks.items()
        },
    }


def _lines(node: Mapping[str, Any], energy: Fraction | None, layer: LayerRecord | None, ledger: Ledger) -> list[str]:
    """Operator and shape, energy, firing rate."""
    found = [f"{node['op']} {' × '.join(map(str, node['shape']))}"]
    if energy:
        found.append(joules(energy))
    if layer is not None and layer.spikes_per_step is not None and "resets" in layer.counts:
        spikes = sum(int(v) for v in layer.spikes_per_step.ravel())
        found.append(f"rate {rate(Fraction(spikes, layer.output_size * ledger.images * ledger.time_steps))}")
    return found
