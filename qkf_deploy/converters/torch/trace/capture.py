"""From a torch module to a flat list of calls: `torch.export` with every spiking neuron as one opaque call."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Container, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from qkf_deploy.converters.torch.trace.neurons import NeuronModule, recognize
from qkf_deploy.converters.torch.trace.places import basename, escaped, is_library, named_modules, place_of, raised
from qkf_deploy.converters.torch.trace.statistics import FILLINGS, stand_ins
from qkf_deploy.converters.torch.untouched import listed, working_copy
from qkf_deploy.errors import UnsupportedError

#: Shapes are traced with two images, so that the batch axis differs from every axis of size 1. Nothing is computed.
TRACE_BATCH = 2


@torch.library.custom_op("qkf_deploy::neuron", mutates_args=())
def _neuron(x: torch.Tensor, path: str) -> torch.Tensor:
    return torch.zeros_like(x)  # of constants, in a run on shapes alone


@_neuron.register_fake
def _(x: torch.Tensor, path: str) -> torch.Tensor:
    return torch.empty_like(x)


#: A missing Triton (not used here), and the traceback of a failed shape rule (the exception says it too).
_LOGGERS = ("torch._library.triton", "torch._subclasses.fake_tensor", "torch.export", "torch._dynamo")
NEURON_CALL = "qkf_deploy.neuron.default"
#: Constants that take their shape or type from a tensor, with their value, or the place of the argument that it is.
_FILLED: Mapping[str, float | int] = {
    "aten.zeros_like.default": 0.0, "aten.new_zeros.default": 0.0, "aten.ones_like.default": 1.0,
    "aten.new_ones.default": 1.0, "aten.full_like.default": 1, "aten.new_full.default": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One operation of the exported program.

    Attributes:
        name: unique name of its result.
        target: e.g. ``aten.conv2d.default`` or :data:`NEURON_CALL`.
        args, kwargs: constants, and :class:`Ref` for results of other calls, inputs and parameters.
        path: path of the module that made the call.
        is_module: True if that module has no children (its path names the operation).
        source: ``file:line``, may be empty.
    """

    name: str
    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    path: str
    is_module: bool
    source: str

    def references(self) -> list[str]:
        """Names of the tensors among its arguments, in order."""
        return [r.name for r in _flat((self.args, list(self.kwargs.values()))) if isinstance(r, Ref)]

    def constants(self, traced: Container[str], same: Mapping[str, str]) -> tuple[Any, ...]:
        """Its arguments that do not depend on the input, as something that compares equal for equal calls; ``same``
        names one of the tensors that are computed alike."""
        given = (a for a in _flat((self.args, sorted(self.kwargs.items()))) if not _is_in(a, traced))
        return tuple(same.get(a.name, a.name) if isinstance(a, Ref) else repr(a) for a in given)


@dataclass(frozen=True)
class Ref:
    """A tensor by name."""

    name: str


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _is_in(value: Any, traced: Container[str]) -> bool:
    return isinstance(value, Ref) and value.name in traced


@dataclass(frozen=True)
class Program:
    """A captured module.

    Attributes:
        calls: in execution order.
        input: name of the user input.
        outputs: names of the results.
        output_names: what the model calls them; empty where that is not known.
        tensors: parameters, buffers and constants by name.
        shapes: traced shape of every tensor by name.
        neurons: by module path.
        modules: paths of all modules.
        notices: what the user should read.
        written: neurons found in the arithmetic of the program, by path.
        refused: calls that fire like a neuron and are none, by name.
        membranes: calls that compute membranes of these.
    """

    calls: tuple[Call, ...]
    input: str
    outputs: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    neurons: Mapping[str, NeuronModule]
    modules: frozenset[str]
    notices: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    refused: Mapping[str, UnsupportedError] = field(default_factory=dict[str, UnsupportedError])
    output_names: tuple[str, ...] = ()
    membranes: frozenset[str] = frozenset()

    def is_same(self, other: Program) -> bool:
        """True for the same calls on the same shapes and constants."""
        alike = (self.calls, self.outputs, self.shapes) == (other.calls, other.outputs, other.shapes)
        return (
            alike
            and set(self.tensors) == set(other.tensors)
            and all(torch.equal(tensor, other.tensors[name]) for name, tensor in self.tensors.items())
        )


def capture(model: torch.nn.Module, input_shape: tuple[int, ...]) -> Program:
    """Export a module in evaluation mode.

    Args:
        model: any module; a copy of it is exported.
        input_shape: of the example input, including the batch (and time) axis.

    Raises:
        InputError: weights without values.
        UnsupportedError: neurons without an exact form (all of them at once), or a model `torch.export` cannot capture.
    """
    with stand_ins() as given:
        exported, copied, neurons = export(model, input_shape)
    program = _program(copied, exported, neurons)
    for filling in FILLINGS[1:] if given else ():
        with stand_ins(filling):
            exported, copied, neurons = export(model, input_shape)
        if not program.is_same(_program(copied, exported, neurons)):
            raise UnsupportedError(
                "what the model computes in NumPy while it runs reaches its output, or decides what it does",
                hint="compute it in torch, or leave it out in evaluation mode",
            )
    said = "what the model computes in NumPy while it runs is left out: whatever it is, the program is the same"
    return replace(program, notices=(said,) if given else ())


def export(
    model: torch.nn.Module, input_shape: tuple[int, ...]
) -> tuple[torch.export.ExportedProgram, torch.nn.Module, dict[str, NeuronModule]]:
    """As :func:`capture`: torch's own program, the copy it is of, and the opaque neurons by path."""
    with contextlib.suppress(Exception, SystemExit):  # what is wrong is said below, with its place
        run_on_shapes(working_copy(model), input_shape)
    model = working_copy(model)
    neurons = make_opaque(model)
    # The exporter cannot follow a model that reshapes its very input in place (x.unsqueeze_(1)).
    model.register_forward_pre_hook(lambda _module, inputs: (inputs[0].view_as(inputs[0]), *inputs[1:]))
    with listed(model), quiet(), stand_ins(), torch.no_grad():
        try:
            exported = torch.export.export(model, (torch.zeros(input_shape, dtype=dtype_of(model)),), strict=False)
        except (Exception, SystemExit) as error:
            raise _export_error(model, error) from error
    return exported, model, neurons


def run_on_shapes(
    model: torch.nn.Module, input_shape: tuple[int, ...], *modes: AbstractContextManager[Any], times: int = 1
) -> None:
    """Run a model on a tensor without values, its neurons opaque.

    Only what depends on the input has no values: a constant that the model makes at its first call and keeps somewhere
    outside of itself is a real one.

    Args:
        model: a working copy.
        input_shape: of the input.
        *modes: entered while it runs.
        times: how often it is called.

    Raises:
        Exception: whatever the model's own code raises.
    """
    make_opaque(model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(input_shape, dtype=dtype_of(model))
    with listed(model), quiet(), stand_ins(), torch.no_grad(), contextlib.ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        for _ in range(times):
            model(x)


def dtype_of(model: torch.nn.Module) -> torch.dtype:
    """Type of a model's parameters."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log lines of torch about what is reported anyway or does not matter, while it lasts."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def find_neurons(model: torch.nn.Module) -> dict[str, NeuronModule]:
    """The spiking neurons of a module by path.

    Raises:
        UnsupportedError: neurons without an exact form, all of them.
    """
    found: dict[str, NeuronModule] = {}
    problems: list[str] = []
    for path, module in named_modules(model).items():
        try:
            neuron = recognize(module)
        except UnsupportedError as error:
            problems.append(f"{path}: {error.message}")
            continue
        if neuron is not None:
            found[path] = neuron
    if problems:
        raise UnsupportedError(
            "neurons without an exact form:\n  " + "\n  ".join(problems),
            hint="replace them by IF, LIF or ParametricLIF neurons, or register what they compute with register_neuron",
        )
    return found


def make_opaque(model: torch.nn.Module) -> dict[str, NeuronModule]:
    """Neurons of a working copy answer with one opaque call from now on; returns them as :func:`find_neurons` does."""
    neurons, modules = find_neurons(model), named_modules(model)
    for path in neurons:
        modules[path].forward = lambda x, *_, path=path, **__: torch.ops.qkf_deploy.neuron(x, path)
    return neurons


def _export_error(model: torch.nn.Module, error: BaseException) -> UnsupportedError:
    """One message with module path and source line out of whatever export raised."""
    place = place_of(model, error)
    data_dependent = "data-dependent" in str(error).lower() or "GuardOnDataDependent" in type(error).__name__
    hint = (
        "the model decides on tensor values; make that branch constant in evaluation mode"
        if data_dependent
        else "check the factory and --image-size/--time-steps by running the model on a zero input"
    )
    return UnsupportedError(f"torch.export cannot capture the model: {raised(error)}", where=place, hint=hint)


def _program(
    model: torch.nn.Module, exported: torch.export.ExportedProgram, neurons: Mapping[str, NeuronModule]
) -> Program:
    signature = exported.graph_signature
    tensors: dict[str, torch.Tensor] = {}
    held = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    for placeholder, target in held.items():
        value = exported.state_dict.get(target, exported.constants.get(target))
        if isinstance(value, torch.Tensor):
            tensors[placeholder] = value
    paths = {path: escaped(path) for path, _ in model.named_modules()}
    leaves = {path for path, module in named_modules(model).items() if not any(True for _ in module.children())}
    calls, shapes = [], {}
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            shapes[node.name] = tuple(int(n) for n in value.shape)
        if node.op == "call_function":
            calls.append(_filled(_call(node, paths, leaves), value))
    (input_name,) = signature.user_inputs
    outputs = tuple(str(o) for o in signature.user_outputs)
    named = _output_names(exported, len(outputs))
    return Program(
        tuple(calls), str(input_name), outputs, tensors, shapes, neurons, frozenset(paths.values()), output_names=named
    )


def leaves(result: Any) -> dict[str, Any]:
    """Every tensor of a result by name: keys and positions, joined by dots; a tensor alone is ``output``."""
    found, _ = pytree.tree_flatten_with_path(result)
    return {".".join(_key(k) for k in path) or "output": leaf for path, leaf in found if leaf is not None}


def _key(key: Any) -> str:
    name = next((getattr(key, what) for what in ("key", "idx", "name") if hasattr(key, what)), key)
    return str(name)


def _output_names(exported: torch.export.ExportedProgram, count: int) -> tuple[str, ...]:
    """Keys and positions of the results in what the model returns; empty where they cannot be told."""
    spec = exported.call_spec.out_spec
    if spec is None or spec.num_leaves != count:
        return ()
    found = leaves(pytree.tree_unflatten(list(range(count)), spec))
    return tuple(found) if len(found) == count else ()


def _call(node: Any, paths: Mapping[str, str], leaves: set[str]) -> Call:
    stack = node.meta.get("nn_module_stack") or {}
    path = _module_path(list(stack.values())[-1][0], paths) if stack else ""
    target = str(node.target) if not callable(node.target) or hasattr(node.target, "_schema") else node.target.__name__
    return Call(
        node.name,
        target,
        tuple(argument_of(a) for a in node.args),
        {k: argument_of(v) for k, v in node.kwargs.items()},
        path,
        path in leaves,
        _source(node.meta.get("stack_trace")),
    )


def _filled(call: Call, result: Any) -> Call:
    """A call that reads no values of any tensor as one that reads no tensor."""
    value = _FILLED.get(call.target)
    value = call.args[value] if isinstance(value, int) else value
    if value is None or isinstance(value, Ref):
        return call
    dtype = torch.float64 if result.is_floating_point() else result.dtype
    return replace(call, target="aten.full.default", args=(list(result.shape), value), kwargs={"dtype": dtype})


def argument_of(value: Any) -> Any:
    """An argument of a traced node as one of a :class:`Call`."""
    if isinstance(value, torch.fx.Node):
        return Ref(value.name)
    if isinstance(value, list | tuple):
        return [argument_of(v) for v in value]
    return value


def _module_path(path: str, paths: Mapping[str, str]) -> str:
    """A module's path in the graph out of the exporter's own form of it (``a.b@1`` for a second call of ``a.b``)."""
    plain = path if path in paths else re.sub(r"@\d+$", "", path)
    return paths.get(plain, plain)


def _source(stack_trace: str | None) -> str:
    """Innermost frame of the model's own code."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', stack_trace or "")
    for filename, line in reversed(frames):
        if not is_library(filename):
            return f"{basename(filename)}:{line}"
    return ""
