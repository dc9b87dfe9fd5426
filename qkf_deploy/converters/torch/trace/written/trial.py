"""Does a neuron compute what the code computes? Both run on the same random drives, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from qkf_deploy.converters.torch.trace.capture import Call, Program, Ref
from qkf_deploy.converters.torch.trace.constants import Aliases, overload
from qkf_deploy.converters.torch.trace.written.firing import Firing
from qkf_deploy.converters.torch.trace.written.matching import Form
from qkf_deploy.converters.torch.trace.written.polynomial import Poly, ordered, same
from qkf_deploy.converters.torch.trace.written.reading import Reading
from qkf_deploy.errors import QkfError

#: Elements tried along every axis, and drives tried for each.
_MOST, _TRIES = 3, 64
#: Membranes this close to a level (in thresholds) may fire or not where the order of operations differs.
_ROUNDING = 1e-9


class Trial:
    """What the code of one chain computes.

    Attributes:
        drives: random tensors by the name of the program's tensor, ``(tries, ...)``.
        spikes, membranes: of every step, float64 ``(T, tries, ...)``; membranes in units of their own roots.
    """

    def __init__(self, program: Program, reading: Reading, chain: Sequence[Firing]) -> None:
        self._program, self._reading, self._chain = program, reading, chain
        self._rng = np.random.default_rng(0)
        self._values: dict[str, torch.Tensor] = {}
        own = {f.call.name: f for f in chain}
        calls = _slice(program, reading, set(own))
        rank = max(len(program.shapes[name]) for name in own)
        self._lead = rank
        spikes, membranes = [], []
        for call in calls:
            if call.name in own:
                membranes.append(self._value(own[call.name].root))
            self._values[call.name] = self._run(call)
            if Aliases.in_place(call):
                self._values[call.references()[0]] = self._values[call.name]
            if call.name in own:
                fired = self._values[call.name].double()
                spikes.append(1.0 - fired if own[call.name].inverted else fired)
        self.spikes, self.membranes = _stacked(spikes), _stacked(membranes)

    def alike(self, form: Form, *, exact: bool) -> bool:
        """True if the form gives these spikes.

        Args:
            form: a neuron and its drives.
            exact: with the same membranes, bit for bit; else membranes within rounding of a level may fire or not.
        """
        drive = _stacked([self._polynomial(d) for d in form.drives])
        shape = drive.shape[2:]
        params = {k: np.broadcast_to(_cut(v), shape) for k, v in form.levels.items() if v.size > 1 or k == "initial"}
        if "initial" in params:
            params["initial"] = params["initial"] - _cut(form.levels.get("v_reset", np.zeros(())))
        op = form.op
        try:
            charged = op.membranes([drive], params, len(drive))
            fired = op.run([drive], params, len(drive))
        except QkfError:
            return False
        wrong = np.broadcast_to(fired, self.spikes.shape) != self.spikes
        if exact:
            last = self._chain[-1].threshold
            whole = all(np.array_equal(f.threshold, last) for f in self._chain)
            return not wrong.any() and (
                not whole or np.array_equal(np.broadcast_to(charged, self.membranes.shape), self.membranes)
            )
        near = op.margin(charged, params) <= _ROUNDING
        return not (wrong & ~np.logical_or.accumulate(np.broadcast_to(near, wrong.shape), axis=0)).any()

    def _polynomial(self, poly: Poly) -> torch.Tensor:
        total: torch.Tensor | None = None
        for atom, factor in ordered(poly):
            if atom[0] == "x":
                term = self._value(str(atom[1]))
            else:
                firing = self._reading.firings[int(atom[1])]
                term = self._value(firing.call.name).double()
                term = 1.0 - term if firing.inverted else term
            term = term if same(factor, np.ones(())) else term * torch.from_numpy(_cut(factor))
            total = term if total is None else total + term
        if total is None:
            raise AssertionError("a drive")
        return total + torch.from_numpy(_cut(poly[()])) if () in poly else total

    def _value(self, name: str) -> torch.Tensor:
        """A tensor of the program: a constant, a result, or random drives."""
        if name not in self._values:
            constant = self._reading.constants.values.get(name)
            self._values[name] = self._random(name) if constant is None else torch.from_numpy(_cut(constant))
        return self._values[name]

    def _random(self, name: str) -> torch.Tensor:
        """Quarters of the threshold, which meet it exactly, and any numbers; of other neurons, spikes."""
        shape = self._shape(self._program.shapes[name])
        fires = next((f for f in self._reading.firings if f.call.name == name), None)
        if fires is not None:
            return torch.from_numpy(self._rng.integers(-1 if fires.signed else 0, 2, shape).astype(np.float64))
        level = float(np.abs(self._chain[0].threshold).max()) or 1.0
        quarters = self._rng.integers(-4, 9, shape) / 4 * level
        return torch.from_numpy(np.where(self._rng.random(shape) < 0.5, quarters, self._rng.normal(size=shape) * level))

    def _run(self, call: Call) -> torch.Tensor:
        function, args = overload(call.target), self._argument(list(call.args))
        if call.target.startswith("aten.new_"):  # its shape is an argument
            args[1] = self._shape(call.args[1])
        if Aliases.in_place(call):  # on a constant, which has no axis of tries
            args[0] = args[0].broadcast_to(self._shape(self._program.shapes[call.name])).clone()
        return function(*args, **{k: self._argument(v) for k, v in call.kwargs.items()})

    def _shape(self, full: Sequence[int]) -> tuple[int, ...]:
        """What is tried of a tensor: the first elements along every axis, behind an axis of tries."""
        return (_TRIES, *[1] * (self._lead - len(full)), *(min(n, _MOST) for n in full))

    def _argument(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._argument(v) for v in value]
        if isinstance(value, torch.dtype):
            return torch.float64 if value.is_floating_point else value
        if not isinstance(value, Ref):
            return value
        return self._value(value.name).clone()  # which a call in place may change


def _slice(program: Program, reading: Reading, fires: set[str]) -> list[Call]:
    """The calls that compute these firings out of tensors of the program and spikes of other neurons, in order."""
    others = {f.call.name for f in reading.firings} - fires
    needed, out = set(fires), list[Call]()
    for call in reversed(program.calls):
        if call.name not in reading.state or call.name in others or "_assert" in call.target:
            continue
        written = call.references()[:1] if Aliases.in_place(call) else []
        if call.name in needed or needed.intersection(written):
            out.append(call)
            needed |= set(call.references())
    return out[::-1]


def _cut(value: Any) -> np.ndarray:
    """The first elements along every axis, float64; a tensor as an array."""
    array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    array = array.astype(np.float64) if array.dtype != bool else array
    return np.ascontiguousarray(array[tuple(slice(0, _MOST) for _ in array.shape)])


def _stacked(steps: Sequence[torch.Tensor]) -> np.ndarray:
    return torch.stack(torch.broadcast_tensors(*steps)).numpy()
