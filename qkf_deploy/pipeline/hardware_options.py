"""The options of a hardware model. Standard library only, as :mod:`qkf_deploy.options`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from qkf_deploy.keywords import Help
from qkf_deploy.options import DataOptions, EngineOptions

Goal = Literal["energy", "delay", "product"]


@dataclass(frozen=True, kw_only=True)
class InputOptions(DataOptions):
    """How images are read, or which stored run says it."""

    point: Annotated[str | None, Help("Number or name of a run, in a file that holds several.", metavar="POINT")] = None


@dataclass(frozen=True, kw_only=True)
class ActivityOptions(InputOptions, EngineOptions):
    """How a network is run for its activity by step and tile."""

    progress: Annotated[
        Callable[[int, int], None] | None, Help("Called with (images done, images in all).", command_line=False)
    ] = None


@dataclass(frozen=True, kw_only=True)
class HardwareOptions(ActivityOptions):
    """How a network is run, and what its dataflows are chosen for."""

    goal: Annotated[
        Goal,
        Help("What the dataflow of every layer makes smallest: energy without static power, delay or their product."),
    ] = "energy"
