"""Which widths are proven, and so which kernels may run. Everything here is recomputed from the weights on load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Activity:
    """What an image's input to a layer cannot pass.

    Attributes:
        events: active inputs of one output at one step.
        excess: sum of what their values have beyond 1.
        largest: largest value.
    """

    events: int
    excess: int
    largest: int


@dataclass(frozen=True)
class WeightSums:
    """Bounds on sums of one output's weights.

    Attributes:
        positive, negative: largest sum of one output's positive weights, of the magnitudes of its negative ones.
        magnitude: largest magnitude of one weight.
    """

    positive: int
    negative: int
    magnitude: int

    @staticmethod
    def of(weight: np.ndarray) -> WeightSums:
        """Of integer weights ``(C_out, C_in, taps)``."""
        sums = [np.sum(part, axis=(1, 2), dtype=np.int64) for part in (np.maximum(weight, 0), np.minimum(weight, 0))]
        return WeightSums(int(sums[0].max(initial=0)), -int(sums[1].min(initial=0)), weight_magnitude(weight))

    def reach(self, activity: Activity) -> tuple[int, int]:
        """Range of the weighted sum of any part of the inputs.

        A value v counts as v events of value 1, one on each of v levels: the first level holds ``events`` of them, the
        others share ``excess``. What a level adds is at most a concave function of its events, so equal shares are the
        worst case.
        """
        levels = max(activity.largest - 1, 1)
        shared = -(-activity.excess // levels)

        def side(total: int) -> int:
            first, other = (min(total, self.magnitude * n) for n in (activity.events, shared))
            return first + levels * other

        return -side(self.negative), side(self.positive)

    @property
    def limit(self) -> int:
        """Largest sum of input values whose weighted sum fits 16 bits, whatever the inputs are."""
        return INT16 // max(self.magnitude, 1)

    def chunk(self, largest: int) -> int:
        """Largest even number of events of at most this value whose weighted sum fits 16 bits; 0 if not even two do."""
        return self.limit // max(largest, 1) // 2 * 2


def drive_fits16(reach: tuple[int, int], bias: tuple[int, int]) -> bool:
    """True if weighted sums in a range fit 16 bits, alone and with the bias added."""
    return fits(reach, INT16) and fits((reach[0] + bias[0], reach[1] + bias[1]), INT16) and fits(bias, INT16)


def neuron_fits16(form: np.ndarray, theta: np.ndarray, drive: tuple[int, int], steps: int) -> bool:
    """True if the membranes stay in 16 bits over all steps, with nothing to multiply or widen.

    Args:
        form: multiplier, shift, fraction bits, soft reset.
        theta: thresholds; those beyond 16 bits count as the nearest value that fits.
        drive: range of the drives.
        steps: T.
    """
    multiplier, shift, fraction, soft = (int(n) for n in form)
    lowest, highest = int(theta.min()), int(theta.max())
    if multiplier != 1 or fraction != 0 or shift >= 16 or (soft and not fits((lowest, highest), INT16)):
        return False
    low = high = 0
    for _ in range(steps):
        u_low, u_high = (low >> shift) + drive[0], (high >> shift) + drive[1]
        low, high = min(u_low, 0), max(min(u_high, highest - 1), 0)
        if soft:
            high = max(high, u_high - lowest)
        # A threshold cut to the largest value must not be reached.
        if not fits((u_low, max(u_high, high)), INT16 - 1):
            return False
    return True


def weight_magnitude(weight: np.ndarray) -> int:
    """Largest magnitude of integer weights."""
    return max(abs(int(weight.max(initial=0))), abs(int(weight.min(initial=0))))


def dense_flush(magnitude: int, largest: int) -> int:
    """Steps of four inputs whose 16-bit pair sums cannot pass 16 bits; 0 if not even one is safe.

    Args:
        magnitude: largest magnitude of a weight.
        largest: largest input.
    """
    return INT16 // max(2 * magnitude * largest, 1)
