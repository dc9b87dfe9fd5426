"""Does a device compute what its carriers promise? Products of integers at the limits against Python's own integers."""

from __future__ import annotations

import numpy as np
import torch

from qkf_deploy.simulators.torch import products
from qkf_deploy.simulators.torch.carriers import INT64, Carrier

_ROWS, _TERMS, _COLUMNS = 24, 96, 40
_SIZE, _BATCH = 9, 17


def exact(device: torch.device, carrier: Carrier) -> bool:
    """True if matrix products and convolutions of integers at the carrier's limits are exact on the device."""
    rng = np.random.default_rng(0)
    left, right = _wide_left(carrier, rng)
    cases = ((left, right), (right.T, left.T), _both_half(carrier, rng))
    return all(_matmul_exact(device, carrier, a, b) and _convolution_exact(device, carrier, a, b) for a, b in cases)


def _wide_left(carrier: Carrier, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Odd integers of all the operand bits against -1, 0 and 1, so few that no partial sum passes the limit."""
    top = 2 ** min(carrier.operand_bits, carrier.sum_bits - 1)
    few = min(_TERMS, 2 ** (carrier.sum_bits - 1) // top)
    left = top - 1 - 2 * rng.integers(0, 2**8, (_ROWS, _TERMS), dtype=np.int64)
    right = np.zeros((_TERMS, _COLUMNS), np.int64)
    for column in right.T:
        column[rng.choice(_TERMS, few, replace=False)] = rng.choice([-1, 1], few)
    return left, right


def _both_half(carrier: Carrier, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Products that fill the sum: odd integers of either sign whose partial sums come close to the limit."""
    bits = min(carrier.operand_bits, (carrier.sum_bits - 7) // 2)

    def odd(*shape: int) -> np.ndarray:
        return (2**bits - 1 - 2 * rng.integers(0, 4, shape, dtype=np.int64)) * rng.choice([1, 1, 1, -1], shape)

    return odd(_ROWS, _TERMS), odd(_TERMS, _COLUMNS)


def _matmul_exact(device: torch.device, carrier: Carrier, a: np.ndarray, b: np.ndarray) -> bool:
    return _same(products.matmul(_on(device, carrier, a), _on(device, carrier, b), carrier), a @ b)


def _convolution_exact(device: torch.device, carrier: Carrier, a: np.ndarray, b: np.ndarray) -> bool:
    """Convolutions with a 1x1 kernel, and with a 3x3 kernel of which only the middle is not zero: the sums stay."""
    rng = np.random.default_rng(1)
    x = b.T[rng.integers(0, b.shape[1], (_BATCH, _SIZE, _SIZE))].transpose(0, 3, 1, 2)
    wanted = np.einsum("rt,ntyx->nryx", a, x)
    kernel = np.zeros((*a.shape, 3, 3), np.int64)
    kernel[:, :, 1, 1] = a
    for weight, padding in ((kernel, 1), (a[:, :, None, None], 0)):
        window = products.Window((1, 1), (padding, padding), (1, 1), 1)
        y = products.convolve(_on(device, carrier, x), _on(device, carrier, weight), None, window, carrier)
        if not _same(y, wanted):
            return False
    return True


def _on(device: torch.device, carrier: Carrier, x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(device).to(torch.int64 if carrier is INT64 else carrier.dtype)


def _same(got: torch.Tensor, wanted: np.ndarray) -> bool:
    return bool((got.cpu().to(torch.int64).numpy() == wanted).all())
