"""How layers are weighed against each other. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from qkf_deploy.keywords import Help
from qkf_deploy.options import DataOptions, EngineOptions, Progress


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions(DataOptions, EngineOptions):
    """What of a network is tried at few bits, and under which budget."""

    budget: Annotated[
        str | None,
        Help("For the weights of all layers: bytes (60kB, 2MB); with --profile energy per image (3.5uJ).", metavar="B"),
    ] = None
    profile: Annotated[
        str | None, Help("Prices; the cost of a layer is then energy [default: it is the memory of its weights].")
    ] = None
    candidates: Annotated[
        Sequence[int] | None, Help("Bits that every layer may have [default: 8,6,4,3,2].", flags=("--bits",))
    ] = None
    sample: Annotated[int, Help("Images, drawn by --seed, that every network is run on.", least=2)] = 64
    seed: Annotated[int, Help("Which images they are.", least=0)] = 0
    progress: Annotated[Progress | None, Help("Called with (runs done, runs in all).", command_line=False)] = None
