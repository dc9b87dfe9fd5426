"""The numbers that sums of products are computed in, and what they hold exactly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Carrier:
    """Numbers that a sum of products is computed in.

    Attributes:
        name: for messages.
        dtype: of the tensors.
        operand_bits: integers below 2^this pass into a product unrounded.
        sum_bits: sums whose partial sums stay below 2^this are exact in any order.
        tensor_cores: whether reduced-precision matrix units may serve (CUDA).
    """

    name: str
    dtype: torch.dtype
    operand_bits: int
    sum_bits: int
    tensor_cores: bool = False

    def holds(self, operands: int, sums: int) -> bool:
        """True if operands and partial sums of these magnitudes are exact."""
        return operands < 2**self.operand_bits and sums < 2**self.sum_bits


#: TF32 keeps 10 fraction bits of an operand and adds in float32 (NVIDIA A100 whitepaper, "Tensor Float-32").
TF32 = Carrier("TF32", torch.float32, 11, 24, tensor_cores=True)
FLOAT32 = Carrier("float32", torch.float32, 24, 24)
FLOAT64 = Carrier("float64", torch.float64, 53, 53)
#: Beyond 2^53 products are cut into float64 pieces that are exact, and put together in int64.
INT64 = Carrier("int64", torch.int64, 62, 63)


def exact_dtype(magnitude: int) -> torch.dtype:
    """The narrowest numbers that hold every integer of this magnitude."""
    if magnitude < 2**FLOAT32.sum_bits:
        return torch.float32
    return torch.float64 if magnitude < 2**FLOAT64.sum_bits else torch.int64


@contextlib.contextmanager
def precision(device: torch.device, carrier: Carrier) -> Iterator[None]:
    """Let matrix products on a GPU use what the carrier allows, and nothing else; the process's choice comes back."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = carrier.tensor_cores
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
