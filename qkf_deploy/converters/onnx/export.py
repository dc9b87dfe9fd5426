"""Graph to ONNX: standard operators only, as one step with the membranes as state, or as a whole sequence.

Single-step form: inputs ``input`` and one state per neuron (``<node>/membrane_in``) and readout (``<node>/sum_in``),
all zero before the first step; outputs the states after the step and the logits so far. After T steps the logits are
the network's. Whole-sequence form: one call runs all T steps; synapses see the steps stacked along the batch axis.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qkf_deploy.converters.onnx.builder import OnnxWriter, Tensor, onnx
from qkf_deploy.converters.onnx.emission import Emission, operator
from qkf_deploy.converters.onnx.ops import LOWERINGS
from qkf_deploy.errors import QkfError, UnsupportedError
from qkf_deploy.ir import Graph, Node
from qkf_deploy.ir.values import Timing
from qkf_deploy.ops import Input, Output
from qkf_deploy.options import OnnxOptions
from qkf_deploy.passes.widths import proven
from qkf_deploy.writing import write_atomically

#: ai.onnx opset 17 with IR version 8: understood by onnxruntime 1.12 and later.
OPSET = 17
IR_VERSION = 8
_FLOAT_TYPES = {"float32": onnx.TensorProto.FLOAT, "float64": onnx.TensorProto.DOUBLE}


def export_onnx(graph: Graph, path: str | Path, options: OnnxOptions | None = None) -> None:
    """Write a checked ONNX file.

    Raises:
        UnsupportedError: nodes that ONNX cannot say exactly, all of them listed.
        ProofError: widths that do not hold for the weights.
        InputError: the place cannot be written.
    """
    write_atomically(Path(path), build_onnx(graph, options).SerializeToString())


def build_onnx(graph: Graph, options: OnnxOptions | None = None) -> onnx.ModelProto:
    """The ONNX model, checked by ``onnx.checker`` with full shape inference.

    Inputs and outputs have a symbolic first dimension ``batch`` (``steps_x_batch`` for T stacked steps, step-major).
    Integer graphs return ``raw_output`` (int64) and ``logits`` (float64: integer times scale); float graphs ``logits``.

    Raises:
        UnsupportedError: nodes that ONNX cannot say exactly, all of them listed.
    """
    options = options or OnnxOptions()
    emission = _emit(graph, options)
    _expose(emission, options)
    writer = emission.writer
    body = onnx.helper.make_graph(writer.nodes, "qkf_deploy", writer.inputs, writer.outputs, writer.initializers)
    model = onnx.helper.make_model(
        body, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="qkf-deploy"
    )
    onnx.helper.set_model_props(model, _metadata(graph, options))
    onnx.checker.check_model(model, full_check=True)
    return model


def _metadata(graph: Graph, options: OnnxOptions) -> dict[str, str]:
    notes = {
        "qkf.form": options.form,
        "qkf.time_steps": str(graph.time_steps),
        "qkf.input_encoding": graph.input_encoding,
        "qkf.arithmetic": graph.arithmetic,
    }
    if graph.class_names:
        notes["qkf.class_names"] = ", ".join(graph.class_names)
    return notes | {f"qkf.provenance.{k}": v for k, v in graph.provenance.items()}


def _emit(graph: Graph, options: OnnxOptions) -> Emission:
    """Lower every node; collect every refusal before raising."""
    stateful = options.form == "step"
    emission = Emission(
        graph,
        OnnxWriter(),
        1 if stateful else graph.time_steps,
        stateful,
        _FLOAT_TYPES[options.precision],
        proven(graph),
    )
    problems: list[str] = []
    for node in graph:
        if any(o.node not in emission.values for o in node.inputs):
            continue  # follows a node that was refused
        try:
            emission.values[node.name] = _lower(emission, node)
        except UnsupportedError as error:
            problems.append(f"{error.where or node.name}: {error.message}")
    if problems:
        raise UnsupportedError("ONNX cannot say this network exactly:\n  " + "\n  ".join(problems))
    return emission


def _lower(emission: Emission, node: Node) -> Tensor:
    if isinstance(node.op, Input):
        return _input(emission, node)
    if node.op.kind not in LOWERINGS:
        raise UnsupportedError(f"{node.op.kind} has no ONNX form here", where=node.name)
    return LOWERINGS[node.op.kind](emission, node)


def _input(emission: Emission, node: Node) -> Tensor:
    op = operator(node, Input)
    steps = emission.steps_of(node)
    dtype = emission.dtype(node)
    integers = onnx.TensorProto.UINT8 if op.format == "bytes" else onnx.TensorProto.INT32
    declared = integers if emission.integer else dtype
    name = emission.writer.add_input("input", declared, (_rows(steps), *op.shape))
    return Tensor(name if declared == dtype else emission.writer.cast(name, dtype), dtype, steps)


def _rows(steps: int) -> str:
    return "batch" if steps == 1 else "steps_x_batch"


def _expose(emission: Emission, options: OnnxOptions) -> None:
    """Logits and whatever else was asked for as outputs."""
    graph, writer = emission.graph, emission.writer
    output = graph.output
    value = emission.values[output.name]
    steps = emission.steps if output.type.timing is Timing.STEP else 1
    shape = (_rows(steps), *output.type.shape)
    if emission.integer:
        _expose_integer(emission, output, value, shape)
    else:
        writer.add_output(value.name, "logits", value.dtype, shape)
        _expose_parts(emission, value.name, value.dtype, shape[0])
    for name in options.values:
        _expose_tensor(emission, name, "value", emission.values[name])
    for name in options.membranes:
        _expose_tensor(emission, name, "charged", emission.membranes[name])


def _expose_integer(emission: Emission, output: Node, value: Tensor, shape: tuple[int | str, ...]) -> None:
    writer, double = emission.writer, onnx.TensorProto.DOUBLE
    writer.add_output(writer.cast(value.name, onnx.TensorProto.INT64), "raw_output", onnx.TensorProto.INT64, shape)
    real = writer.carried(value, double)
    if isinstance(output.op, Output) and "scale" in output.params:
        scale = writer.constant(output.params["scale"].astype(np.float64), "logits.scale")
        real = writer.op("Mul", [real, scale], "logits.scaled")
    writer.add_output(real, "logits", double, shape)
    _expose_parts(emission, real, double, shape[0])


def _expose_parts(emission: Emission, logits: str, dtype: int, rows: int | str) -> None:
    """Each of several outputs as one of its own, ``output/NAME``."""
    writer = emission.writer
    for part in emission.graph.parts:
        ends = [writer.ints([n]) for n in (part.start, part.start + part.size, 1)]
        cut = writer.op("Slice", [logits, *ends], f"logits.{part.name}")
        value = writer.reshape(cut, (-1, *part.shape), f"logits.{part.name}")
        writer.add_output(value, f"output/{part.name}", dtype, (rows, *part.shape))


def _expose_tensor(emission: Emission, node: str, what: str, tensor: Tensor) -> None:
    shape = (_rows(tensor.steps), *emission.graph[node].type.shape)
    dtype = onnx.TensorProto.INT64 if emission.integer else tensor.dtype
    name = tensor.name if dtype == tensor.dtype else emission.writer.cast(tensor.name, dtype)
    emission.writer.add_output(name, f"{node}/{what}", dtype, shape)


def unsupported_reasons(graph: Graph) -> list[str]:
    """Why this graph cannot be exported, one line per node; empty if it can."""
    try:
        _emit(graph, OnnxOptions())
    except QkfError as error:
        return error.message.splitlines()
    return []
