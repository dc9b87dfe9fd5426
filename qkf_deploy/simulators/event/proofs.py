"""Which widths are proven, and so which kernels may run. Everything here is recomputed from the weights on load."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qkf_deploy.ir import Graph, Node, Widths
from qkf_deploy.ops import IntegerNeuron
from qkf_deploy.passes import widths

INT16 = 2**15 - 1
INT32 = 2**31 - 1
#: Largest value of a stream.
LARGEST_COUNT = 255


def proven_widths(graph: Graph) -> Mapping[str, Widths]:
    """Widths that hold for the graph's actual weights.

    Raises:
        ProofError: the graph carries widths that are narrower than what its weights can reach.
    """
    if graph.widths:
        widths.check(graph)
        return graph.widths
    return widths.prove(graph)


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


def neuron_fits16(node: Node, drive: Widths, proven: Widths) -> bool:
    """True if drives, their partial sums and membranes provably stay in 16 bits, with nothing to multiply or widen."""
    op = node.op
    if not isinstance(op, IntegerNeuron) or proven.membrane is None:
        return False
    theta = node.params["theta"]
    state = proven.membrane
    if op.soft_reset:
        state = (state[0], max(state[1], state[1] - int(theta.min())))
    plain = op.decay_multiplier == 1 and op.fraction_bits == 0 and op.decay_shift < 16
    # A threshold beyond 16 bits is cut to the largest one, which the membranes may then not reach.
    below = proven.membrane[1] < INT16 and (not op.soft_reset or fits((int(theta.min()), int(theta.max())), INT16))
    return plain and below and all(fits(r, INT16) for r in (drive.partial, drive.value, state))


def weight_magnitude(weight: np.ndarray) -> int:
    """Largest magnitude of integer weights."""
    return max(abs(int(weight.max(initial=0))), abs(int(weight.min(initial=0))))


def event_limit(weight: np.ndarray) -> int:
    """Largest sum of input values whose weighted sum fits 16 bits whatever the inputs are."""
    return INT16 // max(weight_magnitude(weight), 1)


def dense_flush(weight: np.ndarray, largest: int) -> int:
    """Steps of four inputs whose 16-bit pair sums cannot pass 16 bits; 0 if not even one is safe."""
    return INT16 // max(2 * weight_magnitude(weight) * largest, 1)
