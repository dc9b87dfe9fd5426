"""Spike agreement, layer by layer: torch model, float graph, integer graph.

"Forced" feeds every layer the reference's spikes, so a difference belongs to that layer; "free" lets the network run on
its own, which is what a user sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.overview import Overview, SelfDescribing, largest
from qkf_deploy.display.tables import Field, summed, tabulate
from qkf_deploy.errors import CheckFailed, GraphError, InputError
from qkf_deploy.ir import Assumption, Graph, Node
from qkf_deploy.ops import Neuron
from qkf_deploy.simulators import engines
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record, Run, is_neuron

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame

#: A membrane this close to its threshold (relative) is a tie: float rounding alone can flip the spike.
TIE_TOLERANCE = 1e-9

Spikes = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LayerAgreement:
    """Agreement of one neuron layer over all images and steps.

    Attributes:
        name: node name.
        outputs: neuron outputs compared.
        spikes: spikes of the reference among them.
        differ_forced: outputs that differ when the layer is fed the reference's spikes.
        differ_ties: those of them whose membrane lies within :data:`TIE_TOLERANCE` of the threshold (float graphs).
        differ_free: outputs that differ when the network runs on its own.
    """

    name: str
    outputs: int
    spikes: int
    differ_forced: int
    differ_ties: int
    differ_free: int


@dataclass(frozen=True, repr=False)
class Agreement(SelfDescribing):
    """Agreement of a network with a reference.

    Attributes:
        layers: in network order.
        logit_difference: largest absolute difference of the logits, free.
        predicted, reference_predicted: class of every image (of a map: its largest element), int64 ``(B,)``.
        shared: assumed of both, so that no difference would show if it is wrong.
    """

    layers: tuple[LayerAgreement, ...]
    logit_difference: float
    predicted: np.ndarray
    reference_predicted: np.ndarray
    shared: tuple[Assumption, ...] = ()

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.predicted)

    @property
    def same_class(self) -> int:
        """Images with the same predicted class."""
        return int((self.predicted == self.reference_predicted).sum())

    @property
    def differ_forced(self) -> int:
        """Sum over layers."""
        return sum(layer.differ_forced for layer in self.layers)

    @property
    def differ_free(self) -> int:
        """Sum over layers."""
        return sum(layer.differ_free for layer in self.layers)

    @property
    def differ_ties(self) -> int:
        """Sum over layers."""
        return sum(layer.differ_ties for layer in self.layers)

    @property
    def outputs(self) -> int:
        """Sum over layers."""
        return sum(layer.outputs for layer in self.layers)

    def overview(self) -> Overview:
        """Headline, the layers that differ most, difference of the logits."""
        shown, left_out = largest(
            self.layers, lambda layer: (layer.differ_free, layer.differ_forced), "layers, those that differ most"
        )
        headline = (
            f"agreement on {quantity(self.images, 'image')}: same class on {self.same_class:,}, "
            f"{self.differ_free:,} of {self.outputs:,} neuron outputs differ"
        )
        notes = (
            "forced: every layer is fed the reference's spikes; free: the network runs on its own",
            "ties: differences, forced, where the membrane lies within rounding of its threshold",
            f"free, the logits differ by at most {self.logit_difference:.3g}",
        )
        return Overview(headline, tabulate("", _FIELDS, shown, self.layers), (*left_out, *notes))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "images": self.images,
            "same_class": self.same_class,
            "logit_difference": self.logit_difference,
            "predicted": self.predicted.tolist(),
            "reference_predicted": self.reference_predicted.tolist(),
            "layers": [asdict(layer) for layer in self.layers],
        }

    def to_pandas(self) -> DataFrame:
        """One row per neuron layer, the attributes of :class:`LayerAgreement`.

        Raises:
            MissingComponent: pandas is not installed.
        """
        records = [asdict(layer) for layer in self.layers]
        return data_frame(records, [f.name for f in fields(LayerAgreement)], images=self.images)


_FIELDS: tuple[Field[LayerAgreement], ...] = (
    Field("name", "layer", lambda layer: layer.name, left=True),
    summed("outputs", "outputs", lambda layer: layer.outputs),
    summed("spikes", "spikes", lambda layer: layer.spikes),
    summed("differ_forced", "differ, forced", lambda layer: layer.differ_forced),
    summed("differ_ties", "ties", lambda layer: layer.differ_ties),
    summed("differ_free", "differ, free", lambda layer: layer.differ_free),
)


#: Reference for a batch of images: spikes of every neuron and logits.
Oracle = Callable[[np.ndarray], tuple[Spikes, np.ndarray]]


def graph_oracle(graph: Graph) -> Oracle:
    """The reference's spikes and logits of a graph."""
    names = [n.name for n in graph if is_neuron(n.op.kind)]

    def run(images: np.ndarray) -> tuple[Spikes, np.ndarray]:
        simulate = engines.comparable(graph, len(images))
        result = simulate(graph, encode(graph, images)[0], Record.of(graph, names))
        return result.spikes, result.logits

    return run


def compare_chain(
    oracle: Oracle,
    graphs: Sequence[Graph],
    images: np.ndarray,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Agreement, ...]:
    """Compare each graph with the one before it, and the first with the oracle, forced and free, batch by batch.

    Args:
        oracle: spikes ``(T, B, *shape)`` by node name, and logits.
        graphs: float or integer graphs of the same network.
        images: ``(B, ...)`` as :func:`qkf_deploy.simulators.inputs.encode` takes them.
        batch: images per batch.
        progress: called with (images done, images in all).

    Raises:
        GraphError: the reference lacks one of a graph's neurons.
        InputError: no images.
    """
    parts: list[list[Agreement]] = [[] for _ in graphs]
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        spikes, logits = oracle(chunk)
        for graph, found in zip(graphs, parts, strict=True):
            agreement, free = _compare_batch(graph, chunk, spikes, logits)
            found.append(agreement)
            spikes, logits = free.spikes, free.logits
        if progress is not None:
            progress(min(start + batch, len(images)), len(images))
    if not len(images):
        raise InputError("no images to compare")
    return tuple(_sum(found) for found in parts)


def _compare_batch(graph: Graph, images: np.ndarray, spikes: Spikes, logits: np.ndarray) -> tuple[Agreement, Run]:
    inputs, _ = encode(graph, images)
    neurons = [n.name for n in graph if is_neuron(n.op.kind)]
    for name in neurons:
        if name not in spikes:
            raise GraphError("the reference has no such neuron", where=name, hint="is it the same model?")
    run = engines.comparable(graph, len(images))
    free = run(graph, inputs, Record.of(graph, neurons))
    expected = {name: spikes[name].reshape(free.spikes[name].shape) for name in neurons}
    forced = free  # where nothing differs, every layer was fed the reference's spikes already
    if any((free.spikes[name] != expected[name]).any() for name in neurons):
        record = Record.of(graph, neurons, neurons if graph.arithmetic == "float" else ())
        forced = run(graph, inputs, record, replace_value=_forcing(expected))
    layers = tuple(_layer(graph, name, expected[name], forced, free.spikes[name]) for name in neurons)
    difference = float(np.abs(free.logits - logits).max())
    expected_outputs = logits if logits.ndim == free.outputs.ndim else logits.sum(axis=0)
    return Agreement(layers, difference, _largest(graph, free.outputs), _largest(graph, expected_outputs)), free


def _largest(graph: Graph, outputs: np.ndarray) -> np.ndarray:
    """Index of the largest element of each image's output, int64 ``(B,)``: its class, for one number per class."""
    flat = outputs.reshape(len(outputs), -1)
    classes = graph.classes
    return (flat if classes is None else classes.of(flat)).reshape(len(flat), -1).argmax(axis=-1)


def _forcing(expected: Spikes) -> Callable[[str, np.ndarray], np.ndarray]:
    """Makes every layer read the reference's spikes."""
    return lambda name, value: expected[name].astype(value.dtype) if name in expected else value


def _layer(graph: Graph, name: str, expected: np.ndarray, forced: Run, free: np.ndarray) -> LayerAgreement:
    wrong = forced.spikes[name] != expected
    ties = 0
    if name in forced.membranes:
        ties = int((wrong & (_margin(graph[name], forced.membranes[name]) <= TIE_TOLERANCE)).sum())
    return LayerAgreement(
        name, expected.size, int(expected.sum()), int(wrong.sum()), ties, int((free != expected).sum())
    )


def _margin(node: Node, membrane: np.ndarray) -> np.ndarray:
    """Distance of the membranes of a float neuron from where they fire, in thresholds."""
    if not isinstance(node.op, Neuron):
        raise GraphError("no float neuron", where=node.name)
    return node.op.margin(membrane, node.params)


def _sum(parts: list[Agreement]) -> Agreement:
    layers = []
    for same in zip(*(p.layers for p in parts), strict=True):
        totals = [
            sum(getattr(s, f) for s in same)
            for f in ("outputs", "spikes", "differ_forced", "differ_ties", "differ_free")
        ]
        layers.append(LayerAgreement(same[0].name, *totals))
    return Agreement(
        tuple(layers),
        max(p.logit_difference for p in parts),
        np.concatenate([p.predicted for p in parts]),
        np.concatenate([p.reference_predicted for p in parts]),
    )


def require(first: Agreement, second: Agreement, *, exact: bool = False, where: str | None = None) -> None:
    """Raises CheckFailed where networks do not agree as they must.

    Args:
        first: the float graph against the torch model: only ties at the threshold may differ.
        second: the graph in question against the float graph.
        exact: not a single spike of the second may differ.
        where: the network's name in the error.
    """
    wrong = first.differ_forced - first.differ_ties
    if wrong:
        raise CheckFailed(f"{wrong} neuron outputs of the float graph differ from the torch model", where=where)
    if exact and second.differ_free:
        raise CheckFailed(f"{second.differ_free} neuron outputs of the graph differ", where=where)
