"""A program that simulates a network whose neurons hang; the tests end it from outside."""

import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # netbuild

import lava_cases

from qkf_deploy.simulators.lava import bridge

# As in a terminal: a program that a shell starts in the background would ignore the key press.
signal.signal(signal.SIGINT, signal.default_int_handler)
bridge._WORKER = "lava_faulty_worker"
case = lava_cases.network_case()
bridge.run(case.graph, case.inputs, timeout_s=60, granularity="operator")
