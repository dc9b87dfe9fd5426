"""qkf-deploy: spiking transformers from a trained checkpoint to exact integer networks, operation counts and energy.

>>> import qkf_deploy as qd
>>> net = qd.trace("checkpoint.pth")                                   # doctest: +SKIP
>>> run = qd.simulate(qd.quantize(net, bits=8), images)                # doctest: +SKIP
>>> qd.price(run.ledger, "paper-eq23").total_energy_pj                 # doctest: +SKIP
"""

from qkf_deploy.api import audit, carry, compare, fold, load, price, quantize, save, simulate, trace, verify
from qkf_deploy.errors import QkfError
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger
from qkf_deploy.simulators.run import Run

__version__ = "0.1.0"

__all__ = [
    "Graph",
    "Ledger",
    "QkfError",
    "Run",
    "audit",
    "carry",
    "compare",
    "fold",
    "load",
    "price",
    "quantize",
    "save",
    "simulate",
    "trace",
    "verify",
]
