"""Which widths are proven, and so which kernels may run. Everything here is recomputed from the weights on load."""

from __future__ import annotations

import numpy as np

from qkf_deploy.ir import Node, Widths
from qkf_deploy.ops import IntegerNeuron

INT16 = 2**15 - 1
INT32 = 2**31 - 1
#: Largest value of a stream.
LARGEST_COUNT = 255


def fits(range_: tuple[int, int], limit: int) -> bool:
    """True if both ends lie within ``-limit .. limit``."""
    return -limit <= range_[0] and range_[1] <= limit


def neuron_fits(node: Node, drive: Widths, proven: Widths) -> bool:
    """True if every intermediate of the canonical neuron provably stays in 32 bits.

    The state after a step is U, 0 or U - theta; it is multiplied before it is shifted.
    """
    op = node.op
    if not isinstance(op, IntegerNeuron) or proven.membrane is None:
        return False
    theta = node.params["theta"]
    lowest, highest = int(theta.min()), int(theta.max())
    state = max(abs(proven.membrane[0]), abs(proven.membrane[1]))
    if op.soft_reset:
        state = max(state, proven.membrane[1] - lowest)
    shifted = max(abs(drive.value[0]), abs(drive.value[1])) << op.fraction_bits
    return (
        state * max(op.decay_multiplier, 1) < INT32
        and shifted < INT32
        and lowest > -INT32
        and highest < INT32
        and op.decay_shift < 32
        and op.fraction_bits < 32
    )


def largest_sum(magnitude: int, bias: int = 0) -> int:
    """Largest sum of input values whose weighted sum, with a bias of that magnitude, surely fits 16 bits.

    Args:
        magnitude: largest magnitude of a weight.
    """
    return max(INT16 - bias, 0) // max(magnitude, 1)


def neuron_fits16(op: IntegerNeuron, theta: np.ndarray) -> bool:
    """True if a neuron can be tried in 16 bits: nothing to multiply or widen, and thresholds that 16-bit charges reach.

    With a soft reset, thresholds must not be negative, so that what a reset leaves is not above the charge.
    """
    lowest, highest = int(theta.min()), int(theta.max())
    if op.decay_multiplier != 1 or op.fraction_bits != 0 or op.decay_shift >= 16:
        return False
    return highest <= INT16 and lowest >= (0 if op.soft_reset else -INT16)


def magnitude(values: np.ndarray) -> int:
    """Largest magnitude of integers."""
    return max(abs(int(values.max(initial=0))), abs(int(values.min(initial=0))))


def dense_flush(magnitude: int, largest: int) -> int:
    """Steps of four inputs whose 16-bit pair sums cannot pass 16 bits; 0 if not even one is safe.

    Args:
        magnitude: largest magnitude of a weight.
        largest: largest input.
    """
    return INT16 // max(2 * magnitude * largest, 1)
