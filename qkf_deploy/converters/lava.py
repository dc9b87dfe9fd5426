"""Integer graph to a folder with a Lava script: one line of Python per process and connection, and the weights."""

from __future__ import annotations

import io
import keyword
import re
from pathlib import Path

import numpy as np

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Node, ValueType
from qkf_deploy.ir.needs import need_integers
from qkf_deploy.ops import IntegerNeuron
from qkf_deploy.passes.widths import proven
from qkf_deploy.simulators.lava.partition import PROCESS_NAMES, check_causal
from qkf_deploy.writing import new_folder

SCRIPT = "run.py"
WEIGHTS = "weights.npz"
#: Names the script uses itself.
_TAKEN = (
    *("INPUT", "Kind", "Loihi2SimCfg", "Path", "RunSteps", "Sink", "Source", "T", "Timing", "ValueType", "View", "W"),
    *(
        "build",
        "images",
        "int",
        "len",
        "main",
        "np",
        "operators",
        "ops",
        "print",
        "ramp",
        "range",
        "shape",
        "sink",
        "sys",
    ),
)
_HEAD = '''"""A network as {count} Lava processes.

Needs CPython 3.10 with `pip install "qkf-deploy[lava]"`. Runs on the CPU, bit-exact, one Lava time step per
network time step. Every port carries int64 of the shape of one value; a value arrives in the time step in which it was
sent (on a chip each hop takes one time step).

    python run.py                 a ramp as the image
    python run.py images.npy      {wanted}, integers {low} to {high}
"""

import sys
from pathlib import Path

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg

from qkf_deploy import ops
from qkf_deploy.ir import Kind, Timing, ValueType, View
from qkf_deploy.simulators.lava.processes import operators
from qkf_deploy.simulators.lava.processes.endpoints import Sink, Source

T = {steps}
INPUT = {input}
W = np.load(Path(__file__).with_name("{weights}"))


def build(images):
    """Connected processes for images {wanted}; returns the one that takes the logits."""
'''
_TAIL = '''

def main(images):
    """Print the logits (integers) of every image."""
    sink = build(images)
    try:
        for index in range(len(images)):
            sink.run(RunSteps(num_steps=T), Loihi2SimCfg(select_tag="fixed_pt"))
            print(index, *(int(v) for v in sink.value.get().ravel()))
    finally:
        sink.stop()


if __name__ == "__main__":
    shape = {ramp}
    ramp = np.arange(np.prod(shape)).reshape(shape) % {span} + {low}
    main(np.load(sys.argv[1]).astype(np.int64) if len(sys.argv) > 1 else ramp)
'''


def export_lava(graph: Graph, folder: str | Path) -> Path:
    """Write the folder, completely or not at all; returns the path of the script.

    Args:
        graph: integer graph.
        folder: does not exist yet, or is empty.

    Raises:
        UsageError: a float graph.
        UnsupportedError: neurons that carry their membrane from image to image.
        ProofError: widths that do not hold for the weights.
        InputError: the folder has files, or cannot be written.
    """
    _check(graph)
    folder = Path(folder)
    script = _script(graph)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f"{n.name}/{k}": v for n in graph for k, v in n.params.items()})  # type: ignore[arg-type]
    with new_folder(folder) as temporary:
        (temporary / SCRIPT).write_text(script)
        (temporary / WEIGHTS).write_bytes(buffer.getvalue())
    return folder / SCRIPT


def _check(graph: Graph) -> None:
    need_integers(graph, "Lava runs integer graphs")
    proven(graph)
    check_causal(graph)
    carrying = [n.name for n in graph if isinstance(n.op, IntegerNeuron) and n.op.carry == "official"]
    if carrying:
        raise UnsupportedError(
            f"{', '.join(carrying)}: carry-over from image to image within a time step; Lava runs image after image",
            hint="choose carry 'own' or 'stored'",
        )


def _script(graph: Graph) -> str:
    names = identifiers(list(graph.nodes))
    shape = graph.input.type.shape
    lead = (graph.time_steps, *shape) if graph.input_encoding == "frames" else shape
    low, high = graph.input.type.low or 0, graph.input.type.high or 0
    head = _HEAD.format(
        count=len(graph.nodes),
        wanted=f"(B, {', '.join(map(str, lead))})",
        low=low,
        high=high,
        steps=graph.time_steps,
        input=_type(graph.input.type),
        weights=WEIGHTS,
    )
    lines = [f"    {line}" for node in graph for line in _lines(graph, node, names)]
    lines.append(f"    return {names[graph.output.name]}")
    return head + "\n".join(lines) + "\n" + _TAIL.format(ramp=(1, *lead), span=high - low + 1, low=low)


def identifiers(nodes: list[str]) -> dict[str, str]:
    """A Python name for every node, distinct and free."""
    out: dict[str, str] = {}
    used: set[str] = set(_TAKEN)
    for node in nodes:
        name = re.sub(r"\W", "_", node, flags=re.ASCII)
        name = f"n_{name}" if not name or name[0].isdigit() or keyword.iskeyword(name) else name
        while name in used:
            name += "_"
        used.add(name)
        out[node] = name
    return out


def _type(type_: ValueType) -> str:
    kind, timing = f"Kind.{type_.kind.name}", f"Timing.{type_.timing.name}"
    return f"ValueType({type_.shape}, {kind}, {timing}, {type_.high}, {type_.low})"


def _lines(graph: Graph, node: Node, names: dict[str, str]) -> list[str]:
    """The process of a node and its connections."""
    name = names[node.name]
    if node.op.kind == "input":
        data = "images.swapaxes(0, 1)" if graph.input_encoding == "frames" else "images[None]"
        return [f"{name} = Source({data}, time_steps=T, name={node.name!r})"]
    sources = [names[o.node] for o in node.inputs]
    types = ", ".join("INPUT" if o.node == graph.input.name else f"{names[o.node]}.type" for o in node.inputs)
    kind = f"operators.{PROCESS_NAMES[node.op.kind]}" if node.op.kind in PROCESS_NAMES else "Sink"
    arguments = [f"ops.{node.op!r}", f"[{types}]"]
    if node.params and kind != "Sink":
        arguments.append("{" + ", ".join(f'"{k}": W[{node.name + "/" + k!r}]' for k in sorted(node.params)) + "}")
    if any(o.view is not None for o in node.inputs):
        arguments.append(f"views={[o.view for o in node.inputs]!r}")
    call = [f"{name} = {kind}(", *(f"    {a}," for a in arguments), f"    time_steps=T, name={node.name!r},", ")"]
    connections = zip(sources, node.op.ports, strict=True)
    return [*call, *(f"{source}.y.connect({name}.{port})" for source, port in connections)]
