"""What every operator of an exported program means in the graph: one small function each."""

from qkf_deploy.converters.torch.trace.rules import arithmetic, joining, neuron, padding, pooling, synapse, time, views
from qkf_deploy.converters.torch.trace.rules.table import RULES

__all__ = ["RULES", "arithmetic", "joining", "neuron", "padding", "pooling", "synapse", "time", "views"]
