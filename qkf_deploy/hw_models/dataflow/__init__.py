"""Layers in loops: what is read and written where, in which order, at what energy and in what time."""
