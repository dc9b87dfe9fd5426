"""`spikingjelly.cext.neuron` (SpikingJelly up to 0.0.0.0.4): the same neurons as CUDA kernels, other arguments.

The surrogate function is a name with its ``alpha``, and both come before ``detach_reset``.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from qkf_deploy.converters.torch.compat.stand_in import StandIn


def modules() -> dict[str, ModuleType]:
    """The package and its modules by name."""
    from spikingjelly.activation_based import neuron as new
    from spikingjelly.activation_based import surrogate

    def function(name: Any, alpha: float) -> Any:
        return getattr(surrogate, name)(alpha=alpha) if isinstance(name, str) else name

    def if_node(mode: str) -> type:
        class IFNode(new.IFNode):
            def __init__(
                self, v_threshold: float = 1.0, v_reset: float | None = 0.0, surrogate_function: Any = "ATan",
                alpha: float = 2.0, detach_reset: bool = False,
            ) -> None:  # fmt: skip
                super().__init__(v_threshold, v_reset, function(surrogate_function, alpha), detach_reset, mode)

        return IFNode

    def lif_node(mode: str) -> type:
        class LIFNode(new.LIFNode):
            def __init__(
                self, tau: float = 100.0, detach_input: bool = False, v_threshold: float = 1.0,
                v_reset: float | None = 0.0, surrogate_function: Any = "ATan", alpha: float = 2.0,
                detach_reset: bool = False,
            ) -> None:  # fmt: skip
                step = function(surrogate_function, alpha)
                super().__init__(tau, True, v_threshold, v_reset, step, detach_reset, mode)

        return LIFNode

    def plif_node(mode: str) -> type:
        class ParametricLIFNode(new.ParametricLIFNode):
            def __init__(
                self, init_tau: float = 2.0, detach_input: bool = False, v_threshold: float = 1.0,
                v_reset: float | None = 0.0, surrogate_function: Any = "ATan", alpha: float = 2.0,
                detach_reset: bool = False,
            ) -> None:  # fmt: skip
                step = function(surrogate_function, alpha)
                super().__init__(init_tau, True, v_threshold, v_reset, step, detach_reset, mode)

        return ParametricLIFNode

    made = {f"{prefix}IFNode": if_node(mode) for prefix, mode in (("", "s"), ("MultiStep", "m"))}
    made |= {f"{prefix}LIFNode": lif_node(mode) for prefix, mode in (("", "s"), ("MultiStep", "m"))}
    made |= {f"{prefix}ParametricLIFNode": plif_node(mode) for prefix, mode in (("", "s"), ("MultiStep", "m"))}
    neurons = StandIn("spikingjelly.cext.neuron", made)
    return {"spikingjelly.cext": StandIn("spikingjelly.cext", {"neuron": neurons}), neurons.__name__: neurons}
