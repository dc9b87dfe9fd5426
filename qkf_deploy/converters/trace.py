"""Moved to :mod:`qkf_deploy.converters.torch.trace`; scripts that register neurons from here still work."""

from qkf_deploy.converters.torch.trace import InputSpec, NeuronModule, register_neuron, trace_module

__all__ = ["InputSpec", "NeuronModule", "register_neuron", "trace_module"]
