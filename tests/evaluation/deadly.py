"""Loaded by workers before they work: reading sample 40 of a data set called ``deadly`` ends the process."""

import os
import signal

from qkf_deploy.evaluation.job import Bench

if Bench.read.__name__ == "read":
    real = Bench.read

    def deadly(self, indices):
        if "deadly" in self.job.data_path and 40 in indices:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, indices)

    Bench.read = deadly
