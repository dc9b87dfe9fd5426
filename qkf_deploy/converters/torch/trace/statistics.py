"""What a model computes of its tensors in NumPy while it runs, such as firing rates that it prints.

A model is captured on shapes alone, where a tensor has no values to hand over. Arrays of our own take their place;
where the program is the same whatever is in them, nothing of it reaches the output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

#: What is in the arrays: no element or every other one differs from 0, and numbers beyond any threshold.
FILLINGS = ((0.0, 0.0), (0.0, 1.0), (1e30, 1e30), (-1e30, -1e30))


@contextlib.contextmanager
def stand_ins(filling: tuple[float, float] = FILLINGS[0]) -> Iterator[list[tuple[int, ...]]]:
    """While it lasts, a tensor without values gives an array of these in turn, or of what an outer one says.

    Yields:
        Shapes of the tensors that did.
    """
    given: list[tuple[int, ...]] = []
    own = torch.Tensor.numpy
    if "numpy" in vars(torch.Tensor):
        yield given
        return

    def numpy(self: torch.Tensor, *, force: bool = False) -> np.ndarray:
        if not isinstance(self, FakeTensor | FunctionalTensor):
            return own(self, force=force)
        given.append(tuple(int(n) for n in self.shape))
        kind = np.dtype(str(self.dtype).removeprefix("torch."))
        limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind) if kind.kind in "iu" else None
        values = np.resize(np.array(filling), given[-1])
        return (values if limits is None else np.clip(values, limits.min, limits.max)).astype(kind)

    torch.Tensor.numpy = numpy  # type: ignore[method-assign]
    try:
        yield given
    finally:
        del torch.Tensor.numpy
