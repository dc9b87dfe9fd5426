"""A mapped network and the events of one image as files for SANA-FE (Boyle et al., IEEE TCAD 44(8), 2025; 2.2.9).

SANA-FE's neurons cannot execute what a spiking transformer needs (products of spikes, max pooling, residual counts),
so the traffic is replayed: its ``input`` soma fires given spike trains. Every core gets

- as many neurons as it has, with the prices of a neuron: they fire at the steps at which the core's neurons fire;
- free neurons that send its messages, one for each event that can leave in one step, among the others in order;
- one free neuron for each kind of synaptic operation, which every message meets as often as it causes operations.

Synapses have weight 0: the input soma takes no current.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.architecture.chip import Core, Operation
from qkf_deploy.hw_models.timing.latency import latency
from qkf_deploy.hw_models.timing.mesh import EAST, NORTH
from qkf_deploy.hw_models.timing.steps import SYNAPTIC, Schedule, step_energy, step_times
from qkf_deploy.hw_models.timing.traffic import Traffic
from qkf_deploy.writing import new_folder

ARCHITECTURE, NETWORK, EXPECTED, SCRIPT = "architecture.yaml", "network.yaml", "expected.json", "run.py"
#: Synapses are listed one by one: SANA-FE reads about a million in a few seconds.
MOST_SYNAPSES = 5_000_000
#: Neurons that one of SANA-FE's dendrite units holds.
_DENDRITE = 1024
_NAMES = {"": "add"}
_SCRIPT = '''"""Replay the traffic in SANA-FE (`pip install sanafe`): what it says, beside what was expected."""

import json
from pathlib import Path

import sanafe

here = Path(__file__).parent
expected = json.loads((here / "expected.json").read_text())
for model in ("simple", "detailed"):
    arch = sanafe.load_arch(str(here / "architecture.yaml"))
    chip = sanafe.SpikingChip(arch)
    chip.load(sanafe.load_net(str(here / "network.yaml"), arch))
    found = chip.sim(expected["steps"], timing_model=model)
    print(f"{model} time: {found['sim_time'] * 1e9:.1f} ns, expected {expected['time_ns'][model]:.1f} ns")
for name, pj in expected["energy_pj"].items():
    print(f"{name}: {found['energy'][name] * 1e12:.1f} pJ, expected {pj:.1f} pJ")
'''


@dataclass(frozen=True)
class _Trains:
    """Neurons of one core in the order in which it goes through them: (place, soma, spike train)."""

    core: int
    neurons: list[tuple[float, str, np.ndarray]] = field(default_factory=list)

    def add(self, soma: str, counts: np.ndarray, size: int) -> list[int]:
        """``size`` neurons, of which ``counts[t]`` fire at step t, spread evenly; returns their keys."""
        trains = np.zeros((size, len(counts)), bool)
        for step, count in enumerate(counts.tolist()):
            trains[(2 * np.arange(count) + 1) * size // (2 * count) if count else [], step] = True
        first = len(self.neurons)
        self.neurons.extend(((i + 0.5) / size, soma, train) for i, train in enumerate(trains))
        return list(range(first, len(self.neurons)))


def write_sana_fe(schedule: Schedule, folder: str | Path) -> tuple[str, ...]:
    """Write ``architecture.yaml``, ``network.yaml``, what we expect of them, and a script that runs them.

    Args:
        schedule: a pipelined one, of measured traffic, on one chip.
        folder: a place where nothing is, or an empty folder.

    Returns:
        Sentences about what SANA-FE cannot say and what is done instead.

    Raises:
        UsageError: several chips, multicast, or more synapses than SANA-FE can be expected to read.
        InputError: the folder has files, or cannot be written.
    """
    traffic, mesh = schedule.traffic, schedule.mesh
    if mesh.chips > 1:
        raise UsageError(
            f"the network needs {mesh.chips} chips, SANA-FE describes one", hint="a chip file with a larger mesh"
        )
    if mesh.network.multicast:
        raise UsageError("SANA-FE sends a message for every target", hint="a chip file with multicast = false")
    synapses = sum(sum(send.all_fan_out) * int(send.events.max()) for send in traffic.sends)
    if synapses > MOST_SYNAPSES:
        raise UsageError(
            f"{synapses:,} synapses are in use, {MOST_SYNAPSES:,} can be written", hint="export a smaller network"
        )
    builder = _Builder(schedule)
    said = _cannot_say(schedule)
    times = step_times(schedule)
    energy = step_energy(schedule)
    expected = {
        "steps": schedule.steps,
        "energy_pj": {
            "synapse": float(energy["synapses"]),
            "dendrite": 0.0,
            "soma": float(energy["neurons"]),
            "network": float(energy["messages"] + energy["hops"]),
            "total": float(sum(energy.values())),
        },
        "time_ns": {"simple": float(sum(times.simple_ns())), "detailed": latency(schedule).latency_ns},
        "packets_sent": int(schedule.sent().sum()),
        "said": said,
    }
    with new_folder(folder) as out:
        (out / ARCHITECTURE).write_text("\n".join(builder.architecture()) + "\n")
        (out / NETWORK).write_text("\n".join(builder.network()) + "\n")
        (out / EXPECTED).write_text(json.dumps(expected, indent=1) + "\n")
        (out / SCRIPT).write_text(_SCRIPT)
    return said


def _cannot_say(schedule: Schedule) -> tuple[str, ...]:
    """What is replayed or left out, and how."""
    said = ["Traffic is replayed: neurons fire the measured spike trains, weights are not written."]
    kinds = {work for send in schedule.traffic.sends for work in send.fan_out}
    if schedule.traffic.comparisons.any():
        said.append("SANA-FE has no max pooling: the comparisons of a core are in the price of its neurons.")
    for kind, what in (
        ("and", "products of spikes and gates"),
        ("compare", "pooling of spikes"),
        ("multiply", "pixels"),
    ):
        if kind in kinds:
            said.append(
                f"SANA-FE has no {what}: their messages and operations are replayed at the price of the chip file."
            )
    said += [f"no time for {name} in the chip file: written as 0" for name in step_times(schedule).left_out]
    lanes = {name for core in schedule.chip.cores for name, op in core.operations.items() if (op.lanes or 1) > 1}
    said += [f"{name}: a core's lanes are written as one that is as fast as all" for name in sorted(lanes)]
    return tuple(said)


class _Builder:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.mesh, self.traffic = schedule, schedule.mesh, schedule.traffic
        self.kinds = sorted({work for send in self.traffic.sends for work in send.fan_out})
        self.trains = [_Trains(core) for core in range(self.traffic.cores)]
        fired = schedule.fired()
        for core, trains in enumerate(self.trains):
            trains.add("neuron", fired[:, core], int(self.traffic.neurons[core]))
        on_chip = schedule.on_chip(
            np.stack([s.events for s in self.traffic.sends], axis=1),
            schedule.start[[s.source for s in self.traffic.sends]],
        )
        self.senders = [
            self.trains[send.source].add("free", events, int(send.events.max()))
            for send, events in zip(self.traffic.sends, on_chip.T, strict=True)
        ]
        self.sinks = [{k: trains.add("free", fired[:, 0] * 0, 1)[0] for k in self.kinds} for trains in self.trains]

    def tiles(self) -> Iterator[tuple[tuple[int, int], list[int]]]:
        """Tiles in SANA-FE's order, column by column, with their cores."""
        at: dict[tuple[int, int], list[int]] = {}
        for core in range(self.traffic.cores):
            at.setdefault(self.mesh.tile(core), []).append(core)
        for column in range(self.mesh.columns):
            for row in range(self.mesh.network.rows):
                yield (column, row), at.get((column, row), [])

    def architecture(self) -> Iterator[str]:
        network = self.mesh.network
        yield f"# {self.schedule.chip.title}: {self.schedule.chip.citation}"
        yield "architecture:"
        yield "  name: chip"
        attributes = {
            "topology": "mesh",
            "width": self.mesh.columns,
            "height": network.rows,
            "link_buffer_size": network.queue_messages or 16,
            "sync_model": "fixed",
            "latency_sync": _seconds(self.schedule.barrier_ns),
        }
        yield f"  attributes: {_flow(attributes)}"
        yield "  tile:"
        across, along = self._hop("east_west", EAST), self._hop("north_south", NORTH)
        for (column, row), cores in self.tiles():
            hops = {f"energy_{d}_hop": across[0] for d in ("east", "west")}
            hops |= {f"energy_{d}_hop": along[0] for d in ("north", "south")}
            hops |= {f"latency_{d}_hop": across[1] for d in ("east", "west")}
            hops |= {f"latency_{d}_hop": along[1] for d in ("north", "south")}
            yield f"    - name: tile_{column}_{row}"
            yield f"      attributes: {_flow(hops)}"
            yield "      core:"
            for core in cores or [None]:
                yield from self._core(core)

    def _hop(self, name: str, direction: int) -> tuple[str, str]:
        link = self.mesh.network.links.get(name)
        bits = (self.mesh.network.message_bits or 1) if link is not None and link.per == "bit" else 1
        pj = Fraction(0) if link is None or link.pj is None else Fraction(link.pj.nominal) * bits
        return _joules(pj), _seconds(self.schedule.hop_ns[direction] or Fraction(0))

    def _core(self, index: int | None) -> Iterator[str]:
        kind = self.schedule.core(index or 0)
        trains = self.trains[index].neurons if index is not None else []
        price = _Prices(self.schedule, kind)
        yield f"        - name: core_{index}"
        held = max(len(trains), 1)
        attributes = {"buffer_position": "soma", "buffer_inside_unit": "false", "max_neurons_supported": held}
        yield f"          attributes: {_flow(attributes)}"
        taken = {"energy_message_in": price.pj("receive"), "latency_message_in": price.ns("receive")}
        yield f"          axon_in: [{{name: in, attributes: {_flow(taken)}}}]"
        yield "          synapse:"
        for synapse in self.kinds or [""]:
            operation, layer = SYNAPTIC[synapse]
            costs = {
                "model": "current_based",
                "energy_process_spike": price.pj(operation, layer=layer),
                "latency_process_spike": price.ns(operation, layer=layer),
            }
            yield f"            - {{name: {_NAMES.get(synapse, synapse)}, attributes: {_flow(costs)}}}"
        free = {"model": "accumulator", "energy_update": 0.0, "latency_update": 0.0}
        yield "          dendrite:"
        for part in range(-(-held // _DENDRITE)):
            yield f"            - {{name: sum_{part}, attributes: {_flow(free)}}}"
        yield "          soma:"
        access = (*price.access(self.traffic, index), price.pj("neuron_fire"), price.ns("neuron_fire"))
        for name, (pj, ns, fire_pj, fire_ns) in (("neuron", access), ("free", ("0.0",) * 4)):
            count = sum(soma == name for _, soma, _ in trains)
            if count or (name == "free" and not trains):
                costs = {
                    "model": "input",
                    **{"energy_access_neuron": pj, "energy_update_neuron": "0.0", "energy_spike_out": fire_pj},
                    **{"latency_access_neuron": ns, "latency_update_neuron": "0.0", "latency_spike_out": fire_ns},
                }
                yield f'            - {{name: "{name}[0..{max(count, 1) - 1}]", attributes: {_flow(costs)}}}'
        sent = {"energy_message_out": price.pj("send"), "latency_message_out": price.ns("send")}
        yield f"          axon_out: [{{name: out, attributes: {_flow(sent)}}}]"

    def network(self) -> Iterator[str]:
        yield "network:"
        yield "  name: replay"
        yield "  groups:"
        for trains in self.trains:
            if trains.neurons:
                yield f"    - name: c{trains.core}"
                yield "      neurons:"
                for number, (_, _, train) in enumerate(trains.neurons):
                    yield f"        - {number}: {{soma: {{spikes: [{', '.join(map(str, train.astype(int)))}]}}}}"
        yield "  edges:"
        pairs: dict[tuple[int, int], list[str]] = {}
        for send, senders in zip(self.traffic.sends, self.senders, strict=True):
            for work, fan_out in send.fan_out.items():
                for target, count in zip(send.targets, fan_out, strict=True):
                    listed = [f"[{sender}, {self.sinks[target][work]}]" for sender in senders for _ in range(count)]
                    pairs.setdefault((send.source, target), []).extend(listed)
        for (source, target), listed in pairs.items():
            if listed:
                weights = ", ".join("0" * len(listed))
                yield f"    - c{source} -> c{target}:"
                yield f"        {{type: sparse, source_target_pairs: [{', '.join(listed)}], weight: [{weights}]}}"
        yield "mappings:"
        for number, (_, cores) in enumerate(self.tiles()):
            for offset, core in enumerate(cores):
                yield from self._mappings(core, f"{number}.{offset}")

    def _mappings(self, core: int, place: str) -> Iterator[str]:
        """Where each neuron is, in the order in which the core goes through them."""
        trains = self.trains[core].neurons
        synapse = {number: kind for kind, number in self.sinks[core].items()}
        numbers = {"neuron": 0, "free": 0}
        for number, key in enumerate(sorted(range(len(trains)), key=lambda k: trains[k][0])):
            soma = trains[key][1]
            attributes = {"core": place, "soma": f'"{soma}[{numbers[soma]}]"', "dendrite": f"sum_{number // _DENDRITE}"}
            if key in synapse:
                attributes["synapse"] = _NAMES.get(synapse[key], synapse[key])
            numbers[soma] += 1
            yield f"  - c{core}.{key}: {_flow(attributes)}"


@dataclass(frozen=True)
class _Prices:
    schedule: Schedule
    core: Core

    def pj(self, *names: str, layer: str = "") -> str:
        """Energy of one item of several operations together."""
        found = [self.core.operation(name, layer) for name in names]
        return _joules(sum((Fraction(op.pj.nominal) for op in found if op is not None and op.pj), Fraction(0)))

    def ns(self, *names: str, layer: str = "") -> str:
        """Time of one item of several operations, one after another."""
        return _seconds(sum((self._item(self.core.operation(name, layer)) for name in names), Fraction(0)))

    def access(self, traffic: Traffic, index: int | None) -> tuple[str, str]:
        """Energy and time of a neuron at one step, with its part of the core's comparisons."""
        found = [self.core.operation(name) for name in ("neuron", "neuron_driven", "compare")]
        counts = [Fraction(1), Fraction(1), Fraction(0)]
        if index is not None and traffic.neurons[index]:
            counts[2] = Fraction(int(traffic.comparisons[index]), int(traffic.neurons[index]))
        pj = sum(
            (n * Fraction(op.pj.nominal) for n, op in zip(counts, found, strict=True) if op and op.pj), Fraction(0)
        )
        return _joules(pj), _seconds(
            sum((n * self._item(op) for n, op in zip(counts, found, strict=True)), Fraction(0))
        )

    def _item(self, operation: Operation | None) -> Fraction:
        batch = None if operation is None else self.schedule.chip.batch_ns(operation)
        return Fraction(0) if operation is None or batch is None else batch / (operation.lanes or 1)


def _flow(attributes: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in attributes.items()) + "}"


def _joules(pj: Fraction) -> str:
    return repr(float(pj / 10**12))


def _seconds(ns: Fraction) -> str:
    return repr(float(ns / 10**9))
