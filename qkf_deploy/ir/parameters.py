"""Parameters of integer graphs have declared types and ranges: signed integers of the bits they claim."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import PROOF_LIMIT, Operator

#: Fewest and most bits of a stored weight.
WEIGHT_BITS = (2, 32)


def check_integer_parameters(op: Operator, params: Mapping[str, np.ndarray]) -> None:
    """Whether the parameters of a node of an integer graph are what engines and proofs take them for.

    Weights are signed integers of ``weight_bits``; the scales of the input and the output are positive and finite;
    every other parameter (bias, threshold, initial membrane ...) is a signed integer of at most 2^62 in magnitude.

    Raises:
        GraphError: another type or range, naming the parameter.
    """
    ends = op.kind in ("input", "output")
    for name, array in params.items():
        if not array.size:
            raise GraphError(f"the parameter {name!r} is empty")
        if ends:
            _check_real(name, array)
        elif array.dtype.kind != "i":
            raise GraphError(f"the parameter {name!r} of an integer graph holds {array.dtype}, not signed integers")
        elif name == "weight":
            _check_weight(op, array)
        elif max(-int(array.min()), int(array.max())) > PROOF_LIMIT:
            raise GraphError(f"the parameter {name!r} goes beyond 62 bits: {array.min()} to {array.max()}")


def _check_real(name: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f" or not np.isfinite(array).all() or (name == "scale" and array.min() <= 0):
        raise GraphError(f"the parameter {name!r} must hold finite floats, above 0 for a scale")


def _check_weight(op: Operator, weight: np.ndarray) -> None:
    bits = getattr(op, "weight_bits", None)
    low, high = WEIGHT_BITS
    if bits is None or not low <= bits <= high:
        raise GraphError(f"weight_bits is {bits}, from {low} to {high} in an integer graph")
    if int(weight.min()) < -(2 ** (bits - 1)) or int(weight.max()) >= 2 ** (bits - 1):
        raise GraphError(f"a weight has more than the {bits} bits that the node claims")
