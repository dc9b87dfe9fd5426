"""The exported ONNX graph under ONNX Runtime: the reference's integers, from somebody else's kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qkf_deploy.errors import InputError, MissingComponent, told
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.values import Timing
from qkf_deploy.simulators.counting import Account
from qkf_deploy.simulators.run import Progress, Record, Run, is_neuron, keeps_fired

try:
    import onnxruntime
except ImportError as error:  # pragma: no cover - depends on the installation
    raise MissingComponent("onnxruntime is not installed", hint="pip install 'qkf-deploy[onnx]'") from error

from qkf_deploy.converters.onnx.export import build_onnx
from qkf_deploy.options import Form, OnnxOptions, Precision

_WARNINGS_OFF = 3


def open_session(model: bytes, threads: int = 0) -> Any:
    """A CPU session. Float32 convolutions of integers are exact there; on GPUs switch TF32 off.

    Args:
        model: serialized ONNX.
        threads: intra-operator threads, 0 lets the runtime choose.

    Raises:
        InputError: the runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _WARNINGS_OFF
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"ONNX Runtime refuses the model: {told(error)}") from error


@keeps_fired
def run(
    graph: Graph,
    inputs: np.ndarray,
    record: Record = Record(),  # noqa: B008 - frozen
    progress: Progress | None = None,
    *,
    form: Form = "step",
    precision: Precision = "float32",
    threads: int = 0,
) -> Run:
    """Simulate a batch; arguments and result as :func:`qkf_deploy.simulators.reference.run`.

    Args:
        graph: float or integer.
        inputs: as the reference engine takes them.
        record: values and membranes to keep.
        progress: called after each time step (``step``) or once (``sequence``).
        form: which exported form to run.
        precision: element type of float graphs.
        threads: see :func:`open_session`.

    Raises:
        UnsupportedError: the graph has no ONNX form.
    """
    names = [n.name for n in graph if n.op.kind not in ("input", "output")]
    options = OnnxOptions(form, precision, values=names, membranes=sorted(record.membranes))
    session = _session(graph, options, threads)
    if form == "step":
        outputs = run_steps(session, graph, inputs, progress)
    else:
        outputs = run_sequence(session, graph, inputs)
        if progress is not None:
            progress(graph.time_steps, graph.time_steps)
    return _collect(graph, inputs, outputs, record)


#: The last session, so that the batches of one simulation share it: (graph, options, threads, session).
_LAST: list[tuple[Graph, OnnxOptions, int, Any]] = []


def _session(graph: Graph, options: OnnxOptions, threads: int) -> Any:
    for known, same, width, session in _LAST:
        if known is graph and same == options and width == threads:
            return session
    session = open_session(build_onnx(graph, options).SerializeToString(), threads)
    _LAST[:] = [(graph, options, threads, session)]
    return session


def run_steps(
    session: Any, graph: Graph, inputs: np.ndarray, progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """Drive a single-step model over all time steps; outputs by name, ``(T, B, *shape)``."""
    batch = inputs.shape[1]
    states = {i.name: _zeros(i, batch) for i in session.get_inputs() if i.name != "input"}
    carried = [*states, *(i.name for i in session.get_overridable_initializers())]  # these start from what they hold
    names = [o.name for o in session.get_outputs()]
    kept: dict[str, list[np.ndarray]] = {}
    for step in range(graph.time_steps):
        frame = inputs[step if inputs.shape[0] > 1 else 0]
        results = dict(zip(names, session.run(names, {"input": _as_input(session, frame), **states}), strict=True))
        states = {name: results[name.removesuffix("_in") + "_out"] for name in carried}
        for name, value in results.items():
            if not name.endswith(("/membrane_out", "/sum_out", "/step_out")):
                kept.setdefault(name, []).append(value)
        if progress is not None:
            progress(step + 1, graph.time_steps)
    return {name: np.stack(values) for name, values in kept.items()}


def run_sequence(session: Any, graph: Graph, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Run a whole-sequence model once; outputs by name, ``(T or 1, B, *shape)``."""
    batch = inputs.shape[1]
    rows = np.ascontiguousarray(inputs).reshape(-1, *inputs.shape[2:])
    names = [o.name for o in session.get_outputs()]
    values = session.run(names, {"input": _as_input(session, rows)})
    return {name: v.reshape(-1, batch, *v.shape[1:]) for name, v in zip(names, values, strict=True)}


def _as_input(session: Any, x: np.ndarray) -> np.ndarray:
    declared = next(i.type for i in session.get_inputs() if i.name == "input")
    return x.astype(_NUMPY[declared])


_NUMPY: Mapping[str, type] = {
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}


def _zeros(declared: Any, batch: int) -> np.ndarray:
    return np.zeros((batch, *declared.shape[1:]), _NUMPY[declared.type])


def _collect(graph: Graph, inputs: np.ndarray, outputs: Mapping[str, np.ndarray], record: Record) -> Run:
    """Values as the reference engine keeps them, and the ledger counted from them."""
    dtype = np.int64 if graph.arithmetic == "integer" else np.float64
    values: dict[str, np.ndarray] = {graph.input.name: inputs}
    for node in graph:
        if f"{node.name}/value" in outputs:
            values[node.name] = _timed(node, outputs[f"{node.name}/value"]).astype(dtype)
    output = graph.output
    raw = _timed(output, outputs["raw_output" if graph.arithmetic == "integer" else "logits"]).astype(dtype)
    values[output.name] = raw
    logits = _timed(output, outputs["logits"]).astype(np.float64)
    account = Account(graph)
    for node in graph:
        account.enter(node, operands(graph, node, values), values[node.name])
    kept = {name: values[name] for name in graph.nodes if name in record.values}
    return Run(
        logits[0] if logits.shape[0] == 1 else logits,
        raw,
        account.ledger(inputs.shape[1]),
        {k: v for k, v in kept.items() if is_neuron(graph[k].op.kind)},
        kept,
        {name: outputs[f"{name}/charged"].astype(dtype) for name in graph.nodes if name in record.membranes},
    )


def _timed(node: Node, value: np.ndarray) -> np.ndarray:
    """One row for what does not change over time; after the readout only the last step is the result."""
    if node.type.timing is Timing.STEP:
        return value
    return value[-1:] if node.type.timing is Timing.IMAGE else value[:1]


def operands(graph: Graph, node: Node, values: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
    """Operand arrays of a node, views applied."""
    return [values[o.node] if o.view is None else o.view.apply(values[o.node]) for o in node.inputs]
