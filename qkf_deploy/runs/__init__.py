"""Stored runs: what one simulation leaves behind for energy, reports and mapping."""
