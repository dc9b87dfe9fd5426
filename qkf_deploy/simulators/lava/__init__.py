"""Integer graphs as Lava processes (lava-nc 0.10, CPython 3.10 only), in an environment without torch and numba."""
