"""Traces published model files and proves what was traced: the table of docs/public-models.md.

    python tools/public_models.py CLONES [--only TEXT] [--output docs/public-models.md]

CLONES holds the repositories that public_models.toml names, as ``OWNER__NAME`` (`git clone
https://github.com/OWNER/NAME CLONES/OWNER__NAME` and `git checkout COMMIT`); none of their code is part of this
project. Each model runs in a process of its own, with random weights and batch norms that make it fire:

1. traced as `qkf-deploy trace` does, from its own file or from the few lines shown;
2. every neuron output of the float graph against the torch model in float64, equality;
3. quantized to 8 bits: logits and counts of the reference, the event and the torch engine, equality, and priced.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import tomllib

TABLE = Path(__file__).with_name("public_models.toml")
#: Seconds per model.
LIMIT = 600


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of public_models.toml.

    Attributes:
        repository, commit, file: where it is published.
        name: how the table calls it.
        factory: function or class of the file.
        arguments: of the factory; ``module:name`` is that object.
        lines: instead of ``factory``: Python that defines ``build()``, with the file's folder in the import path.
        beside: further folders of the import path, below CLONES.
        options: of :func:`qkf_deploy.trace`.
        bits: per weight of the integer network.
        gain: factor on all weights, for models that are silent without batch norms.
        norms: false: batch norms stay as they are built; a random one of a membrane has thresholds of either sign.
        refused: why no form exists; empty where the model works.
    """

    repository: str
    commit: str
    file: str
    name: str
    factory: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    lines: str = ""
    beside: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    bits: int = 8
    gain: float = 1.0
    norms: bool = True
    refused: str = ""

    @property
    def folder(self) -> str:
        """Of the clone."""
        return self.repository.replace("/", "__")


@dataclass(frozen=True)
class Result:
    """What became of a model.

    Attributes:
        problem: why it is not proven; empty where everything is equal.
        refused: True if the tracer or the quantizer said so, with a typed error.
        neurons, outputs, spikes, differ: neurons, their outputs over one image, those that fire, those that differ.
        logits: largest difference of the float logits.
        engines: that gave equal integers.
        seconds: in all; of tracing.
    """

    problem: str = ""
    refused: bool = False
    neurons: int = 0
    outputs: int = 0
    spikes: int = 0
    differ: int = 0
    logits: float = 0.0
    engines: tuple[str, ...] = ()
    seconds: float = 0.0
    tracing: float = 0.0


def models() -> list[Model]:
    """Rows of the table."""
    with TABLE.open("rb") as file:
        content = tomllib.load(file)
    commits = content["commits"]
    return [
        Model(commit=commits[row["repository"]], **{k: tuple(v) if k == "beside" else v for k, v in row.items()})
        for row in content["model"]
    ]


# -- one model, in a process of its own ---------------------------------------------------------------------------


def prove(model: Model, clones: Path) -> Result:
    """Trace, compare, quantize, run."""
    from qkf_deploy.errors import QkfError

    commit = subprocess.run(
        ["git", "-C", str(clones / model.folder), "rev-parse", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if commit != model.commit:
        return Result(f"the clone is at {commit}")
    try:
        return _proven(model, clones)
    except QkfError as error:
        text = str(error).replace(f"{clones.absolute()}/", "")
        return Result(" ".join(text.split()), refused=True)


def _proven(model: Model, clones: Path) -> Result:
    import numpy as np

    import qkf_deploy as qd
    from qkf_deploy.converters.torch.run import torch_oracle
    from qkf_deploy.evaluation.agreement import compare_chain
    from qkf_deploy.options import TraceOptions
    from qkf_deploy.pipeline.networks import resolve_source, trace_source

    with tempfile.TemporaryDirectory() as scratch:
        text = _source(model, clones, Path(scratch))
        options = TraceOptions(**{"preset": "none", "factory_arguments": dict(model.arguments), **model.options})
        source = resolve_source(text, options)
        images = _images(source)
        _awake(source, images, model)
        images = images[:1]
        start = time.monotonic()
        graph = qd.fold(trace_source(source))
        tracing = time.monotonic() - start
        (found,) = compare_chain(torch_oracle(source, graph), (graph,), images)
    integer = qd.quantize(graph, model.bits)
    runs = {engine: qd.simulate(integer, images, engine=engine) for engine in ("reference", "event", "torch")}
    first = runs["reference"]
    qd.price(first.ledger)
    equal = tuple(
        name
        for name, run in runs.items()
        if np.array_equal(run.raw_output, first.raw_output) and run.ledger.to_dict() == first.ledger.to_dict()
    )
    differ = found.differ_free + found.differ_forced
    problem = f"{differ} neuron outputs differ" if differ else "" if len(equal) == len(runs) else "engines differ"
    spikes = sum(layer.spikes for layer in found.layers)
    if not problem and not spikes:
        problem = "no neuron fires"
    return Result(
        problem, False, len(found.layers), found.outputs, spikes, differ, float(found.logit_difference), equal, 0.0,
        tracing,
    )  # fmt: skip


def _source(model: Model, clones: Path, scratch: Path) -> str:
    """``file.py:factory``; of ``lines``, a file that holds them."""
    file = (clones / model.folder / model.file).absolute()
    sys.path[:0] = [str((clones / place).absolute()) for place in model.beside]
    if not model.lines:
        return f"{file}:{model.factory}"
    sys.path.insert(0, str(file.parent))
    made = scratch / "shown_factory.py"
    made.write_text(model.lines, encoding="utf-8")
    return f"{made}:build"


def _images(source: Any) -> Any:
    """Two random images of bytes; event frames of counts 0..2."""
    import numpy as np

    rng = np.random.default_rng(0)
    if source.layout == "frames":
        return rng.integers(0, 3, (2, source.time_steps, *source.shape)).astype(np.float32)
    return rng.integers(0, 256, (2, *source.shape)).astype(np.uint8)


def _awake(source: Any, images: Any, model: Model) -> None:
    """Random batch norms with the statistics of these images; only their numbers reach the model itself."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from qkf_deploy.converters.torch.run import _tensor
    from qkf_deploy.converters.torch.trace.capture import quiet
    from qkf_deploy.converters.torch.untouched import listed, undisturbed, working_copy
    from qkf_deploy.models import calibrate_batchnorm, randomize_norms

    with torch.no_grad():
        for parameter in source.model.parameters() if model.gain != 1.0 else ():
            parameter.mul_(model.gain)
    if not model.norms or not any(isinstance(m, _BatchNorm) for m in source.model.modules()):
        return
    randomize_norms(source.model)
    copied = working_copy(source.model)
    x = _tensor(images, source).to(next(source.model.parameters()).dtype)

    @undisturbed()
    def run() -> None:
        with source.imports.active(), quiet(), listed(copied):
            calibrate_batchnorm(copied, x)

    run()
    state = source.model.state_dict()
    state.update({k: v for k, v in copied.state_dict().items() if k.rpartition(".")[2].startswith("running_")})
    source.model.load_state_dict(state)


# -- all of them --------------------------------------------------------------------------------------------------


def results(chosen: list[Model], clones: Path) -> Iterator[tuple[Model, Result]]:
    """Each in a process of its own, which what has been imported is copied into."""
    context = multiprocessing.get_context("forkserver")
    ours = ["qkf_deploy.converters.torch.run", "qkf_deploy.simulators.event"]
    context.set_forkserver_preload([*ours, "torch.export", "spikingjelly.activation_based.neuron"])
    for model in chosen:
        answer, ours = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(model, clones, ours))
        start = time.monotonic()
        process.start()
        ours.close()
        result = Result(f"took more than {LIMIT} s")
        if answer.poll(LIMIT):
            try:
                result = answer.recv()
            except EOFError:
                process.join()
                result = Result(f"its process ended with {process.exitcode}")
        process.kill()
        result = replace(result, seconds=time.monotonic() - start)
        sys.stderr.write(f"{model.name}: {result.problem or 'proven'} ({result.seconds:.1f} s)\n")
        yield model, result


def _child(model: Model, clones: Path, answer: Connection) -> None:
    try:
        result = prove(model, clones)
    except Exception as error:  # noqa: BLE001 - a row of the table says what happened
        traceback.print_exc()
        result = Result(f"{type(error).__name__}: {error}")
    answer.send(result)


def page(rows: list[tuple[Model, Result]]) -> str:
    """The Markdown page."""
    works = [(m, r) for m, r in rows if not m.refused]
    refused = [(m, r) for m, r in rows if m.refused]
    outputs = sum(r.outputs for _, r in works)
    lines = [
        "# Public models",
        "",
        "Written by `python tools/public_models.py CLONES --output docs/public-models.md`, which reads",
        "`tools/public_models.toml` (repository, commit, file, factory, sizes; some need `pip install einops`). Each",
        "file is used as published, with random weights, on one or two small random images. *Outputs*: all values of",
        "all neurons and time steps, compared with the torch model in float64; *differ*: those that are not equal.",
        "*Engines*: the integer network gives the same logits and the same counts in the reference, the event and the",
        "torch engine.",
        "",
        f"{len(works)} models, {outputs:,} neuron outputs, {sum(r.differ for _, r in works)} differ; "
        f"{len(refused)} refused.",
        "",
        "| model | repository, file, commit | traced with | neurons | outputs | firing | differ | engines | s |",
        "|:--|:--|:--|--:|--:|--:|--:|:--|--:|",
    ]
    lines += [_proven_line(m, r) for m, r in works]
    lines += [
        "",
        "## Refused",
        "",
        "| model | repository, file, commit | why | what the tool says |",
        "|:--|:--|:--|:--|",
    ]
    lines += [f"| {m.name} | {_place(m)} | {m.refused} | {_cell(r.problem, 400)} |" for m, r in refused]
    shown = [m for m, _ in rows if m.lines]
    if shown:
        lines += ["", "## Factories", "", "Files without a function or class that builds the model from its arguments."]
    for m in shown:
        lines += ["", f"{m.name}:", "", "<!-- not run: needs a clone -->", "```python", m.lines.strip(), "```"]
    return "\n".join(lines) + "\n"


def _proven_line(m: Model, r: Result) -> str:
    rate = f"{r.spikes / r.outputs:.3f}" if r.outputs else ""
    engines = f"equal, {m.bits} bits" if len(r.engines) == 3 else _cell(r.problem, 200)
    cells = [m.name, _place(m), _with(m), r.neurons, f"{r.outputs:,}", rate, r.differ, engines, f"{r.seconds:.0f}"]
    return "| " + " | ".join(str(c) for c in cells) + " |"


def _place(m: Model) -> str:
    return f"{m.repository} `{m.file}` {m.commit[:10]}"


def _with(m: Model) -> str:
    given = {**m.arguments, **{k: v for k, v in m.options.items() if k != "preset"}}
    what = "factory below" if m.lines else f"`{m.factory}`"
    return f"{what} {_cell(', '.join(f'{k}={v}' for k, v in given.items()), 300)}".strip()


def _cell(text: str, most: int) -> str:
    text = text.replace("|", "/").replace("<", "&lt;").replace("\n", " ")
    return text if len(text) <= most else f"{text[:most]} ..."


def main() -> int:
    """Exit status 1 where a model that should work does not, or one that should be refused is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path)
    parser.add_argument("--only", default="", help="models whose name, repository or file contains this")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--results", type=Path, help="JSON file; models that it has are not run again")
    given = parser.parse_args()
    chosen = [m for m in models() if given.only.lower() in f"{m.name} {m.repository} {m.file}".lower()]
    known: dict[str, Any] = json.loads(given.results.read_text()) if given.results and given.results.exists() else {}
    for model, result in results([m for m in chosen if repr(m) not in known], given.clones):
        known[repr(model)] = asdict(result)
        if given.results:
            given.results.write_text(json.dumps(known), encoding="utf-8")
    rows = [(m, Result(**known[repr(m)])) for m in chosen]
    text = page(rows)
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return int(any(r.refused != bool(m.refused) or (r.problem and not m.refused) for m, r in rows))


if __name__ == "__main__":
    sys.exit(main())
