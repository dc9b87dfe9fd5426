"""What a neuron of NIR cannot do."""

from __future__ import annotations

import numpy as np

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Node
from qkf_deploy.ops import IntegerNeuron, Neuron
from qkf_deploy.ops.neuron import Levels


def check_start(op: Neuron | IntegerNeuron, node: Node) -> None:
    """Raises UnsupportedError for another start than at rest, several spikes per step, or a strict integer neuron."""
    if op.carry != "own":
        raise UnsupportedError(f"membranes carried over between images ({op.carry}); NIR starts every neuron at rest")
    if "initial" in node.params:
        raise UnsupportedError("an initial membrane; NIR starts every neuron at rest")
    if isinstance(op, IntegerNeuron) and op.strict:
        # Below a strict threshold floors do not nest: a membrane that rounds down to it would fire without rounding.
        raise UnsupportedError("a threshold that must be passed by a rounded membrane; NIR does not round")
    if op.signed:
        raise UnsupportedError("spikes of either polarity; NIR neurons fire in one direction")
    if op.graded:
        raise UnsupportedError("several or rounded spikes per step; NIR neurons fire at most one")


def reset_voltage(levels: Levels) -> np.ndarray:
    """What a spike sets the membrane to. Raises UnsupportedError for a soft reset or a lower bound."""
    if levels.v_reset is None:
        raise UnsupportedError("a soft reset; NIR resets to a voltage")
    if levels.v_min is not None:
        raise UnsupportedError("a lower bound of the membrane; NIR has none")
    return levels.v_reset
