"""Tracing: from a torch module to a float graph, through `torch.export`."""

from __future__ import annotations

import torch

from qkf_deploy.converters.torch.trace.capture import capture
from qkf_deploy.converters.torch.trace.lowering import InputSpec, Lowering
from qkf_deploy.converters.torch.trace.neurons import NeuronModule, register_neuron
from qkf_deploy.converters.torch.trace.roles import assign_roles
from qkf_deploy.converters.torch.trace.rules import RULES
from qkf_deploy.converters.torch.untouched import undisturbed
from qkf_deploy.ir import Graph

__all__ = ["InputSpec", "NeuronModule", "register_neuron", "trace_module"]


@undisturbed()
def trace_module(model: torch.nn.Module, spec: InputSpec) -> Graph:
    """The float graph of a module in evaluation mode, named by module paths.

    Args:
        model: any module made of the operators in docs/graph.md; it is left as it was.
        spec: the input it takes.

    Raises:
        UnsupportedError: everything that cannot be lowered, listed at once with module path and source line.
    """
    program = capture(model, spec.tensor_shape)
    return assign_roles(Lowering(program, spec, RULES).run())
