"""``.cuda()`` of model code on a machine without a GPU: what it makes there is made here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def gpu_calls() -> Iterator[None]:
    """While the context lasts, ``x.cuda()`` is ``x`` where there is no GPU; a model is captured on the CPU anyway."""
    if torch.cuda.is_available():
        yield
        return
    before = [(cls, cls.cuda) for cls in (torch.Tensor, torch.nn.Module)]
    for cls, _ in before:
        setattr(cls, "cuda", lambda self, *_, **__: self)  # noqa: B010 - an assignment is no valid override to a checker
    try:
        yield
    finally:
        for cls, method in before:
            setattr(cls, "cuda", method)  # noqa: B010
