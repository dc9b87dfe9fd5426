"""Programs with neurons written out: their arithmetic becomes one neuron call per time step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from qkf_deploy.converters.torch.trace.capture import NEURON_CALL, Call, Program, Ref
from qkf_deploy.converters.torch.trace.constants import Aliases
from qkf_deploy.converters.torch.trace.needed import needed
from qkf_deploy.converters.torch.trace.neurons import NeuronModule
from qkf_deploy.converters.torch.trace.written.buffers import renamed
from qkf_deploy.converters.torch.trace.written.firing import FIRING, Firing
from qkf_deploy.converters.torch.trace.written.matching import Form, chains, described, forms
from qkf_deploy.converters.torch.trace.written.polynomial import Poly, ordered, same, unknowns
from qkf_deploy.converters.torch.trace.written.reading import Reading
from qkf_deploy.converters.torch.trace.written.trial import Trial
from qkf_deploy.errors import UnsupportedError

_LIKE = frozenset({"aten.to.other", "aten.type_as.default"})
_ONE = np.ones(())


def with_neurons(program: Program) -> Program:
    """The program with every neuron that it writes out as neuron calls, one per time step.

    What is found is a notice: how many neurons, where, and what they compute. What fires and is no neuron stays as it
    is, with the reason in ``program.refused``.
    """
    if not any(c.target.startswith("aten.") and c.target.split(".")[1] in FIRING for c in program.calls):
        return program
    reading = Reading(program)
    if not reading.firings:
        return program
    rewriter = _Rewriter(program, reading)
    try:
        found = chains(reading.firings)
    except UnsupportedError as error:
        return replace(program, refused={f.call.name: error for f in reading.firings})
    for chain in found:
        rewriter.neuron(chain)
    return rewriter.program()


@dataclass(frozen=True)
class _Found:
    place: str
    words: str


class _Rewriter:
    """Collects what replaces the calls of each chain."""

    def __init__(self, program: Program, reading: Reading) -> None:
        self.before = program
        self.reading = reading
        self.neurons: dict[str, NeuronModule] = dict(program.neurons)
        self.tensors = dict(program.tensors)
        self.instead: dict[str, list[Call]] = {}
        self.refused: dict[str, UnsupportedError] = {}
        self.found: Counter[_Found] = Counter()
        self.shapes = dict(program.shapes)
        self._spikes: dict[int, str] = {}

    def neuron(self, chain: Sequence[Firing]) -> None:
        """Replace one chain, or note why it is no neuron."""
        try:
            names = {name for f in chain for kind, name in unknowns(f.charge) if kind == "x"}
            if self.reading.apart & {f.index for f in chain}:
                raise UnsupportedError(
                    "fires in two directions that no tensor has together", hint="write s = (u >= θ) - (u <= -θ)"
                )
            if names & self.reading.changed:
                raise UnsupportedError("reads a tensor that is changed in place", hint="write x = x + y instead")
            if self._has_second_state(chain):
                raise UnsupportedError(
                    "has a second state, such as a synaptic current: what charges it in one time step is made of what "
                    "charged it in the step before, and a neuron of the graph keeps one number, its membrane",
                    hint="use cells without a current: norse LIFBoxCell or IAFCell, snntorch Leaky",
                )
            candidates = list(forms(chain))
            trial = Trial(self.before, self.reading, chain)
            form = next((f for f in candidates if trial.alike(f, exact=True)), None)
            rounds = form is None
            form = form or next((f for f in candidates if trial.alike(f, exact=False)), None)
            if form is None:
                raise UnsupportedError("computes a membrane that is none of a known neuron")
        except UnsupportedError as error:
            self.refused |= {f.call.name: error for f in chain}
            return
        path = self._path(chain, form)
        notices = ("it computes in another order than the graph: membranes can differ by rounding",) if rounds else ()
        params = {k: v for k, v in form.levels.items() if v.size > 1 or k == "initial"}
        self.neurons[path] = NeuronModule(form.op, False, params, notices)
        for firing, drive in zip(chain, form.drives, strict=True):
            self._replace(firing, drive, path)
        self.found[_Found(chain[-1].call.source or chain[-1].call.path, described(form.op))] += 1

    def _has_second_state(self, chain: Sequence[Firing]) -> bool:
        """True if the last drive is computed from the one before, without a spike between."""
        if len(chain) < 3:
            return False
        before, last = ({m: x for m, x in f.charge.items() if m and m[0][0] == "x"} for f in chain[-2:])
        if len(chain) > 3 and set(before) == set(last):  # one tensor, of which every step has another part
            return any(not same(before[m], last[m]) for m in last)
        made = {c.name: c for c in self.before.calls}
        fired = {f.call.name for f in self.reading.firings}
        earlier, waiting = ({str(m[0][1]) for m in drive} for drive in (before, last))
        earlier -= waiting
        seen: set[str] = set()
        while waiting:
            call = made.get(waiting.pop())
            if call is not None and call.name not in fired and call.target != NEURON_CALL:
                read = set(call.references()) - seen
                waiting, seen = waiting | read, seen | read
        return bool(earlier & seen)

    def _path(self, chain: Sequence[Firing], form: Form) -> str:
        """Name of the neuron: the module that charges it, numbered where that has several."""
        charge = next((c for c in self.before.calls if c.name == chain[-1].root and len(chain) > 1), chain[-1].call)
        base, count = charge.path or "neuron", 1
        path = base
        memoryless = form.op.decay == 0.0
        while path in self.neurons and not (memoryless and self.neurons[path].op == form.op):
            count += 1
            path = f"{base}#{count}"
        return path

    def _replace(self, firing: Firing, drive: Poly, path: str) -> None:
        call = firing.call
        calls = list(self._drive(call, drive))
        source = calls[-1].name if calls else _single(drive, self._spikes)
        name = f"{call.name}.spikes" if firing.inverted else call.name
        calls.append(Call(name, NEURON_CALL, (Ref(source), path), {}, call.path, False, call.source))
        self.shapes[name] = self.shapes[call.name]
        self._spikes[firing.index] = name
        if firing.inverted:
            calls.append(replace(call, target="aten.rsub.Scalar", args=(Ref(name), 1), kwargs={}))
        self.instead[call.name] = calls

    def _drive(self, call: Call, drive: Poly) -> list[Call]:
        """Calls that compute a drive; none if it is a tensor of the program."""
        terms = ordered(drive)
        bias = drive.get(())
        if len(terms) == 1 and same(terms[0][1], _ONE) and bias is None:
            return []
        calls: list[Call] = []

        def made(target: str, *args: Any) -> Ref:
            name = f"{call.name}.drive{len(calls)}"
            calls.append(Call(name, target, args, {}, call.path, False, call.source))
            self.shapes[name] = self.shapes[call.name]
            return Ref(name)

        total: Ref | None = None
        for atom, factor in terms:
            term = Ref(str(atom[1]) if atom[0] == "x" else self._spikes[int(atom[1])])
            if not same(factor, _ONE):
                term = made("aten.mul.Tensor", term, self._constant(call, factor))
            total = term if total is None else made("aten.add.Tensor", total, term)
        if total is None:
            raise UnsupportedError("a neuron without a drive")
        if bias is not None:
            made("aten.add.Tensor", total, self._constant(call, bias))
        return calls

    def _constant(self, call: Call, value: np.ndarray) -> float | Ref:
        if value.size == 1:
            return float(value.reshape(()))
        name = f"{call.name}.constant{len(self.tensors)}"
        self.tensors[name] = torch.from_numpy(value)
        return Ref(name)

    def _membranes(self) -> frozenset[str]:
        """Calls that compute membranes in modules that fire and are no neurons: the reason is said once for all."""
        places = {c.path for c in self.before.calls if c.name in self.refused and c.path}
        inside = (c.name for c in self.before.calls if any(f"{c.path}.".startswith(f"{p}.") for p in places))
        return frozenset(name for name in inside if name in self.reading.state and name not in self.refused)

    def program(self) -> Program:
        """The program with everything replaced, and without what nothing needs any more."""
        calls: list[Call] = []
        names: dict[str, Ref] = {}
        for before in self.before.calls:
            call = replace(before, args=renamed(before.args, names)) if names else before
            index, complement = self.reading.repeated.get(call.name, (-1, False))
            if (call.name in self.instead or index in self._spikes) and Aliases.in_place(call):
                names[call.references()[0]] = Ref(call.name)
            if call.name in self.instead:
                calls += self.instead[call.name]
            elif index in self._spikes:
                calls.append(_again(call, self._spikes[index], complement))
            elif call.target in _LIKE:  # the other tensor says a type, and may be a membrane
                calls.append(replace(call, target="aten.alias.default", args=call.args[:1], kwargs={}))
            else:
                calls.append(call)
        used = {name for c in self.before.calls for name in c.references()}
        notices = tuple(
            f"{n} neuron{'s' if n > 1 else ''} found in {f.place or 'the model'}: {f.words}"
            for f, n in self.found.items()
        )
        return replace(
            self.before,
            calls=needed(calls, self.before.outputs, self.reading.state, used),
            neurons=self.neurons,
            tensors=self.tensors,
            shapes=self.shapes,
            notices=(*self.before.notices, *notices),
            written=tuple(path for path in self.neurons if path not in self.before.neurons),
            refused=self.refused,
            membranes=self._membranes(),
        )


def _single(drive: Poly, spikes: Mapping[int, str]) -> str:
    (((kind, name),),) = (m for m in drive if m)
    return str(name) if kind == "x" else spikes[int(name)]


def _again(call: Call, spikes: str, complement: bool) -> Call:
    """A call whose result is spikes, or 1 - spikes."""
    if complement:
        return replace(call, target="aten.rsub.Scalar", args=(Ref(spikes), 1), kwargs={})
    return replace(call, target="aten.alias.default", args=(Ref(spikes),), kwargs={})
