"""Tracing: from a torch module to a float graph, through `torch.export`."""

from __future__ import annotations

import torch

from qkf_deploy.converters.torch.trace.charged import started
from qkf_deploy.converters.torch.trace.described import tried
from qkf_deploy.converters.torch.trace.lowering import InputSpec, Lowering
from qkf_deploy.converters.torch.trace.neurons import NeuronModule, register_neuron
from qkf_deploy.converters.torch.trace.roles import assign_roles
from qkf_deploy.converters.torch.trace.rules import RULES
from qkf_deploy.converters.torch.trace.told import telling
from qkf_deploy.converters.torch.trace.written import recognized
from qkf_deploy.converters.torch.trace.written_out import captured
from qkf_deploy.converters.torch.untouched import undisturbed
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph

__all__ = ["InputSpec", "NeuronModule", "register_neuron", "telling", "trace_module"]


@undisturbed()
def trace_module(model: torch.nn.Module, spec: InputSpec) -> Graph:
    """The float graph of a module in evaluation mode, named by module paths.

    Args:
        model: any module made of the operators in docs/graph.md; it is left as it was.
        spec: the input it takes.

    Raises:
        UnsupportedError: everything that cannot be lowered, listed at once with module path and source line.
    """
    return assign_roles(lowering(model, spec).run())


def lowering(model: torch.nn.Module, spec: InputSpec) -> Lowering:
    """A module's program, hand-written neurons found, ready to become a graph. Raises UnsupportedError."""
    program = recognized(started(model, tried(model, captured(model, spec.tensor_shape)), spec))
    forgetful = [path for path in program.written if program.neurons[path].op.decay == 0.0]
    if forgetful and spec.layout == "step" and spec.time_steps > 1:
        raise UnsupportedError(
            "fires in a model that computes one time step per call: what it keeps between calls cannot be seen",
            where=", ".join(forgetful),
            hint="put the loop over time steps into the model, or teach the tracer its class with register_neuron",
        )
    return Lowering(program, spec, RULES)
