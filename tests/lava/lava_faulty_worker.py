"""A worker whose neurons misbehave as the variable FAULT says, from the third time step on."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from qkf_deploy.errors import ProofError
from qkf_deploy.simulators.lava import worker
from qkf_deploy.simulators.lava.stepping import NeuronStepper

_step = NeuronStepper._step


def _raise() -> None:
    raise ZeroDivisionError("on purpose")


def _refuse() -> None:
    raise ProofError("on purpose", hint="nothing to do")


FAULTS = {
    "raise": _raise,
    "refuse": _refuse,
    "hang": lambda: time.sleep(3600),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "kill worker": lambda: os.kill(os.getppid(), signal.SIGKILL),
}


def step(self, operands):
    if self.time == 2:
        FAULTS[os.environ["FAULT"]]()
    return _step(self, operands)


NeuronStepper._step = step

if __name__ == "__main__":
    sys.exit(worker.main(Path(sys.argv[1]), int(sys.argv[2])))
