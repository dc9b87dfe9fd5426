"""Engines: the reference (numpy, plainly right) and the fast ones that must equal it."""
