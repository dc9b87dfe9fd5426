"""Which mean value belongs to which operand of a network."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fractions import Fraction

from qkf_deploy.errors import InputError
from qkf_deploy.hw_models.network_shape import LayerShape, NetworkShape
from qkf_deploy.hw_models.rate_table import RateTable

#: Layers whose row is the mean of what they read; all others are named for what leaves them.
_READERS = ("conv", "linear", "sum")
#: Two rows about one value may differ by the digits that a table leaves out.
_ROUNDING = Fraction(1, 100)
_SHOWN = 10


class Means:
    """Mean values of a network's operands, from a table that names layers; collects what is missing.

    Args:
        network: layers.
        rates: the table.
        virtual_steps: a spike may stand for up to D spikes, so that means above 1 are legal.

    Raises:
        InputError: rows of layers that do not exist or carry no events, means that no spikes can have, rows that
            contradict each other.
    """

    def __init__(self, network: NetworkShape, rates: RateTable, *, virtual_steps: bool = False) -> None:
        self._layers = {layer.name: layer for layer in network}
        self._rates = rates
        self._missing: dict[str, None] = {}
        self._used: dict[str, Fraction] = {}
        self._readers = _readers(network)
        self._check_names()
        for name in rates.means:
            self._check_row(self._layers[name], virtual_steps)

    def of(self, layer: LayerShape) -> Fraction:
        """Mean of what a layer with one operand reads; 0 and remembered as missing where nothing says it."""
        return self._found(layer, layer.name, self._input(layer))

    def of_operand(self, layer: LayerShape, index: int) -> Fraction:
        """Mean of one operand of a product."""
        return self._found(layer, layer.sources[index], self._output(layer.sources[index]))

    def used(self, layer: LayerShape) -> Fraction | None:
        """The mean (of a product the smallest) that went into the price of a layer."""
        return self._used.get(layer.name)

    def is_attention(self, layer: LayerShape) -> bool:
        """True for a sum that a neuron reads; the sum over tokens before the readout is none."""
        return any(reader.op == "neuron" for reader in self._readers.get(layer.name, ()))

    def check(self) -> None:
        """Raises InputError that names every layer whose mean was needed and is not there."""
        if self._missing:
            names = list(self._missing)
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise InputError(
                f"no rate for {', '.join(names[:_SHOWN])}{more}",
                where=self._rates.where,
                hint="add a row for each; of an operand of attention, the neuron it comes from",
            )

    def _found(self, layer: LayerShape, name: str, mean: Fraction | None) -> Fraction:
        if mean is None:
            self._missing[name] = None
            return Fraction(0)
        self._used[layer.name] = min(mean, self._used.get(layer.name, mean))
        return mean

    def _input(self, layer: LayerShape) -> Fraction | None:
        own = self._rates.means.get(layer.name)
        return self._output(layer.sources[0]) if own is None else own

    def _output(self, name: str) -> Fraction | None:
        """Mean of what leaves a layer: its own row, or the sum of what an addition of events adds."""
        layer = self._layers.get(name)
        if layer is None or layer.op in _READERS:
            return None
        if name in self._rates.means:
            return self._rates.means[name]
        if layer.op != "add" or not layer.reads_events:
            return None
        parts = [self._output(source) for source in layer.sources]
        known = [part for part in parts if part is not None]
        return sum(known, start=Fraction(0)) if len(known) == len(parts) else None

    def _check_names(self) -> None:
        for name in self._rates.means:
            if name not in self._layers:
                close = difflib.get_close_matches(name, self._layers, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "`qkf-deploy inspect` lists the layers of a network"
                raise self._rates.error(name, "the network has no such layer", hint)

    def _check_row(self, layer: LayerShape, virtual_steps: bool) -> None:
        mean = self._rates.means[layer.name]
        if layer.op in _READERS and not layer.reads_events:
            if mean != 1:
                raise self._rates.error(
                    layer.name, f"reads real values, which have no firing rate (here {float(mean):.4g})",
                    "leave the row out",
                )  # fmt: skip
            return
        if layer.op == "matmul":
            raise self._rates.error(
                layer.name, "a product has two operands", f"give {' and '.join(layer.sources)} instead"
            )
        if layer.op not in (*_READERS, "neuron") and not layer.reads_events:
            raise self._rates.error(layer.name, "carries drives, which have no firing rate", "leave the row out")
        self._check_bound(layer, mean, virtual_steps)
        self._check_agreement(layer, mean)

    def _check_bound(self, layer: LayerShape, mean: Fraction, virtual_steps: bool) -> None:
        bound = layer.input_bounds[0] if layer.op in _READERS else self._bound(layer)
        if bound is not None and mean > bound and not virtual_steps:
            raise self._rates.error(
                layer.name,
                f"mean value {float(mean):.4g}, but what it is of is at most {bound}",
                "percent belong into a column rate_percent; means over virtual time steps need a profile with "
                "virtual_steps, such as e-spikeformer",
            )

    def _bound(self, layer: LayerShape) -> int | None:
        """Largest value that leaves a layer, as its readers see it."""
        for reader in self._readers.get(layer.name, ()):
            return reader.input_bounds[reader.sources.index(layer.name)]
        return None

    def _check_agreement(self, layer: LayerShape, mean: Fraction) -> None:
        if layer.op not in _READERS:
            return
        source = self._output(layer.sources[0])
        if source is not None and abs(source - mean) > _ROUNDING * max(source, mean):
            raise self._rates.error(
                layer.name,
                f"reads {layer.sources[0]}, whose rows say {float(source):.4g}, not {float(mean):.4g}",
                "keep the row that is right",
            )


def _readers(network: NetworkShape) -> dict[str, Sequence[LayerShape]]:
    out: dict[str, list[LayerShape]] = {}
    for layer in network:
        for source in layer.sources:
            out.setdefault(source, []).append(layer)
    return {name: tuple(readers) for name, readers in out.items()}
