"""The digits network in other people's tools, value by value: the table of ``docs/interchange.md``.

Each tool runs in an environment of its own that also has this package with ``torch`` and ``nir`` (norse and sinabs are
installed with ``--no-deps``, sinabs with ``pbr``)::

    python tools/foreign_tools.py spikingjelly=python snntorch=python norse=norse/bin/python sinabs=sinabs/bin/python \
        spyx=spyx/bin/python

Every row is what ``export --chains --check`` does, in that environment. A minimal file shows what a tool does otherwise
than NIR defines it. Exits with 1 if a value differs, or a tool that runs our files compared nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "interchange.md"
MARKS = ("<!-- made by tools/foreign_tools.py -->\n", "<!-- end -->")
NETWORKS = ("float", "integer")
#: What `export --chains --check` does, for one tool.
CHECK = """
import dataclasses, json, pathlib, sys
from qkf_deploy.converters.export_check import check_parts, sample_images
from qkf_deploy.converters.nir.chains import CHAINS
from qkf_deploy.converters.nir.clients import CLIENTS
from qkf_deploy.converters.nir.partition import load_parts
tool, *names = sys.argv[1:]
client, results = {tool: {**CLIENTS, **CHAINS}[tool]}, {}
for name in names:
    folder = pathlib.Path(name)
    (result,) = check_parts(folder, sample_images(load_parts(folder)[0].graph), client)
    results[name] = dataclasses.asdict(result)
print(json.dumps(results))
"""
#: What each takes of our files, how it reads dt, r, reset and threshold, and how to use it with our files.
TRAITS = {
    "spikingjelly": ("graphs; one threshold for all neurons of a node", "argument, 1e-4", "as NIR", "to v_reset",
                     "at; one for all", "any"),
    "snntorch": ("graphs; one threshold for all neurons of a node", "fixed, 1e-4", "as NIR; IF: 1", "to 0 or subtract",
                 "above; one for all", "any"),
    "norse": ("chains (values that meet are dropped); no pools but SumPool2d", "argument, 1e-3", "ignored", "to 0",
              "above; per neuron", "`--chains`, then `for_norse`"),
    "sinabs": ("chains (values that meet are dropped); no pools but SumPool2d", "tau counts steps, exp decay",
               "ignored", "subtract; set `reset_fn`", "at; per neuron", "`--chains`, then `for_sinabs`"),
    "spyx": ("chains", "argument, 1", "ignored", "subtract, one step late; no other", "above; per neuron",
             "none: it has no reset to 0"),
}  # fmt: skip
#: Tool -> program that prints what NIR defines and what the tool computes for a file of a few nodes.
MINIMAL = {
    "norse": "values that meet: 1 + 2 + 4",
    "sinabs": "values that meet: 1 + 2 + 4",
    "spyx": "one LIF, tau 2 steps, threshold 0.5, reset to 0, input 4 in the first step only: its spikes",
}
MEET = """
import nir, numpy as np, torch
one = np.ones((1, 1), np.float32)
def gain(g): return nir.Affine(weight=one * g, bias=np.zeros(1, np.float32))
shape = np.array([1])
nodes = {"input": nir.Input({"input": shape}), "a": gain(1), "b": gain(2), "c": gain(4), "d": gain(1),
         "output": nir.Output({"output": shape})}
edges = [("input", "a"), ("input", "b"), ("input", "c"), ("a", "d"), ("b", "d"), ("c", "d"), ("d", "output")]
graph = nir.NIRGraph(nodes, edges)
"""
PROGRAMS = {
    "norse": MEET + "import norse.torch as nt; y = nt.from_nir(graph)(torch.ones(1, 1))[0]; print(7, '|', float(y))",
    "sinabs": MEET + "import sinabs.nir as s; y = s.from_nir(graph, batch_size=1)(torch.ones(1, 1));"
    "print(7, '|', float(y[0] if isinstance(y, tuple) else y))",
    "spyx": """
import nir, numpy as np, jax.numpy as jnp
from spyx.nir import from_nir
f = lambda v: np.full((1,), v, np.float32)
shape = np.array([1])
nodes = {"input": nir.Input({"input": shape}), "a": nir.Affine(weight=np.ones((1, 1), np.float32), bias=f(0)),
         "b": nir.LIF(tau=f(2), r=f(1), v_leak=f(0), v_threshold=f(0.5), v_reset=f(0)),
         "output": nir.Output({"output": shape})}
graph = nir.NIRGraph(nodes, [("input", "a"), ("a", "b"), ("b", "output")])
v, want = 0.0, []
x = np.array([4.0, 0, 0, 0, 0, 0], np.float32)
for now in x:
    v += (now - v) / 2
    want.append(int(v > 0.5)); v = 0.0 if want[-1] else v
got = np.asarray(from_nir(graph, jnp.asarray(x).reshape(6, 1, 1), dt=1)[1]).ravel().astype(int)
print(*want, '|', *got)
""",
}


def sh(python: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([python, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def export(folder: Path) -> None:
    """The bundled network, float and with 8 bits; NIR has no bias that depends on the border, so pixels are fixed."""
    import qkf_deploy as qd

    graph = qd.fold(qd.trace(ROOT / "qkf_deploy" / "models" / "qkformer_digits.safetensors"))
    for name, network in zip(NETWORKS, (graph, qd.quantize(graph, 8, input="fixed")), strict=True):
        qd.export_nir(network, folder / name, "chains")


def checked(tool: str, python: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What a tool computes of each network, by its name."""
    done = sh(python, "-c", CHECK, tool, *NETWORKS, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{tool}: {done.stderr}")
    return json.loads(done.stdout)


def told(row: dict[str, Any]) -> str:
    if row.get("refused"):
        return "refused: " + row["refused"].split(": ", 1)[-1][:70].replace("|", "/").replace("\n", " ")
    return f"{row['different']:,} of {row['compared']:,}"


def main() -> int:
    pythons = dict(argument.split("=", 1) for argument in sys.argv[1:])
    lines, faults, good = [], [], True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        export(folder)
        for tool, python in pythons.items():
            found = sh(
                python,
                "-c",
                f"import importlib.metadata as m; print(m.version({tool!r}), m.version('nir'))",
                cwd=folder,
            ).stdout.split()
            takes, dt, r, reset, threshold, use = TRAITS[tool]
            results = {}
            if tool != "spyx":
                results = checked(tool, python, folder)
                good &= results["float"].get("different") == 0 and results["float"]["compared"] > 0
                good &= not results["integer"].get("different")
            float_, integer = (told(results[n]) if results else "not run" for n in NETWORKS)
            lines.append(
                f"| {tool} {found[0]} | {takes} | {dt} | {r} | {reset} | {threshold} | {use} | {float_} | {integer} |"
            )
            if tool in PROGRAMS:
                done = sh(python, "-c", PROGRAMS[tool], cwd=folder)
                said = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()[-80:] + " |"
                want, _, got = (part.strip() for part in said.partition("|"))
                faults.append(f"| {tool} | {MINIMAL[tool]} | {want} | {got} |")
    text = (
        f"nir {importlib.metadata.version('nir')}, nirtorch {importlib.metadata.version('nirtorch')}; values compared "
        "at the cuts, on four random images.\n\n"
        "| tool | takes | dt | r | reset | fires | our files | digits, float: different | digits, 8 bits: different |\n"
        "|:--|:--|:--|:--|:--|:--|:--|:--|:--|\n" + "\n".join(lines) + "\n\nWhat a tool does otherwise, in a file of "
        "a few nodes (they are in `tools/foreign_tools.py`):\n\n"
        "| tool | file | NIR defines | the tool computes |\n|:--|:--|:--|:--|\n" + "\n".join(faults) + "\n"
    )
    head, _, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text(head + MARKS[0] + text + MARKS[1] + rest.split(MARKS[1])[1])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
