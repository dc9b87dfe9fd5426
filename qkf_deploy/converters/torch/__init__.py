"""Torch models: reading checkpoints and factories, and tracing modules to graphs."""
