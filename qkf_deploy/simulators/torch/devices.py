"""Where torch computes, and what its products are trusted with: measured on start, never assumed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from qkf_deploy import limits
from qkf_deploy.errors import MissingComponent, UnsupportedError, UsageError
from qkf_deploy.simulators.torch import selfcheck
from qkf_deploy.simulators.torch.carriers import FLOAT32, FLOAT64, INT64, TF32, Carrier


@dataclass(frozen=True)
class Device:
    """A device that was checked.

    Attributes:
        torch: the device.
        carriers: what products may be computed in, fastest first.
    """

    torch: torch.device
    carriers: tuple[Carrier, ...]

    def carrier(self, operands: int, sums: int) -> Carrier:
        """The fastest carrier in which these magnitudes are exact."""
        return next(c for c in self.carriers if c.holds(operands, sums))


def find(name: str) -> torch.device:
    """The torch device of that name.

    Raises:
        UsageError: not a device this engine knows, or one that is not there.
        MissingComponent: this torch has no CUDA.
    """
    kind, _, index = name.partition(":")
    if (
        kind not in ("cpu", "cuda")
        or (index and not index.isdecimal())
        or (kind == "cpu" and index)
        or name[-1:] == ":"
    ):
        raise UsageError(f"no device {name!r}", hint="use cpu, cuda or cuda:N")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = (
            "no CUDA device is visible" if torch.version.cuda else f"torch {torch.__version__} is built without CUDA"
        )
        raise MissingComponent(
            f"device {name}: {built}", hint="use --device cpu, or install a torch built for CUDA (pytorch.org)"
        )
    found = torch.cuda.device_count()
    if index and int(index) >= found:
        raise UsageError(f"no device {name!r}: {found} CUDA devices", hint=f"use cuda:0 to cuda:{found - 1}")
    return torch.device("cuda", int(index) if index else torch.cuda.current_device())


def candidates(device: torch.device) -> tuple[Carrier, ...]:
    """Carriers of a kind of device, fastest first."""
    on_gpu = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return (*((TF32,) if on_gpu else ()), FLOAT32, FLOAT64, INT64)


@functools.lru_cache
def open_device(name: str) -> Device:
    """A device whose products were compared with integers, once per process.

    Raises:
        UsageError, MissingComponent: as :func:`find`.
        UnsupportedError: the device rounds where it must not.
    """
    device = find(name)
    carriers = candidates(device)
    for carrier in carriers:
        if not selfcheck.exact(device, carrier):
            raise UnsupportedError(
                f"{carrier.name} products on {device} are not exact",
                where=name,
                hint="leave torch's reduced precision off (torch.set_float32_matmul_precision, "
                "ONEDNN_DEFAULT_FPMATH_MODE), or use another device or engine",
            )
    return Device(device, carriers)


@contextlib.contextmanager
def memory() -> Iterator[None]:
    """Raises MemoryError where torch, in the block, gets no memory on its device."""
    try:
        yield
    except RuntimeError as error:
        if limits.ran_out(error):
            raise MemoryError(str(error)) from error
        raise


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run on that many CPU threads; the process's number comes back."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
