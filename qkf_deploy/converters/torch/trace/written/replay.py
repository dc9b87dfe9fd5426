"""The spikes of hand-written neurons in the model's own program: its arithmetic as it was written, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from qkf_deploy.converters.torch.source import Source
from qkf_deploy.converters.torch.trace import InputSpec, lowering
from qkf_deploy.converters.torch.trace.capture import TRACE_BATCH, export
from qkf_deploy.converters.torch.trace.precision import widened
from qkf_deploy.converters.torch.trace.written.limits import LIMITED
from qkf_deploy.errors import InputError

if TYPE_CHECKING:
    from qkf_deploy.converters.torch.trace.lowering import InputLayout


class Replay:
    """Runs a model's exported program, neurons that are modules as they are, and keeps what fires.

    Args:
        source: the model.
        modules: the neurons of it that are modules, by path, in float64.

    Raises:
        InputError: at batch size 1 the model is another program.
    """

    def __init__(self, source: Source, modules: Mapping[str, torch.nn.Module]) -> None:
        spec = InputSpec(cast("InputLayout", source.layout), source.shape, source.time_steps, source.outputs)
        low = lowering(source.model, spec)
        low.run()
        self._calls = {n: calls for n, calls in low.fired.items() if n not in modules}
        self._sizes = {n: low.builder.nodes[n].type.size for n in self._calls}
        batch = spec.tensor_shape.index(TRACE_BATCH) if source.layout == "sequence" else 0
        shape = tuple(1 if axis == batch else n for axis, n in enumerate(spec.tensor_shape))
        self._exported = export(source.model, shape)[0].module().double()
        self._limits = {n: _limits(low.builder.nodes[n].op) for n in self._calls}
        names = {n.name for n in self._exported.graph.nodes}
        if not self._watched() <= names:
            raise InputError(
                "the model is another program at batch size 1 than at 2, so its hand-written neurons cannot be watched",
                hint="compare its logits",
            )
        self._modules = modules

    def run(self, x: torch.Tensor) -> dict[str, np.ndarray]:
        """Spikes of one image by neuron, ``(T, -1)``."""
        interpreter = _Interpreter(self._exported, self._modules, self._watched())
        with torch.no_grad():
            interpreter.run(x)
        fired = {
            n: np.concatenate([_fired(interpreter.kept, c, self._limits[n]) for c in calls])
            for n, calls in self._calls.items()
        }
        return {name: spikes.reshape(-1, self._sizes[name]) for name, spikes in fired.items()}

    def _watched(self) -> set[str]:
        return {_exported_name(c) for calls in self._calls.values() for c in calls}


def _exported_name(call: str) -> str:
    """Name of a neuron call in the exported program."""
    return call.removesuffix(".spikes").removesuffix(LIMITED)


def _limits(neuron: Any) -> tuple[int, int | None]:
    """The smallest and the largest count of a neuron."""
    return (-neuron.max_spikes if neuron.signed else 0, neuron.max_spikes)


def _fired(kept: Mapping[str, torch.Tensor], call: str, limits: tuple[int, int | None]) -> np.ndarray:
    spikes = kept[_exported_name(call)].double().reshape(-1).numpy()
    if call.endswith(LIMITED):
        return np.clip(spikes, *limits)  # the model does so to what it makes of them
    return 1.0 - spikes if call.endswith(".spikes") else spikes


class _Interpreter(torch.fx.Interpreter):
    def __init__(self, module: Any, neurons: Mapping[str, torch.nn.Module], watched: set[str]) -> None:
        super().__init__(module)
        self.neurons, self.watched = neurons, watched
        self.kept: dict[str, torch.Tensor] = {}

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is torch.ops.qkf_deploy.neuron.default:
            return self.neurons[args[1]](args[0])
        if target is torch.ops.aten._assert_tensor_metadata.default:  # of the types as exported, not in float64
            return None
        return super().call_function(target, widened(args), {k: widened(v) for k, v in kwargs.items()})

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return widened(super().get_attr(target, args, kwargs), tensors=True)  # a constant of the code may be no buffer

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.watched:
            self.kept[n.name] = result.detach().clone()
        return result
