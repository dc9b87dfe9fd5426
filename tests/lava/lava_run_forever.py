"""A program that simulates a network whose neurons hang; the tests end it from outside."""

import lava_cases

from qkf_deploy.simulators.lava import bridge

bridge._WORKER = "lava_faulty_worker"
case = lava_cases.network_case()
bridge.run(case.graph, case.inputs, timeout_s=60, granularity="operator")
