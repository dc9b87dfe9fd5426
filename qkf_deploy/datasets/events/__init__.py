"""Recordings of event cameras: their file formats, and frames of events."""
