"""qkf-deploy: spiking transformers from a trained checkpoint to exact integer networks, operation counts and energy.

>>> import qkf_deploy as qd
>>> net = qd.trace("checkpoint.pth")                                   # doctest: +SKIP
>>> run = qd.simulate(qd.quantize(net, bits=8), images)                # doctest: +SKIP
>>> qd.price(run.ledger, "paper-eq23").mean_energy_pj                  # doctest: +SKIP

Everything public is in :mod:`qkf_deploy.api`, which is imported when the first of it is used.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qkf_deploy.api import *  # noqa: F403
    from qkf_deploy.api import __all__ as __all__

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """A public name of :mod:`qkf_deploy.api`, or its list of them."""
    module = f"{__name__}.{name}"
    if name == "__all__" or not (name.startswith("_") or importlib.util.find_spec(module)):
        api = importlib.import_module("qkf_deploy.api")
        if name == "__all__" or name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=None)


def __dir__() -> list[str]:
    return sorted({*globals(), *importlib.import_module("qkf_deploy.api").__all__})
