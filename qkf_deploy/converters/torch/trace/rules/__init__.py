"""What every operator of an exported program means in the graph: one small function each."""

from qkf_deploy.converters.torch.trace.rules import (
    arithmetic,
    gathering,
    joining,
    neuron,
    padding,
    pooling,
    synapse,
    time,
    views,
)
from qkf_deploy.converters.torch.trace.rules.table import RULES

__all__ = ["RULES", "arithmetic", "gathering", "joining", "neuron", "padding", "pooling", "synapse", "time", "views"]
