"""Tensors of the traced program as views of graph values: which axes are time, batch, and features.

A value of the graph is, in torch's terms, an array ``(t, b, *shape)``. A tensor of the program is a view of it, so
following reshapes and permutations is composing views, and the time and batch axes are the atoms 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qkf_deploy.converters.torch.trace.capture import TRACE_BATCH
from qkf_deploy.errors import GraphError, UnsupportedError
from qkf_deploy.ir import Operand, View, identity

TIME, BATCH = 0, 1
#: A tensor's axes: a tuple of atoms 0/1 for a time/batch axis, ``None`` for a feature axis.
Layout = list[tuple[int, ...] | None]


@dataclass(frozen=True)
class Symbol:
    """One tensor of the program.

    Attributes:
        node: the graph value it shows.
        view: from ``(t, b, *shape)`` of that value to the tensor's shape; t is 1 while the tensor has no time axis.
        steps: T if the tensor has an explicit time axis, else ``None``.
        at: time steps a tensor without a time axis belongs to: empty if it is the same at every step (or the model is
            called once per step), one index inside a loop over time, several for a running sum over those steps.
        inverted: True for ``1 - spikes``, which only a gate can use.
        weights: of the time steps, which only their sum can use.
    """

    node: str
    view: View
    steps: int | None
    at: tuple[int, ...] = ()
    inverted: bool = False
    weights: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.view.shape

    def layout(self) -> Layout:
        """Which axes of the tensor are time and batch.

        Raises:
            UnsupportedError: an axis mixes time or batch with features, or the time or batch axis was split.
        """
        if self.view.split[:2] != (self.steps or 1, TRACE_BATCH) or self.view.take[:2] != (
            (0, self.steps or 1),
            (0, TRACE_BATCH),
        ):
            raise UnsupportedError("splits or slices the time or batch axis", hint="treat images and steps alike")
        out: Layout = []
        for group in self.view.groups():
            real = [a for a in group if self.view.take[a][1] - self.view.take[a][0] > 1]
            lead = tuple(a for a in real if a in (TIME, BATCH))
            if lead and len(lead) != len(real):
                raise UnsupportedError("merges time or batch with features in one axis")
            if not lead and TIME in group and self.steps == 1 and len(group) == 1:
                lead = (TIME,)  # T = 1: the time axis is the axis of size 1 that the atom stands in alone
            out.append(lead or None)
        return out

    def operand(self, layout: Layout | None = None) -> Operand:
        """The tensor as an operand: its view without the time and batch axes."""
        layout = layout or self.layout()
        split = self.view.split[2:]
        perm = tuple(p - 2 for p in self.view.perm if p > BATCH)
        shape = tuple(n for n, lead in zip(self.shape, layout, strict=True) if lead is None)
        return Operand(self.node, View(split, self.view.take[2:], perm, shape))

    def reshaped(self, shape: Sequence[int]) -> Symbol:
        """The tensor reshaped."""
        return self._with(self.view.then(shape))

    def transposed(self, order: Sequence[int]) -> Symbol:
        """The tensor with its axes reordered."""
        return self._with(self.view.transposed(order))

    def narrowed(self, axis: int, start: int, stop: int) -> Symbol:
        """The tensor with one axis cut."""
        return self._with(self.view.narrowed(axis, start, stop))

    def _with(self, view: View) -> Symbol:
        if self.steps is not None and view.split[TIME] != self.steps:
            view = _rejoined(view, self.steps)
        return replace(self, view=view)

    @property
    def time_atoms(self) -> int:
        """How many parts the time axis is in: the first atoms of the view."""
        count, product = 1, self.view.split[TIME]
        while product < (self.steps or 1):
            product *= self.view.split[count]
            count += 1
        return count

    def at_step(self, axis: int, index: int) -> Symbol:
        """One step of a tensor with a time axis, which is ``axis``."""
        layout = self.layout()
        inner = self.operand(layout).view
        kept = [lead for a, lead in enumerate(layout) if a != axis]
        features = [n for n, lead in zip(self.shape, layout, strict=True) if lead is None]
        return place(self.node, kept, features, None, inner, at=(index,))

    def over_time(self, axis: int, steps: int) -> Symbol:
        """A tensor without time, with a new time axis."""
        layout = self.layout()
        inner = self.operand(layout).view
        features = [n for n, lead in zip(self.shape, layout, strict=True) if lead is None]
        return place(self.node, [*layout[:axis], (TIME,), *layout[axis:]], features, steps, inner)

    def repeated(self, axis: int, steps: int) -> Symbol:
        """A tensor without time, repeated along an axis of size 1, which becomes time, or along the batch axis.

        Raises:
            UnsupportedError: the axis is not new, or the tensor has a time axis already.
        """
        layout = self.layout()
        if self.steps is not None or self.at or (self.shape[axis] != 1 and layout[axis] != (BATCH,)):
            raise UnsupportedError(
                "repeats an axis that is not time", hint="only repeating an image over time is understood"
            )
        layout[axis] = (TIME, BATCH) if layout[axis] == (BATCH,) else (TIME,)
        kept = [n for n, lead in zip(self.shape, layout, strict=True) if lead is None]
        return place(self.node, layout, kept, steps, inner=self.operand(layout).view)


def _rejoined(view: View, steps: int) -> View:
    """The view, parts of the time axis that follow each other in one axis again being one."""
    part, product = 0, view.split[TIME]
    while product < steps:
        product *= view.split[part + 1]
        whole = all(view.take[a] == (0, view.split[a]) for a in (part, part + 1))
        where = view.perm.index(part)
        follows = view.perm[where : where + 2] == (part, part + 1)
        if whole and follows and any(part in group and part + 1 in group for group in view.groups()):
            size = view.split[part] * view.split[part + 1]
            split, take = list(view.split), list(view.take)
            split[part : part + 2], take[part : part + 2] = [size], [(0, size)]
            perm = tuple(a - (a > part) for a in view.perm if a != part + 1)
            view = View(tuple(split), tuple(take), perm, view.shape)
        else:
            part += 1
    return view


def place(
    node: str,
    layout: Layout,
    features: Sequence[int],
    steps: int | None,
    inner: View | None = None,
    at: tuple[int, ...] = (),
) -> Symbol:
    """A tensor laid out like ``layout`` whose feature axes show ``node``, whole or through ``inner``."""
    view = inner or identity(tuple(features))
    sizes = {TIME: steps or 1, BATCH: TRACE_BATCH}
    groups = iter(view.groups())
    perm: list[int] = []
    shape: list[int] = []
    position = iter(features)
    for lead in layout:
        if lead is None:
            perm += [a + 2 for a in next(groups)]
            shape.append(next(position))
        else:
            perm += lead
            shape.append(_product(sizes[a] for a in lead))
    missing = [a for a in (TIME, BATCH) if a not in perm]
    whole = View(
        (sizes[TIME], TRACE_BATCH, *view.split),
        ((0, sizes[TIME]), (0, TRACE_BATCH), *view.take),
        tuple(missing + perm),
        tuple(shape),
    )
    if [a for a in missing if sizes[a] > 1]:
        raise GraphError("a time or batch axis got lost")
    return Symbol(node, whole, steps, at)


def _product(sizes: object) -> int:
    out = 1
    for n in sizes:  # type: ignore[attr-defined]
        out *= n
    return out
