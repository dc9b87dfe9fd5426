"""Labels: class indices that a network can answer with."""

from __future__ import annotations

import numpy as np

from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph


def classes_of(graph: Graph) -> int | None:
    """How many classes a network tells apart; ``None`` if its output is not one number per class."""
    sizes = [n for n in graph.output.type.shape if n > 1]
    return sizes[0] if len(sizes) == 1 else None


def checked(labels: np.ndarray, count: int, graph: Graph, where: str) -> np.ndarray:
    """Class indices, int64 ``(count,)``.

    Raises:
        InputError: not one whole number per sample, or one that is no class of the network.
    """
    if labels.shape not in ((count,), (count, 1)):
        raise InputError(f"{count} images but labels of shape {labels.shape}", where=where)
    labels = labels.reshape(-1)
    if labels.dtype.kind not in "iu" or not 0 <= int(labels.min()) <= int(labels.max()) < 2**31:
        raise InputError(
            f"labels of type {labels.dtype} are not class indices", where=where, hint="use whole numbers from 0"
        )
    classes = classes_of(graph)
    if classes is not None and int(labels.max()) >= classes:
        index = int(labels.argmax())
        raise InputError(
            f"label {labels[index]} of image {index} is not a class",
            where=where,
            hint=f"classes are 0 to {classes - 1}; are the labels, or the network, of another data set?",
        )
    return labels.astype(np.int64)
