"""What convolution and linear share: bounds of weighted sums and counts of synaptic operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qkf_deploy.errors import GraphError, ProofError
from qkf_deploy.ir.operator import Counts, Interval, Params
from qkf_deploy.ir.values import Timing, ValueType
from qkf_deploy.ops.activity import elements_per_image, magnitude, negative, weighted, weighted_nonzero

_PROOF_LIMIT = 2.0**62
#: Float graphs are counted as stored in float32, the precision of the checkpoints.
FLOAT_BITS = 32


def channel_bounds(x: Interval, shape: Sequence[int], axis: int = 0) -> Interval:
    """Bounds of each input channel (all positions), int64 ``(C,)``."""
    others = tuple(i for i in range(len(shape)) if i != axis)
    low = np.broadcast_to(x.low, shape).min(axis=others)
    high = np.broadcast_to(x.high, shape).max(axis=others)
    return Interval(np.atleast_1d(low), np.atleast_1d(high))


def check_scale(params: Params, channels: int) -> None:
    """Whether the optional parameter ``scale`` of a float synapse is one positive number per output channel.

    It is the real value of one unit of the integer drive: weights that were trained or calibrated as integers keep
    their grid when the network is quantized.

    Raises:
        GraphError: another shape, or numbers that are not positive and finite.
    """
    scale = params.get("scale")
    if scale is None:
        return
    if scale.shape != (channels,) or not (np.isfinite(scale) & (scale > 0)).all():
        raise GraphError(f"the scales {scale.shape} are not one positive number for each of {channels} channels")


def input_channels(weight_shape: Sequence[int], groups: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Input channel that each weight of a grouped synapse reads, int64 ``(O, I / groups)``."""
    out, group_in = weight_shape[0], weight_shape[1]
    first = np.arange(out, dtype=np.int64) // (out // groups) * group_in
    return np.asarray(np.add.outer(first, np.arange(group_in, dtype=np.int64)), np.int64)


def tap_extremes(weight: np.ndarray, x: Interval, groups: int, *, partial: bool) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest contribution of each tap, summed over input channels: ``(O, *kernel)`` each.

    With ``partial`` a missing term counts as zero, which bounds every partial sum in any order.

    Raises:
        ProofError: a sum could pass 62 bits.
    """
    w = weight.astype(np.int64)
    out, group_in = w.shape[0], w.shape[1]
    channel = input_channels(w.shape, groups)
    extra = (1,) * (w.ndim - 2)
    lo, hi = (v.astype(np.int64)[channel].reshape(out, group_in, *extra) for v in (x.low, x.high))
    _check_width(w, x)
    a, b = w * lo, w * hi
    low, high = np.minimum(a, b), np.maximum(a, b)
    if partial:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    return low.sum(axis=1), high.sum(axis=1)


def _check_width(weight: np.ndarray, x: Interval) -> None:
    largest = max(abs(float(x.low.min())), abs(float(x.high.max())))
    worst = np.abs(weight.astype(np.float64)).reshape(weight.shape[0], -1).sum(axis=1).max() * largest
    if worst >= _PROOF_LIMIT:
        raise ProofError(f"a synaptic sum can reach {worst:.3g}, more than 62 bits", hint="use fewer weight bits")


def add_bias(low: np.ndarray, high: np.ndarray, bias: np.ndarray, *, partial: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bounds with a bias; as a partial sum it may come first, last or anywhere between."""
    if partial:
        return low + np.minimum(bias, 0), high + np.maximum(bias, 0)
    return low + bias, high + bias


def count(
    x: np.ndarray,
    output: np.ndarray,
    params: Params,
    type_: ValueType,
    time_steps: int,
    fanout: np.ndarray,
    nonzero_fanout: np.ndarray,
    weight_bits: int | None,
) -> Counts:
    """Ledger classes of a synapse.

    Args:
        x: input ``(T or 1, B, *shape)``.
        output: drive.
        params: ``weight`` and optionally ``bias``.
        type_: input type; spikes and counts cost additions, everything else multiplications.
        time_steps: T.
        fanout: outputs reached by each input element, broadcastable to ``shape``.
        nonzero_fanout: the same through non-zero weights only.
        weight_bits: stored bits, ``None`` for float graphs.
    """
    images = x.shape[1]
    full = int(np.broadcast_to(fanout, type_.shape).sum())
    word = -(-(weight_bits or FLOAT_BITS) // 8)
    if type_.timing is Timing.IMAGE:
        counts = {"head_macs": np.full(images, full, np.int64)}
        reads = counts["head_macs"]
    elif type_.is_events:
        spikes = magnitude(x) if type_.is_signed else x
        counts = {
            "ac_unary": weighted(spikes, fanout),
            "ac_graded": weighted_nonzero(x, fanout),
            "ac_unary_nonzero_weights": weighted(spikes, nonzero_fanout),
            "ac_graded_nonzero_weights": weighted_nonzero(x, nonzero_fanout),
        }
        if type_.is_signed:
            counts["ac_negative"] = weighted(negative(x), fanout)
        reads = counts["ac_graded"]
    else:
        counts = {
            "mac": np.full(images, full * x.shape[0], np.int64),
            "mac_every_step": np.full(images, full * time_steps, np.int64),
            "mac_nonzero": weighted_nonzero(x, nonzero_fanout),
        }
        reads = counts["mac"]
    counts["weight_bytes"] = reads * word
    if "bias" in params:
        counts["bias_adds"] = np.full(images, elements_per_image(output), np.int64)
    return counts
