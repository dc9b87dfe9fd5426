"""Views: reshape, slice, permute. Addressing only, never arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.schema import check_attributes


@dataclass(frozen=True)
class View:
    """How an operand reads the value of another node.

    Applied as ``x.reshape(split)[take].transpose(perm).reshape(shape)`` to the per-step shape of the value, so that
    any chain of reshapes, slices and permutations is one view.

    Attributes:
        split: the source shape, split into atomic axes.
        take: ``(start, stop)`` per atomic axis.
        perm: order of the atomic axes in the result.
        shape: the shape the operand sees.
    """

    split: tuple[int, ...]
    take: tuple[tuple[int, int], ...]
    perm: tuple[int, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_attributes(self)
        kept = [stop - start for start, stop in self.take]
        ok = (
            len(self.take) == len(self.split)
            and sorted(self.perm) == list(range(len(self.split)))
            and all(0 <= a < b <= n for (a, b), n in zip(self.take, self.split, strict=True))
            and all(n >= 1 for n in self.shape)
            and math.prod(kept) == math.prod(self.shape)
        )
        if not ok:
            raise GraphError(f"view {self} does not describe an array")

    @staticmethod
    def of(split: Sequence[int], perm: Sequence[int], shape: Sequence[int]) -> View:
        """A view that keeps every element."""
        return View(tuple(split), tuple((0, n) for n in split), tuple(perm), tuple(shape))

    @cached_property
    def is_reshape(self) -> bool:
        """True if the elements keep their order (nothing dropped, nothing permuted)."""
        order = [p for p in self.perm if self.split[p] != 1]
        return self.keeps_all and order == sorted(order)

    @property
    def keeps_all(self) -> bool:
        """True if no element is dropped."""
        return all(stop - start == n for (start, stop), n in zip(self.take, self.split, strict=True))

    def then(self, shape: Sequence[int]) -> View:
        """This view, reshaped.

        Raises:
            GraphError: the new shape cuts through axes in a way that no split of the source describes.
        """
        return reshape(self, shape)

    def transposed(self, order: Sequence[int]) -> View:
        """This view with the axes of its result reordered."""
        groups = self.groups()
        return View(
            self.split, self.take, tuple(a for i in order for a in groups[i]), tuple(self.shape[i] for i in order)
        )

    def groups(self) -> list[list[int]]:
        """The atomic axes that make up each axis of the result (size-1 atoms go with the axis they meet first)."""
        sizes = [stop - start for start, stop in self.take]
        atoms = list(self.perm)
        out: list[list[int]] = []
        for n in self.shape:
            group: list[int] = []
            while math.prod(sizes[a] for a in group) < n or (not group and atoms and sizes[atoms[0]] == n == 1):
                if not atoms:
                    raise GraphError(f"view {self} does not divide into {self.shape}")
                group.append(atoms.pop(0))
            if math.prod(sizes[a] for a in group) != n:
                raise GraphError(f"view {self} does not divide into {self.shape}")
            out.append(group)
        if out:
            out[-1] += atoms
        return out

    def compose(self, after: View) -> View:
        """The view that reads like this one followed by ``after`` (whose source is this view's shape)."""
        joined = reshape(self, after.split)
        groups = joined.groups()
        split, take = list(joined.split), list(joined.take)
        for axis, (start, stop) in enumerate(after.take):
            if (start, stop) != (0, after.split[axis]):
                _narrow(split, take, groups[axis], start, stop)
        perm = tuple(a for axis in after.perm for a in groups[axis])
        return View(tuple(split), tuple(take), perm, after.shape)

    def narrowed(self, axis: int, start: int, stop: int) -> View:
        """This view with one axis of the result cut to ``start:stop``."""
        take = list(self.take)
        _narrow(list(self.split), take, self.groups()[axis], start, stop)
        shape = tuple(stop - start if i == axis else n for i, n in enumerate(self.shape))
        return View(self.split, tuple(take), self.perm, shape)

    def apply(self, x: np.ndarray, lead: int = 2) -> np.ndarray:
        """Read ``x``, whose first ``lead`` axes (time, batch) are passed through.

        Args:
            x: array of shape ``(*lead axes, *source shape)``.
            lead: number of axes before the per-step shape.

        Returns:
            Array of shape ``(*lead axes, *self.shape)``; shares memory where numpy can.
        """
        head = x.shape[:lead]
        y = x.reshape(*head, *self.split)
        y = y[(slice(None),) * lead + tuple(slice(a, b) for a, b in self.take)]
        y = y.transpose(*range(lead), *(p + lead for p in self.perm))
        return y.reshape(*head, *self.shape)


def identity(shape: Sequence[int]) -> View:
    """The view that changes nothing."""
    return View.of(shape, range(len(shape)), shape)


def compose(first: View | None, second: View | None) -> View | None:
    """``first`` then ``second``, where ``None`` changes nothing."""
    if first is None or second is None:
        return second if first is None else first
    return first.compose(second)


def _narrow(split: list[int], take: list[tuple[int, int]], group: list[int], start: int, stop: int) -> None:
    """Cut the axis made of ``group`` to ``start:stop``, in place. Only its first real atom can be cut."""
    sizes = {a: take[a][1] - take[a][0] for a in group}
    real = [a for a in group if sizes[a] != 1]
    if not real:
        return
    outer = real[0]
    inner = math.prod(sizes[a] for a in real[1:])
    if start % inner or stop % inner:
        raise GraphError(f"a slice {start}:{stop} cuts through axes of {inner} elements")
    base = take[outer][0]
    take[outer] = (base + start // inner, base + stop // inner)


def reshape(view: View, shape: Sequence[int]) -> View:
    """``view`` with its result reshaped, atoms split where needed."""
    if math.prod(shape) != math.prod(view.shape):
        raise GraphError(f"cannot reshape {view.shape} to {tuple(shape)}")
    split, take, perm = list(view.split), list(view.take), list(view.perm)
    position = 0  # next atom of ``perm`` to hand out
    for n in shape:
        product = 1
        while product < n:
            atom = perm[position]
            size = take[atom][1] - take[atom][0]
            if product * size > n:
                if n % product or size % (n // product):
                    raise GraphError(f"reshape of {view.shape} to {tuple(shape)} cuts through an axis of {size}")
                _split_atom(split, take, perm, atom, inner=size // (n // product))
                size = n // product
            product *= size
            position += 1
        if n == 1 and position < len(perm) and take[perm[position]][1] - take[perm[position]][0] == 1:
            position += 1
    return View(tuple(split), tuple(take), tuple(perm), tuple(shape))


def _split_atom(split: list[int], take: list[tuple[int, int]], perm: list[int], atom: int, inner: int) -> None:
    """Replace an atom by (outer, inner), in place; ``perm`` keeps them adjacent."""
    start, stop = take[atom]
    if split[atom] % inner or start % inner or stop % inner:
        raise GraphError(f"a slice {start}:{stop} of {split[atom]} does not split into groups of {inner}")
    split[atom : atom + 1] = [split[atom] // inner, inner]
    take[atom : atom + 1] = [(start // inner, stop // inner), (0, inner)]
    where = perm.index(atom)
    perm[:] = [p + 1 if p > atom else p for p in perm]
    perm.insert(where + 1, atom + 1)
