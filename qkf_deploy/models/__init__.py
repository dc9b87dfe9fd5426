"""QKFormer and its kin as torch modules, with the official checkpoint layouts.

Architectures (:class:`QKFormerConfig`, :data:`BUILDS`, :func:`build_config`, :func:`recognise`) need no torch. What
makes or changes a model loads it on first use and raises MissingComponent where it is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qkf_deploy.models.builds import BUILDS, build, build_config
from qkf_deploy.models.config import QKFormerConfig
from qkf_deploy.models.lazy import import_torch_module
from qkf_deploy.models.recognise import recognise

if TYPE_CHECKING:
    from qkf_deploy.models.calibrate import calibrate_batchnorm, randomize_norms
    from qkf_deploy.models.qkformer import QKFormer

__all__ = [
    "BUILDS",
    "QKFormer",
    "QKFormerConfig",
    "build",
    "build_config",
    "calibrate_batchnorm",
    "randomize_norms",
    "recognise",
]

_NEEDS_TORCH = {"QKFormer": "qkformer", "calibrate_batchnorm": "calibrate", "randomize_norms": "calibrate"}


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_torch_module(f"{__name__}.{_NEEDS_TORCH[name]}"), name)
