"""Neurons written by hand: found in a captured program by what their arithmetic is, whatever it is called."""

from qkf_deploy.converters.torch.trace.capture import Program
from qkf_deploy.converters.torch.trace.written.buffers import stacked
from qkf_deploy.converters.torch.trace.written.integrators import integrated
from qkf_deploy.converters.torch.trace.written.limits import limited_first
from qkf_deploy.converters.torch.trace.written.rewriting import with_neurons

__all__ = ["recognized"]


def recognized(program: Program) -> Program:
    """The program with hand-written neurons as neuron calls, one per time step, and their steps stacked."""
    return integrated(with_neurons(limited_first(stacked(program))))
