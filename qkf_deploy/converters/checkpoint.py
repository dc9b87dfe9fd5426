"""Moved to :mod:`qkf_deploy.converters.torch.checkpoint`; scripts that load checkpoints from here still work."""

from qkf_deploy.converters.torch.checkpoint import load_model

__all__ = ["load_model"]
